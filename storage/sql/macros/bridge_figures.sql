-- Purpose: summary results of the bridges of a setting, and the values that chance gives to them.
-- Inputs:  m (model), s (sae); bridges, bridge_totals, nulls.
-- Columns: seed; statistic; figure; images_permuted, images_permuted_sd (mean and sd over draws that permute all
--          images), dictionary_permuted, dictionary_permuted_sd (over draws that permute the rows of the dictionary),
--          both_permuted, both_permuted_sd (over draws that permute both).
--          The statistics, where <kind> is raw or covariance: <kind>_total (sum of all bridges), <kind>_positive (sum
--          of the positive bridges); <kind>_opposite_total, <kind>_opposite_positive (the same sums over the bridges
--          between unimodal concepts of opposite modality); as shares of <kind>_positive: <kind>_self_share (bridges of
--          a concept with itself), <kind>_opposite_share (bridges between unimodal concepts of opposite modality),
--          <kind>_top_<n>_share (the n highest stored bridges, n = 10, 100, 1000); top_bridge, top_covariance_bridge,
--          top_correlation_bridge (the highest stored raw, covariance and correlation bridge).
-- Definition: docs/definitions.md, "Results of bridges", "Nulls of bridges". Sums include all pairs of concepts. The
--          highest bridges are taken from the stored bridges. A bridge is stored if its two concepts fire together on
--          at least min_pairs pairs.
CREATE MACRO bridge_figures(m, s) AS TABLE
WITH sums AS (
    SELECT
        seed, kind, sum(total) AS total, sum(positive) AS positive,
        coalesce(sum(positive) FILTER (self), 0) AS own,
        coalesce(sum(total) FILTER (NOT self AND are_opposite(class_image, class_text)), 0) AS opposite_total,
        coalesce(sum(positive) FILTER (NOT self AND are_opposite(class_image, class_text)), 0) AS opposite
    FROM bridge_totals
    WHERE model = m AND sae = s
    GROUP BY seed, kind
),
stored AS (
    SELECT seed, 'raw' AS kind, bridge AS score FROM bridges WHERE model = m AND sae = s
    UNION ALL
    SELECT seed, 'covariance', covariance_bridge FROM bridges WHERE model = m AND sae = s
),
highest AS (
    SELECT seed, kind, score, row_number() OVER (PARTITION BY seed, kind ORDER BY score DESC) AS rank
    FROM stored
    QUALIFY rank <= 1000
),
tops AS (
    SELECT seed, kind, n, sum(greatest(score, 0)) AS held
    FROM highest
    JOIN (SELECT unnest([10, 100, 1000]) AS n) AS sizes ON rank <= n
    GROUP BY seed, kind, n
),
measured AS (
    SELECT seed, kind || '_total' AS statistic, total AS figure FROM sums
    UNION ALL
    SELECT seed, kind || '_positive', positive FROM sums
    UNION ALL
    SELECT seed, kind || '_self_share', own / nullif(positive, 0) FROM sums
    UNION ALL
    SELECT seed, kind || '_opposite_total', opposite_total FROM sums
    UNION ALL
    SELECT seed, kind || '_opposite_positive', opposite FROM sums
    UNION ALL
    SELECT seed, kind || '_opposite_share', opposite / nullif(positive, 0) FROM sums
    UNION ALL
    SELECT seed, kind || '_top_' || n || '_share', held / nullif(positive, 0) FROM tops JOIN sums USING (seed, kind)
    UNION ALL
    SELECT seed, CASE kind WHEN 'raw' THEN 'top_bridge' ELSE 'top_covariance_bridge' END, score FROM highest WHERE rank = 1
    UNION ALL
    SELECT seed, 'top_correlation_bridge', max(correlation_bridge) FROM bridges WHERE model = m AND sae = s GROUP BY seed
),
chance AS (
    SELECT
        seed, statistic,
        max(mean) FILTER ("null" = 'images_permuted') AS images_permuted,
        max(sd) FILTER ("null" = 'images_permuted') AS images_permuted_sd,
        max(mean) FILTER ("null" = 'dictionary_permuted') AS dictionary_permuted,
        max(sd) FILTER ("null" = 'dictionary_permuted') AS dictionary_permuted_sd,
        max(mean) FILTER ("null" = 'both_permuted') AS both_permuted,
        max(sd) FILTER ("null" = 'both_permuted') AS both_permuted_sd
    FROM nulls
    WHERE model = m AND sae = s
    GROUP BY seed, statistic
)
SELECT
    seed, statistic, figure, images_permuted, images_permuted_sd, dictionary_permuted, dictionary_permuted_sd,
    both_permuted, both_permuted_sd
FROM measured
LEFT JOIN chance USING (seed, statistic)
ORDER BY seed, statistic;
