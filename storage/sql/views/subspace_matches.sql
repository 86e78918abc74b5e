-- Purpose: how much of each concept lies in the span of its most similar atoms (dictionary rows) of another seed. Each
--          pair of seeds is stored in both orders.
-- Inputs:  the run's table subspace_matches.
-- Columns: model, sae, seed_a, seed_b (the two SAEs); concept_id (of seed_a); atoms (number m of most similar atoms of
--          seed_b: 1, 2, 4, 8 or 16); projection (length of the projection of the concept's unit direction on their
--          span: 1 when it lies in the span, 0 when it is orthogonal to it).
-- Definition: docs/definitions.md, "Subspace stability".
CREATE VIEW subspace_matches AS FROM read_parquet($files, hive_partitioning = false);
