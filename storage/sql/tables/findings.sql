-- Purpose: each claim of the paper (arXiv 2504.11695) with its figure, the figure that chance gives, the range over
--          seeds, and whether the claim holds.
-- Inputs:  concepts, matches, bridge_totals, nulls; the macros of definitions.sql.
-- Columns: model, sae; claim; figure (mean over seeds, or over ordered pairs of seeds); "null" (mean figure by chance);
--          low, high (range of the figure over seeds or pairs of seeds);
--          holds (NULL where the null is unknown; a claim that compares seeds has no row when there is only one seed).
-- Definition: docs/definitions.md, "Findings". The "common" concepts are the fewest that hold half of the energy, the
--          "rare" concepts the least energetic half of those that fire on a training row. Among the rare ones, those
--          whose match is dead are left out. A figure is beyond chance when its lowest value is above the 97.5 %
--          quantile of the null. The null of a stability is floor_matched. Shares of unimodal concepts,
--          alignments and accuracies include only the concepts for which is_counted is true. Shares of bridges of
--          opposite modality include all concepts with a modality_class, however seldom they fire, as in bridge_totals.
--          Version 1 of the paper says that concepts are close to the modality subspace. This claim holds when the
--          concepts are on average nearer to the subspace than 97.5 % of random directions. Version 4 says that
--          concepts are almost orthogonal to the subspace. This claim holds when the mean over the seeds does not
--          exceed that quantile. The answer depends on the definition of the subspace, so each definition has its own
--          rows.
WITH ranked AS (
    SELECT
        model, sae, seed, concept_id,
        NOT dead AND row_number() OVER of_life > count(*) FILTER (NOT dead) OVER whole // 2 AS rare,
        coalesce(sum(energy) OVER (ranking ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) < sum(energy) OVER whole / 2
            AS common
    FROM concepts
    WINDOW
        whole AS (PARTITION BY model, sae, seed),
        of_life AS (PARTITION BY model, sae, seed, dead ORDER BY energy DESC, concept_id),
        ranking AS (PARTITION BY model, sae, seed ORDER BY energy DESC, concept_id)
),
pairs_of_seeds AS (
    SELECT
        m.model, m.sae_a AS sae, m.seed_a, m.seed_b,
        avg(m.cosine::DOUBLE) FILTER (common) AS common,
        avg(m.cosine::DOUBLE) FILTER (rare AND NOT b.dead) AS rare
    FROM matches AS m
    JOIN ranked AS r ON r.model = m.model AND r.sae = m.sae_a AND r.seed = m.seed_a AND r.concept_id = m.concept_a
    JOIN concepts AS b ON b.model = m.model AND b.sae = m.sae_b AND b.seed = m.seed_b AND b.concept_id = m.concept_b
    WHERE m.sae_a = m.sae_b
    GROUP BY m.model, m.sae_a, m.seed_a, m.seed_b
),
usage AS (
    SELECT
        model, sae, seed,
        avg(is_unimodal(modality_score)::INTEGER) AS share,
        coalesce(sum(energy) FILTER (is_unimodal(modality_score)), 0) / nullif(sum(energy), 0) AS energy_share,
        avg(abs(align_mean_gap)) AS mean_gap, avg(abs(align_logistic)) AS logistic, avg(abs(align_lda)) AS lda,
        avg(align_inlp) AS inlp, avg(direction_accuracy) AS accuracy
    FROM concepts
    WHERE is_counted(firings, modality_score)
    GROUP BY model, sae, seed
),
alignment AS (
    UNPIVOT (SELECT model, sae, seed, mean_gap, logistic, lda, inlp FROM usage)
    ON mean_gap, logistic, lda, inlp INTO NAME subspace VALUE value
),
bridging AS (
    SELECT
        model, sae, seed, kind,
        coalesce(sum(positive) FILTER (NOT self AND are_opposite(class_image, class_text)), 0) / nullif(sum(positive), 0) AS share
    FROM bridge_totals
    GROUP BY model, sae, seed, kind
),
-- The column how states when a claim holds: 'above' (when the figure is beyond chance), 'most' (when the figure is
-- beyond chance and more than half), 'within' (when the figure is not beyond chance).
measured AS (
    SELECT model, sae, 1 AS place, 'common concepts are stable' AS claim, common AS value,
        'stability_share_50' AS statistic, 'floor_matched' AS "null", 'above' AS how
    FROM pairs_of_seeds
    UNION ALL
    SELECT model, sae, 2, 'rare concepts are not stable', rare, 'stability_rare', 'floor_matched', 'within'
    FROM pairs_of_seeds
    UNION ALL
    SELECT model, sae, 3, 'common concepts are more stable than rare ones', common - rare,
        'stability_common_over_rare', 'floor_matched', 'above'
    FROM pairs_of_seeds
    UNION ALL
    SELECT model, sae, 4, 'most concepts serve one modality', share, 'unimodal_share', 'modality_shuffled', 'most' FROM usage
    UNION ALL
    SELECT model, sae, 5, 'most energy lies in concepts of one modality', energy_share,
        'unimodal_energy_share', 'modality_shuffled', 'most'
    FROM usage
    UNION ALL
    SELECT model, sae, 6, 'v1: concepts lie close to the modality subspace, ' || subspace, value,
        'align_' || subspace, 'floor_random', 'above'
    FROM alignment
    UNION ALL
    SELECT model, sae, 7, 'v4: concepts are almost orthogonal to the modality subspace, ' || subspace, value,
        'align_' || subspace, 'floor_random', 'within'
    FROM alignment
    UNION ALL
    SELECT model, sae, 8, 'v4: concept directions are poor modality classifiers', accuracy,
        'direction_accuracy', 'floor_matched', 'within'
    FROM usage
    WHERE accuracy IS NOT NULL
    UNION ALL
    SELECT model, sae, 9, 'unimodal concepts of opposite modality bridge together, ' || kind, share,
        kind || '_opposite_share', 'images_permuted', 'above'
    FROM bridging
),
chance AS (
    SELECT model, sae, statistic, "null", avg(mean) AS mean, max(q975) AS q975
    FROM nulls
    GROUP BY model, sae, statistic, "null"
),
figures AS (
    SELECT
        model, sae, place, claim, statistic, "null", how,
        avg(value) AS figure, min(value) AS low, max(value) AS high
    FROM measured
    GROUP BY model, sae, place, claim, statistic, "null", how
)
SELECT
    f.model, f.sae, f.claim, f.figure, c.mean AS "null", f.low, f.high,
    CASE f.how
        WHEN 'above' THEN f.low > c.q975
        WHEN 'most' THEN f.low > c.q975 AND f.low > 0.5
        WHEN 'within' THEN f.figure <= c.q975
    END AS holds
FROM figures AS f
LEFT JOIN chance AS c USING (model, sae, statistic, "null")
ORDER BY f.model, f.sae, f.place, f.claim
