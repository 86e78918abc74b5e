-- Purpose: the chance level of partners, for every draw: the mean over concepts of the largest correlation when one
--          of the two seeds sees permuted images.
-- Inputs:  the run's table partner_floors.
-- Columns: model; sae; seed_a, seed_b (seeds of the two SAEs that are compared); split; modality_a, modality_b ('image'
--          or 'text': the items whose codes are compared); draw; value (what the best of all concepts reaches by chance
--          in this draw, mean over the concepts of seed_a, weighted by their energies in modality_a).
-- Definition: docs/definitions.md, "Partners".
CREATE VIEW partner_floors AS FROM read_parquet($files, hive_partitioning = false);
