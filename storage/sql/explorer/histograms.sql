-- Purpose: histograms of the activations of each concept of one SAE, one for images and one for captions.
-- Inputs:  activations, images, pairs; $model, $sae, $seed, $split (side whose items are
--          counted, or 'all'), $bins (number of bins).
-- Columns: concept_id; highest (largest activation on any item of the study; the bins divide the range from 0 to
--          highest into $bins equal parts); bin (number from 0; NULL for a concept that fires on no counted item);
--          image, text (number of counted images and captions in the bin). Empty bins have no row.
WITH fired AS (
    SELECT a.concept_id, a.modality, a.item_id, a.activation, max(a.activation) OVER (PARTITION BY a.concept_id) AS highest
    FROM activations AS a
    WHERE a.model = $model AND a.sae = $sae AND a.seed = $seed
),
counted AS (
    SELECT f.concept_id, f.highest, f.modality, least(floor(f.activation / f.highest * $bins), $bins - 1)::INTEGER AS bin
    FROM fired AS f
    LEFT JOIN images ON f.modality = 'image' AND images.image_id = f.item_id
    LEFT JOIN pairs ON f.modality = 'text' AND pairs.pair_id = f.item_id
    WHERE $split = 'all' OR coalesce(images.split, pairs.split) = $split
)
SELECT
    every.concept_id, every.highest, c.bin,
    count(*) FILTER (c.modality = 'image') AS image, count(*) FILTER (c.modality = 'text') AS text
FROM (SELECT DISTINCT concept_id, highest FROM fired) AS every
LEFT JOIN counted AS c ON c.concept_id = every.concept_id
GROUP BY every.concept_id, every.highest, c.bin
ORDER BY every.concept_id, c.bin
