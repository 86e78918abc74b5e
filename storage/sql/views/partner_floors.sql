-- Purpose: the level of chance of partners, for every draw: the mean over concepts of the largest correlation when one
--          of the two seeds sees permuted images.
-- Inputs:  the run's table partner_floors.
-- Columns: model, sae, seed_a, seed_b (the two SAEs); split; modality_a, modality_b ('image' or 'text': the items whose codes
--          are compared); draw; value (mean of the largest correlations, weighted by the energies of the concepts of
--          seed_a in modality_a).
-- Definition: docs/definitions.md, "Partners".
CREATE VIEW partner_floors AS FROM read_parquet($files, hive_partitioning = false);
