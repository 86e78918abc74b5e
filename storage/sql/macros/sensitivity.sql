-- Purpose: how far each headline result moves when one setting of an SAE changes, and how far the seeds move it.
-- Inputs:  m (model), s (SAE setting); saes, concepts, matches, bridge_totals.
-- Columns: varied (the one setting in which the two SAE settings differ: init, learning_rate, k, width, or another);
--          value (of the other setting; 'default' if its configuration does not state it); other (the other setting);
--          statistic; reference, reference_low, reference_high (mean and range over the seeds of s); figure, low, high
--          (the same of the other setting); moved (figure - reference); by_seeds (reference_high - reference_low).
--          The statistics: r2, l0, dead_fraction (see saes), unimodal (share of unimodal concepts among those counted),
--          stability (mean matched cosine; its mean and range are over pairs of seeds), raw_opposite_share and
--          covariance_opposite_share (see bridge_figures).
-- Definition: docs/definitions.md, "Stability", "Bridge Score". The settings that the key `sensitivity` of a study
--          adds differ in one setting, and so may settings that are written by hand. Frozen SAEs are left out: the macro
--          frozen_figures compares them. So are consensus SAEs. Nested widths (prefixes) that
--          follow a change of width are not counted.
CREATE MACRO sensitivity(m, s) AS TABLE
WITH trained AS (
    SELECT sae, any_value(settings)::VARCHAR AS settings
    FROM saes
    WHERE model = m AND (sae = s OR json_extract_string(settings, ['frozen', 'consensus_of']) = [NULL, NULL])
    GROUP BY sae
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
        CASE WHEN list_contains(names, 'width') THEN list_filter(names, lambda name: name <> 'prefixes') ELSE names END AS names
    FROM apart
),
measured AS (
    SELECT sae, 'r2' AS statistic, r2 AS figure FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'l0', l0 FROM saes WHERE model = m
    UNION ALL
    SELECT sae, 'dead_fraction', dead_fraction FROM saes WHERE model = m
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
),
ranges AS (
    SELECT sae, statistic, avg(figure) AS mean, min(figure) AS low, max(figure) AS high
    FROM measured
    GROUP BY sae, statistic
)
SELECT
    v.names[1] AS varied, coalesce(json_extract_string(v.settings, v.names[1]), 'default') AS value, v.sae AS other,
    r.statistic, own.mean AS reference, own.low AS reference_low, own.high AS reference_high,
    r.mean AS figure, r.low, r.high, r.mean - own.mean AS moved, own.high - own.low AS by_seeds
FROM varied AS v
JOIN ranges AS r ON r.sae = v.sae
JOIN ranges AS own ON own.sae = s AND own.statistic = r.statistic
WHERE len(v.names) = 1
ORDER BY
    list_position(['r2', 'l0', 'dead_fraction', 'unimodal', 'stability'], r.statistic) NULLS LAST, r.statistic,
    varied, try_cast(value AS DOUBLE), value, other;
