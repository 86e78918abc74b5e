-- Purpose: R2 against L0 of one model's rows, by every method; the catalog puts one such SELECT a model together.
-- Inputs:  frontier.parquet, and seconds.parquet beside it (times are kept apart, for they differ between equal runs).
-- Columns: model; method (an architecture of SAEs, or a baseline); k (codes asked for); width (directions it has);
--          split (of the rows measured); r2, r2_image, r2_text, cosine, l0 as in the view saes; seconds (to fit).
-- Definition: DEFINITIONS "Frontier".
SELECT $model AS model, method, k, width, split, r2, r2_image, r2_text, cosine, l0, seconds
FROM read_parquet($figures) AS figures JOIN read_parquet($seconds) AS times USING (method, k)
