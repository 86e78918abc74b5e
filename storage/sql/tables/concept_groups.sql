-- Purpose: sums per concept and group of images (20 groups). The means of a concept are computed from them, and the
--          jackknife omits one group at a time.
-- Inputs:  codes (of one SAE), group_sizes; $model, $sae, $seed, $width, $split.
-- Columns: model, sae, seed, split, concept_id, jackknife_group; images, texts (number of counted images, and of
--          counted captions, in the group); image, text (sum of the concept's activations over these images, and over
--          these captions; sum of z); image_squared, text_squared (sum of the squared activations over these images,
--          and over these captions; sum of z^2); image_firings, text_firings (number of these images, and of these
--          captions, on which the concept fires); training_firings (number of training items of both modalities in the
--          group on which the concept fires).
-- Definition: docs/definitions.md, "Uncertainty of per-concept sums". There is one row per concept and group, even if
--          all its sums are 0.
WITH every AS (
    SELECT unnest(range($width))::INTEGER AS concept_id
),
sums AS (
    SELECT
        concept_id, jackknife_group,
        sum(activation::DOUBLE) FILTER (counted AND is_image) AS image,
        sum(activation::DOUBLE) FILTER (counted AND NOT is_image) AS text,
        sum(activation::DOUBLE * activation) FILTER (counted AND is_image) AS image_squared,
        sum(activation::DOUBLE * activation) FILTER (counted AND NOT is_image) AS text_squared,
        count(*) FILTER (counted AND is_image) AS image_firings,
        count(*) FILTER (counted AND NOT is_image) AS text_firings,
        count(*) FILTER (training) AS training_firings
    FROM codes
    GROUP BY concept_id, jackknife_group
)
SELECT
    $model AS model, $sae AS sae, $seed::INTEGER AS seed, $split AS split, concept_id, jackknife_group,
    images, texts,
    coalesce(image, 0) AS image, coalesce(text, 0) AS text,
    coalesce(image_squared, 0) AS image_squared, coalesce(text_squared, 0) AS text_squared,
    coalesce(image_firings, 0) AS image_firings, coalesce(text_firings, 0) AS text_firings,
    coalesce(training_firings, 0) AS training_firings
FROM every
CROSS JOIN group_sizes
LEFT JOIN sums USING (concept_id, jackknife_group)
ORDER BY concept_id, jackknife_group
