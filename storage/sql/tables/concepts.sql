-- Purpose: energies, rates and modality scores of every concept of every SAE.
-- Inputs:  activations, images, pairs; sae_list (model, sae, seed, width); $split ('heldout', 'train' or 'all').
-- Columns: model, sae, seed, split, concept_id;
--          energy_image = E_I[z], energy_text = E_T[z], energy = their mean; energy_squared_image, _text = E[z^2];
--          rate_image, rate_text = share of counted items on which it fires; firings = their count;
--          modality_score = energy_image / (energy_image + energy_text), NULL where both are 0;
--          dead = fires on no training row.
-- Definition: DEFINITIONS "Per concept". Means are over all counted items, zeros included.
WITH items AS (
    SELECT 'image' AS modality, image_id AS item_id, split FROM images
    UNION ALL
    SELECT 'text' AS modality, pair_id AS item_id, split FROM pairs
),
sizes AS (
    SELECT
        count(*) FILTER (modality = 'image')::DOUBLE AS images,
        count(*) FILTER (modality = 'text')::DOUBLE AS texts
    FROM items
    WHERE $split = 'all' OR split = $split
),
sums AS (
    SELECT
        model, sae, seed, concept_id,
        coalesce(sum(activation::DOUBLE) FILTER (modality = 'image' AND ($split = 'all' OR split = $split)), 0) AS image,
        coalesce(sum(activation::DOUBLE) FILTER (modality = 'text' AND ($split = 'all' OR split = $split)), 0) AS text,
        coalesce(sum(activation::DOUBLE ** 2) FILTER (modality = 'image' AND ($split = 'all' OR split = $split)), 0) AS image_squared,
        coalesce(sum(activation::DOUBLE ** 2) FILTER (modality = 'text' AND ($split = 'all' OR split = $split)), 0) AS text_squared,
        count(*) FILTER (modality = 'image' AND ($split = 'all' OR split = $split)) AS image_firings,
        count(*) FILTER (modality = 'text' AND ($split = 'all' OR split = $split)) AS text_firings,
        count(*) FILTER (split = 'train') AS training_firings
    FROM activations
    JOIN items USING (modality, item_id)
    GROUP BY ALL
),
every_concept AS (
    SELECT model, sae, seed, unnest(range(width))::INTEGER AS concept_id
    FROM sae_list
)
SELECT
    model, sae, seed, $split AS split, concept_id,
    (coalesce(image, 0) / images + coalesce(text, 0) / texts) / 2 AS energy,
    coalesce(image, 0) / images AS energy_image,
    coalesce(text, 0) / texts AS energy_text,
    coalesce(image_squared, 0) / images AS energy_squared_image,
    coalesce(text_squared, 0) / texts AS energy_squared_text,
    coalesce(image_firings, 0) / images AS rate_image,
    coalesce(text_firings, 0) / texts AS rate_text,
    coalesce(image_firings + text_firings, 0) AS firings,
    CASE WHEN image + text > 0 THEN (image / images) / (image / images + text / texts) END AS modality_score,
    coalesce(training_firings, 0) = 0 AS dead
FROM every_concept
LEFT JOIN sums USING (model, sae, seed, concept_id)
CROSS JOIN sizes
ORDER BY model, sae, seed, concept_id
