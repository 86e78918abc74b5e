-- Purpose: the results of a setting and of its frozen twins: the same setting trained with a part that is never
--          learned. A result that a twin reaches too was not learned from the data.
-- Inputs:  m (model), s (SAE setting); saes, concepts, matches, bridge_totals, retrieval.
-- Columns: figure; trained, low, high (the setting's value: its mean and range over seeds, for stability over pairs of
--          seeds); frozen_decoder (the twin whose atoms stay at their start), soft_frozen_decoder (the twin whose atoms
--          stay within a cosine of .8 of their start), frozen_encoder (the twin whose encoder stays at its start), and
--          frozen_decoder_random, soft_frozen_decoder_random, frozen_encoder_random (the twins that start in random
--          directions; NULL for a twin that the study does not have); best_frozen, best_twin (the largest of these
--          values, and the setting that has it); bound (the value that the result cannot exceed); excess (the part of
--          the
--          way from the best twin to the bound that training has gained: 0 if the twin is as good, below 0 if it is
--          better; = (trained - best_frozen) / (bound - best_frozen)).
--          The results: r2_image, r2_text (see saes); retrieval_r1 (recall at 1 of reconstructions, image to text);
--          stability (mean matched cosine); unimodal_share, unimodal_energy_share (share of the counted concepts that
--          serve one modality, and their share of the energy); monosemanticity, monosemanticity_independent (means over
--          the concepts that have a score, see concepts); covariance_opposite_share (see bridge_figures).
-- Definition: docs/definitions.md, "Frozen nulls".
CREATE MACRO frozen_figures(m, s) AS TABLE
WITH compared AS (
    SELECT DISTINCT
        sae,
        CASE WHEN sae = s THEN 'trained' WHEN suffix(sae, '-random') THEN frozen || '_random' ELSE frozen END AS kind
    FROM saes
    WHERE model = m AND (sae = s OR twin_of = s)
),
of_concepts AS (
    SELECT sae, seed, energy, monosemanticity, monosemanticity_independent,
        is_counted(firings, modality_score) AS counted, is_unimodal(modality_score) AS unimodal
    FROM (
        FROM concepts
        UNION ALL BY NAME
        -- Tables of earlier versions lack this column.
        SELECT NULL::DOUBLE AS monosemanticity_independent WHERE false
    )
    WHERE model = m
),
measured AS (
    SELECT sae, 'r2_image' AS figure, r2_image AS value FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'r2_text', r2_text FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'retrieval_r1', r1
    FROM retrieval
    WHERE model = m AND intervention = 'reconstructions' AND direction = 'image_to_text'
    UNION ALL
    SELECT sae_a, 'stability', avg(cosine::DOUBLE)
    FROM matches
    WHERE model = m AND sae_a = sae_b AND seed_a < seed_b
    GROUP BY sae_a, seed_a, seed_b
    UNION ALL
    SELECT sae, 'unimodal_share', avg(unimodal::INTEGER) FROM of_concepts WHERE counted GROUP BY sae, seed
    UNION ALL
    SELECT sae, 'unimodal_energy_share', coalesce(sum(energy) FILTER (unimodal), 0) / nullif(sum(energy), 0)
    FROM of_concepts
    WHERE counted
    GROUP BY sae, seed
    UNION ALL
    SELECT sae, 'monosemanticity', avg(monosemanticity) FROM of_concepts GROUP BY sae, seed
    UNION ALL
    SELECT sae, 'monosemanticity_independent', avg(monosemanticity_independent) FROM of_concepts GROUP BY sae, seed
    UNION ALL
    SELECT
        sae, 'covariance_opposite_share',
        coalesce(sum(positive) FILTER (NOT self AND are_opposite(class_image, class_text)), 0) / nullif(sum(positive), 0)
    FROM bridge_totals
    WHERE model = m AND kind = 'covariance'
    GROUP BY sae, seed
),
means AS (
    SELECT sae, kind, figure, avg(value) AS value, min(value) AS low, max(value) AS high
    FROM measured
    JOIN compared USING (sae)
    GROUP BY sae, kind, figure
),
side_by_side AS (
    SELECT
        figure,
        max(value) FILTER (kind = 'trained') AS trained,
        max(low) FILTER (kind = 'trained') AS low,
        max(high) FILTER (kind = 'trained') AS high,
        max(value) FILTER (kind = 'frozen_decoder') AS frozen_decoder,
        max(value) FILTER (kind = 'soft_frozen_decoder') AS soft_frozen_decoder,
        max(value) FILTER (kind = 'frozen_encoder') AS frozen_encoder,
        max(value) FILTER (kind = 'frozen_decoder_random') AS frozen_decoder_random,
        max(value) FILTER (kind = 'soft_frozen_decoder_random') AS soft_frozen_decoder_random,
        max(value) FILTER (kind = 'frozen_encoder_random') AS frozen_encoder_random,
        max(value) FILTER (sae <> s) AS best_frozen,
        arg_max(sae, value) FILTER (sae <> s) AS best_twin
    FROM means
    GROUP BY figure
)
SELECT
    figure, trained, low, high, frozen_decoder, soft_frozen_decoder, frozen_encoder, frozen_decoder_random,
    soft_frozen_decoder_random, frozen_encoder_random, best_frozen, best_twin, 1.0::DOUBLE AS bound,
    (trained - best_frozen) / nullif(1.0::DOUBLE - best_frozen, 0) AS excess
FROM side_by_side
WHERE trained IS NOT NULL
ORDER BY list_position(
    [
        'r2_image', 'r2_text', 'retrieval_r1', 'stability', 'unimodal_share', 'unimodal_energy_share',
        'monosemanticity', 'monosemanticity_independent', 'covariance_opposite_share'
    ],
    figure
);
