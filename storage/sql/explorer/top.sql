-- Purpose: for each concept of one SAE, the images and the captions of both splits with the highest activations, and
--          where it fires on more, items at lower levels of its activation.
-- Inputs:  activations; $model, $sae, $seed, $n (maximum number of items per concept and modality), $each (items per level).
-- Columns: model, sae, seed; modality; concept_id; item_id; activation; level (NULL for the highest activations; else .75,
--          .5 or .25, the quantile of the activations on which the concept fires around which the item lies, or 0 for the
--          items with the lowest activations).
WITH ranked AS (
    SELECT
        a.modality, a.concept_id, a.item_id, a.activation,
        row_number() OVER (PARTITION BY a.modality, a.concept_id ORDER BY a.activation DESC, a.item_id) AS place,
        count(*) OVER (PARTITION BY a.modality, a.concept_id) AS firings
    FROM activations AS a
    WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed
),
listed AS (
    SELECT ranked.*, NULL::DOUBLE AS level FROM ranked WHERE place <= $n
    UNION ALL
    SELECT ranked.*, levels.level
    FROM ranked
    CROSS JOIN (SELECT unnest([0.75::DOUBLE, 0.5, 0.25, 0.0]) AS level) AS levels
    WHERE firings > $n AND place > least((1 - level) * firings - $each / 2.0 * (level > 0)::INTEGER, firings - $each)
    QUALIFY row_number() OVER (PARTITION BY modality, concept_id, level ORDER BY place) <= $each
)
SELECT $model AS model, $sae AS sae, $seed AS seed, modality, concept_id, item_id, activation, level FROM listed
