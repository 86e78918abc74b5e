-- Purpose: the recall of a random ranking in the gallery on which the run measures retrieval.
-- Inputs:  images, pairs, retrieval.
-- Columns: direction ('image_to_text' or 'text_to_image'); k (1, 5, 10); chance (probability of a hit among the first k
--          results).
-- Definition: docs/definitions.md, "Chance of retrieval". The gallery has n images and M captions. Text to image: the
--          caption's image is among k random images with probability k / n. Image to text: an image has c captions. At
--          least one of them is among k random captions with probability 1 - C(M - c, k) / C(M, k), where C is the
--          binomial coefficient. This is averaged over the images that have captions. The gallery holds the images of
--          the split with the smallest split_u.
CREATE MACRO retrieval_chance() AS TABLE
WITH measured AS (
    SELECT any_value(split) AS split, max(gallery) AS gallery FROM retrieval
),
candidates AS (
    SELECT images.image_id, images.split_u, count(pairs.pair_id) AS own
    FROM measured
    JOIN images ON measured.split = 'all' OR images.split = measured.split
    LEFT JOIN pairs ON pairs.image_id = images.image_id
    GROUP BY images.image_id, images.split_u
),
chosen AS (
    SELECT own
    FROM candidates
    QUALIFY row_number() OVER (ORDER BY split_u, image_id) <= (SELECT measured.gallery FROM measured)
),
gallery AS (
    SELECT own, sum(own) OVER () AS total FROM chosen
),
ks AS (
    SELECT unnest([1, 5, 10]) AS k
)
SELECT 'image_to_text' AS direction, k, avg(chance_of_hit(k, own, total)) AS chance
FROM gallery, ks
WHERE own > 0
GROUP BY k
UNION ALL
SELECT 'text_to_image', k, chance_of_hit(k, 1, measured.gallery)
FROM measured, ks
ORDER BY direction, k;
