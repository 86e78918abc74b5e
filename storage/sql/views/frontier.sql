-- Purpose: explained variance (R2) and non-zero codes per row (L0) of every method on the rows of every model, with
--          the method's own encoder and with matching pursuit.
-- Inputs:  frontier.parquet and seconds.parquet of one model (the times are in a file of their own, since they differ
--          between runs with equal results).
-- Columns: model; method (what found the directions: name of an architecture of SAEs, or of a baseline); encoder (what chooses the codes: 'own', the method's
--          own encoder; 'pursuit', non-negative matching pursuit with the method's dictionary, k steps per row); k
--          (number of codes per row that was asked for); width (number of directions in the dictionary); split (side of
--          the split of the measured rows); r2 (how much of the differences between the rows the reconstruction keeps,
--          the gap between the modalities included: 1 is all, 0 is no better than the mean); r2_image, r2_text (the
--          same for images, and for captions, each about its own mean); cosine (how nearly a reconstruction points
--          where its row does: mean cosine); l0 (number of concepts that fire on a row, on average); r2_at_k,
--          r2_image_at_k, r2_text_at_k (r2, r2_image and r2_text where exactly k concepts fire on a row, so that
--          methods can be compared); seconds (time in seconds to fit the method).
-- Definition: docs/definitions.md, "Frontier".
-- Notes:   the catalog joins one such SELECT per model by UNION ALL. NMF, spherical k-means, random directions, data
--          samples and mp have no encoder but pursuit. To compare dictionaries, compare rows of one k with the encoder
--          pursuit, by r2_at_k; to compare encoders, compare the two rows of a method and k. r2_at_k is interpolated,
--          linear in log L0, between two points of the same dictionary and encoder: its threshold is moved, or rounds
--          are added, until L0 passes k; where the encoder cannot reach k, between the method's rows of other k. It is
--          NULL where both fail, and in tables of earlier versions, which hold one encoder per method.
SELECT
    $model AS model, method,
    coalesce(encoder, CASE WHEN method IN ('nmf', 'spherical', 'random', 'sample') THEN 'pursuit' ELSE 'own' END)
        AS encoder,
    k, width, split, r2, r2_image, r2_text, cosine, l0, r2_at_k, r2_image_at_k, r2_text_at_k, seconds
FROM (
    FROM read_parquet($figures, hive_partitioning = false)
    UNION ALL BY NAME
    SELECT
        NULL::VARCHAR AS encoder, NULL::DOUBLE AS r2_at_k, NULL::DOUBLE AS r2_image_at_k, NULL::DOUBLE AS r2_text_at_k
    WHERE false
) AS figures
JOIN (
    SELECT method, k, any_value(seconds) AS seconds
    FROM read_parquet($seconds, hive_partitioning = false)
    GROUP BY method, k
) AS times USING (method, k)
