-- Purpose: for each concept, the exact area under the ROC curve of its activation as a score that separates images from
--          captions.
-- Inputs:  codes (of one SAE), group_sizes; $model, $sae, $seed, $width.
-- Columns: model, sae, seed, concept_id; modality_auc (NULL where a modality has no items).
-- Definition: docs/definitions.md, "Modality AUC": (wins + ties / 2) / (n_I n_T) over all pairs of an image and a
--          caption, where n_I and n_T are the numbers of images and captions. A pair is a win if the image has the
--          larger activation; two zeros are a tie. Among firing items, wins and ties follow from ranks (Mann and
--          Whitney 1947): rank() is the number of lower items plus 1, and the windowed count is the number of lower and
--          equal items, so their sum is twice the mid-rank. A firing image wins against every silent caption. A silent
--          image and a silent caption tie. All values are integers until the last division, so the result is exact at
--          any number of threads.
WITH ranked AS (
    SELECT concept_id, is_image, rank() OVER w + count(*) OVER (w RANGE UNBOUNDED PRECEDING) AS twice_mid_rank
    FROM codes
    WHERE counted
    WINDOW w AS (PARTITION BY concept_id ORDER BY activation)
),
firing AS (
    SELECT
        concept_id,
        count(*) FILTER (is_image) AS images, count(*) FILTER (NOT is_image) AS texts,
        coalesce(sum(twice_mid_rank) FILTER (is_image), 0) AS ranks
    FROM ranked
    GROUP BY concept_id
),
sizes AS (
    SELECT sum(images)::BIGINT AS images, sum(texts)::BIGINT AS texts FROM group_sizes
),
every AS (
    SELECT unnest(range($width))::INTEGER AS concept_id
),
counts AS (
    SELECT
        concept_id, sizes.images AS n_i, sizes.texts AS n_t,
        coalesce(firing.images, 0) AS f_i, coalesce(firing.texts, 0) AS f_t, coalesce(ranks, 0) AS ranks
    FROM every
    LEFT JOIN firing USING (concept_id)
    CROSS JOIN sizes
)
SELECT
    $model AS model, $sae AS sae, $seed::INTEGER AS seed, concept_id,
    (ranks - f_i * (f_i + 1) + 2 * f_i * (n_t - f_t) + (n_i - f_i) * (n_t - f_t))::DOUBLE / nullif(2 * n_i * n_t, 0)
        AS modality_auc
FROM counts
ORDER BY concept_id
