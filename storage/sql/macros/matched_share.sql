-- Purpose: the sum of the n highest bridges, as a share of the matched similarity E_P <x_hat_I, x_hat_T>. The matched
--          similarity is the mean inner product of the reconstructions of an image and its caption.
-- Inputs:  m (model), s (sae); bridges, matched_similarity, bridge_totals.
-- Columns: seed; n (powers of 2 up to the number of stored bridges, and that number); carried (sum of the n highest raw
--          bridges); of_matched (carried / matched similarity); of_positive (carried / sum of all positive raw
--          bridges); covariance_carried (sum of the n highest covariance bridges); covariance_of_gain
--          (covariance_carried / (matched - shuffled similarity)); covariance_of_positive (covariance_carried / sum of
--          all positive covariance bridges).
-- Definition: docs/definitions.md, "Identities of bridges". The shuffled similarity is <E_P x_hat_I, E_P x_hat_T>. E_P:
--          mean over the counted pairs; x_hat_I, x_hat_T: reconstructions of the image and of the caption. Negative
--          bridges lower the matched similarity, so of_matched may exceed 1.
CREATE MACRO matched_share(m, s) AS TABLE
WITH ranked AS (
    SELECT
        seed,
        row_number() OVER by_raw AS n, count(*) OVER (PARTITION BY seed) AS stored,
        sum(bridge) OVER by_raw AS carried
    FROM bridges
    WHERE model = m AND sae = s
    WINDOW by_raw AS (PARTITION BY seed ORDER BY bridge DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
),
ranked_covariance AS (
    SELECT
        seed,
        row_number() OVER by_covariance AS n,
        sum(covariance_bridge) OVER by_covariance AS covariance_carried
    FROM bridges
    WHERE model = m AND sae = s
    WINDOW by_covariance AS (
        PARTITION BY seed ORDER BY covariance_bridge DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
),
terms AS (
    SELECT
        seed, max(value) FILTER (term = 'matched') AS matched,
        max(value) FILTER (term = 'matched') - max(value) FILTER (term = 'shuffled') AS gain
    FROM matched_similarity
    WHERE model = m AND sae = s
    GROUP BY seed
),
positives AS (
    SELECT
        seed, sum(positive) FILTER (kind = 'raw') AS raw, sum(positive) FILTER (kind = 'covariance') AS covariance
    FROM bridge_totals
    WHERE model = m AND sae = s
    GROUP BY seed
)
SELECT
    seed, n, carried, carried / nullif(matched, 0) AS of_matched, carried / nullif(raw, 0) AS of_positive,
    covariance_carried, covariance_carried / nullif(gain, 0) AS covariance_of_gain,
    covariance_carried / nullif(covariance, 0) AS covariance_of_positive
FROM ranked
JOIN ranked_covariance USING (seed, n)
JOIN terms USING (seed)
JOIN positives USING (seed)
WHERE n = stored OR n = 2 ** round(log2(n))
ORDER BY seed, n;
