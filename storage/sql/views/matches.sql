-- Purpose: matched concepts of two SAEs of one setting, which differ in the seed or in the training data (a data diet
--          of the setting). Each pair of SAEs is stored in both orders.
-- Inputs:  the run's table matches.
-- Columns: model; sae_a, seed_a, sae_b, seed_b (setting and seed of the two SAEs that are compared); concept_a,
--          concept_b (numbers of the two concepts that are matched with each other, each concept with one other);
--          cosine (how nearly the two concepts point in one direction: 1 for the same direction, 0 for a right angle).
-- Definition: docs/definitions.md, "Stability": the exact assignment with the largest sum of cosines, over all
--          concepts.
CREATE VIEW matches AS FROM read_parquet($files, hive_partitioning = false);
