-- Purpose: energies, rates, modality and geometry of every concept of every SAE, with the standard errors of the means.
-- Inputs:  concept_groups, concept_auc; concept_geometry (direction_accuracy, align_*) and concept_monosemanticity, computed
--          outside SQL.
-- Columns: the columns of the view concepts, but for those that it adds.
-- Definition: docs/definitions.md, "Per concept", "Monosemanticity", "Uncertainty of per-concept sums". Means are over all counted items,
--          including zeros. Jackknife with g groups: sd^2 = (g - 1) / g * sum of (estimate without one group - mean of
--          these estimates)^2.
WITH whole AS (
    SELECT
        model, sae, seed, split, concept_id,
        sum(images) AS images, sum(texts) AS texts, sum(image) AS image, sum(text) AS text,
        sum(image_squared) AS image_squared, sum(text_squared) AS text_squared,
        sum(image_firings) AS image_firings, sum(text_firings) AS text_firings, sum(training_firings) AS training_firings
    FROM concept_groups
    GROUP BY model, sae, seed, split, concept_id
),
without_one AS (
    SELECT
        model, sae, seed, concept_id,
        (w.image - g.image) / nullif(w.images - g.images, 0) AS energy_image,
        (w.text - g.text) / nullif(w.texts - g.texts, 0) AS energy_text,
        (w.image_firings - g.image_firings) / nullif(w.images - g.images, 0) AS rate_image,
        (w.text_firings - g.text_firings) / nullif(w.texts - g.texts, 0) AS rate_text
    FROM concept_groups AS g
    JOIN whole AS w USING (model, sae, seed, concept_id)
    WHERE g.images + g.texts > 0
),
estimates AS (
    SELECT
        *, (energy_image + energy_text) / 2 AS energy,
        energy_image / nullif(energy_image + energy_text, 0) AS modality_score
    FROM without_one
),
spread AS (
    SELECT
        model, sae, seed, concept_id,
        CASE WHEN count(energy) = count(*) THEN sqrt((count(*) - 1) * var_pop(energy)) END AS energy_sd,
        CASE WHEN count(energy_image) = count(*) THEN sqrt((count(*) - 1) * var_pop(energy_image)) END AS energy_image_sd,
        CASE WHEN count(energy_text) = count(*) THEN sqrt((count(*) - 1) * var_pop(energy_text)) END AS energy_text_sd,
        CASE WHEN count(rate_image) = count(*) THEN sqrt((count(*) - 1) * var_pop(rate_image)) END AS rate_image_sd,
        CASE WHEN count(rate_text) = count(*) THEN sqrt((count(*) - 1) * var_pop(rate_text)) END AS rate_text_sd,
        CASE WHEN count(modality_score) = count(*) THEN sqrt((count(*) - 1) * var_pop(modality_score)) END
            AS modality_score_sd
    FROM estimates
    GROUP BY model, sae, seed, concept_id
),
means AS (
    SELECT
        *, image / nullif(images, 0) AS energy_image, text / nullif(texts, 0) AS energy_text,
        image_squared / nullif(images, 0) AS energy_squared_image, text_squared / nullif(texts, 0) AS energy_squared_text,
        image_firings / nullif(images, 0) AS rate_image, text_firings / nullif(texts, 0) AS rate_text
    FROM whole
)
SELECT
    model, sae, seed, split, concept_id,
    (energy_image + energy_text) / 2 AS energy, energy_image, energy_text,
    energy_squared_image, energy_squared_text, rate_image, rate_text,
    (image_firings + text_firings)::BIGINT AS firings,
    energy_image / nullif(energy_image + energy_text, 0) AS modality_score,
    modality_auc, direction_accuracy, align_mean_gap, align_logistic, align_lda, align_inlp, monosemanticity,
    monosemanticity_independent, training_firings = 0 AS dead,
    energy_sd, energy_image_sd, energy_text_sd, rate_image_sd, rate_text_sd, modality_score_sd
FROM means
JOIN spread USING (model, sae, seed, concept_id)
LEFT JOIN concept_auc USING (model, sae, seed, concept_id)
LEFT JOIN concept_geometry USING (model, sae, seed, concept_id)
LEFT JOIN concept_monosemanticity USING (model, sae, seed, concept_id)
ORDER BY model, sae, seed, concept_id
