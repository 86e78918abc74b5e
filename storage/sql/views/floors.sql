-- Purpose: the cosine of each concept with its match in a randomly drawn dictionary. The means of these cosines are the
--          floors of stability, that is, the stability that chance reaches. The view nulls summarises them over the
--          draws.
-- Inputs:  the run's table floors.
-- Columns: model, sae, seed; "null" (what is drawn: 'floor_random', uniform unit vectors; 'floor_matched', rows with
--          the mean and covariance of the dictionary's rows); draw; concept_id; cosine (how near the concept comes to a
--          row of the drawn dictionary by chance: cosine with the row that is matched with it).
-- Definition: docs/definitions.md, "Floors of stability".
CREATE VIEW floors AS FROM read_parquet($files, hive_partitioning = false);
