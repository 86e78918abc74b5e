-- Purpose: explained variance (R2) and non-zero codes per row (L0) of every method on the rows of every model.
-- Inputs:  frontier.parquet and seconds.parquet of one model (the times are in a file of their own, since they differ
--          between runs with equal results).
-- Columns: model; method (an architecture of SAEs, or a baseline); k (requested codes per row); width (number of
--          directions); split (of the measured rows); r2, r2_image, r2_text, cosine, l0 as in the view saes; seconds
--          (time to fit the method).
-- Definition: docs/definitions.md, "Frontier".
-- Notes:   the catalog joins one such SELECT per model by UNION ALL.
SELECT $model AS model, method, k, width, split, r2, r2_image, r2_text, cosine, l0, seconds
FROM read_parquet($figures, hive_partitioning = false) AS figures JOIN read_parquet($seconds, hive_partitioning = false) AS times USING (method, k)
