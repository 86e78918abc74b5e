-- Purpose: how much of each concept lies in the span of its most similar atoms (dictionary rows) of another seed. Each
--          pair of seeds is stored in both orders.
-- Inputs:  the run's table subspace_matches.
-- Columns: model; sae; seed_a, seed_b (seeds of the two SAEs that are compared); concept_id (number of the concept in
--          seed_a); atoms (how many atoms of seed_b, those most similar to the concept, span the space that it is
--          projected on: m = 1, 2, 4, 8 or 16); projection (how much of the concept those atoms can express together: 1
--          when its direction lies in their span, 0 when it is at a right angle to all of them; length of the
--          projection of the unit direction).
-- Definition: docs/definitions.md, "Subspace stability".
CREATE VIEW subspace_matches AS FROM read_parquet($files, hive_partitioning = false);
