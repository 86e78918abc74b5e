-- Purpose: how far each headline result moves when one setting of an SAE changes, and how far the seeds move it.
-- Inputs:  m (model), s (SAE setting); saes, concepts, matches, bridge_totals, retrieval.
-- Columns: varied (the one setting in which the two SAE settings differ: init, learning_rate, k, width, or another);
--          value (of the other setting; the key's default if its configuration does not state it); other (the other
--          setting); statistic; reference (mean over the seeds of s), reference_low, reference_high (range over them;
--          NULL if there is one value only); figure, low, high (the same of the other setting); moved (how far the
--          result moves: figure - reference); by_seeds (how far the seeds of s move it: reference_high -
--          reference_low; NULL if there is one value only).
--          The statistics: r2, r2_image, r2_text, l0, dead_fraction (see saes), retrieval_r1 (recall at 1 of
--          reconstructions, image to text), unimodal (share of unimodal concepts among those counted), stability (mean
--          matched cosine; its mean and range are over pairs of seeds), raw_opposite_share, covariance_opposite_share
--          and covariance_opposite_total (see bridge_figures). Settings that differ in k have no rows of r2, r2_image
--          and r2_text, which are not comparable at another L0.
-- Definition: docs/definitions.md, "Sensitivity". The settings that the key `sensitivity` of a study adds differ in one
--          setting, and so may settings that are written by hand. Frozen SAEs are left out: the macro frozen_figures
--          compares them. So are consensus SAEs. Nested widths (prefixes) that follow a change of width are not
--          counted, nor is noise that follows a change of epochs.
CREATE MACRO sensitivity(m, s) AS TABLE
WITH trained AS (
    SELECT sae, any_value(settings)::VARCHAR AS settings
    FROM saes
    WHERE model = m AND (sae = s OR json_extract_string(settings, ['frozen', 'consensus_of']) = [NULL, NULL])
    GROUP BY sae
),
-- Keys that a configuration leaves out, or states as null, at their default: the value that sae/settings.py gives them.
-- A configuration without noise was trained without any.
defaults AS (
    FROM (
        VALUES
            ('init', 'within'), ('encoder', 'own'), ('calibration_share', '0.1'), ('bandwidth', '2.0'),
            ('rescale', 'true'), ('noise', '0.0'), ('penalty', 'adjusted to k'),
            ('prefixes', 'C/16, C/8, C/4, C/2, C'), ('k_aux', 'd/2'), ('frozen', 'nothing'), ('data_half', 'both')
    ) AS listed(name, stated)
),
apart AS (
    SELECT
        other.sae, other.settings,
        [
            name FOR name IN list_distinct(list_concat(json_keys(own.settings), json_keys(other.settings)))
            IF json_extract_string(own.settings, name) IS DISTINCT FROM json_extract_string(other.settings, name)
        ] AS names
    FROM trained AS own, trained AS other
    WHERE own.sae = s AND other.sae <> s
),
varied AS (
    SELECT
        sae, settings,
        list_filter(
            names,
            lambda name: NOT (name = 'prefixes' AND list_contains(names, 'width'))
                AND NOT (name = 'noise' AND list_contains(names, 'epochs'))
        ) AS names
    FROM apart
),
measured AS (
    SELECT sae, 'r2' AS statistic, r2 AS figure FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'r2_image', r2_image FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'r2_text', r2_text FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'l0', l0 FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'dead_fraction', dead_fraction FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'retrieval_r1', r1
    FROM retrieval
    WHERE model = m AND intervention = 'reconstructions' AND direction = 'image_to_text'
    UNION ALL
    SELECT sae, 'unimodal', avg(is_unimodal(modality_score)::INTEGER)
    FROM concepts
    WHERE model = m AND is_counted(firings, modality_score)
    GROUP BY sae, seed
    UNION ALL
    SELECT sae_a, 'stability', avg(cosine::DOUBLE)
    FROM matches
    WHERE model = m AND sae_a = sae_b AND seed_a < seed_b
    GROUP BY sae_a, seed_a, seed_b
    UNION ALL
    SELECT
        sae, kind || '_opposite_share',
        coalesce(sum(positive) FILTER (NOT self AND are_opposite(class_image, class_text)), 0) / nullif(sum(positive), 0)
    FROM bridge_totals
    WHERE model = m
    GROUP BY sae, seed, kind
    UNION ALL
    SELECT
        sae, 'covariance_opposite_total',
        coalesce(sum(total) FILTER (NOT self AND are_opposite(class_image, class_text)), 0)
    FROM bridge_totals
    WHERE model = m AND kind = 'covariance'
    GROUP BY sae, seed
),
ranges AS (
    SELECT
        sae, statistic, avg(figure) AS mean,
        CASE WHEN count(figure) > 1 THEN min(figure) END AS low, CASE WHEN count(figure) > 1 THEN max(figure) END AS high
    FROM measured
    GROUP BY sae, statistic
)
SELECT
    v.names[1] AS varied, coalesce(json_extract_string(v.settings, v.names[1]), d.stated) AS value, v.sae AS other,
    r.statistic, own.mean AS reference, own.low AS reference_low, own.high AS reference_high,
    r.mean AS figure, r.low, r.high, r.mean - own.mean AS moved, own.high - own.low AS by_seeds
FROM varied AS v
LEFT JOIN defaults AS d ON d.name = v.names[1]
JOIN ranges AS r ON r.sae = v.sae
JOIN ranges AS own ON own.sae = s AND own.statistic = r.statistic
WHERE len(v.names) = 1 AND NOT (v.names[1] = 'k' AND r.statistic IN ('r2', 'r2_image', 'r2_text'))
ORDER BY
    list_position(
        ['r2', 'r2_image', 'r2_text', 'l0', 'dead_fraction', 'retrieval_r1', 'unimodal', 'stability'], r.statistic
    ) NULLS LAST,
    r.statistic, varied, try_cast(value AS DOUBLE), value, other;
