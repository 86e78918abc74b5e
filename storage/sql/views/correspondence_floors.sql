-- Purpose: the chance level of correspondence, for every draw: the mean over concepts of the largest correlation when
--          one of the two models sees permuted images.
-- Inputs:  the run's table correspondence_floors.
-- Columns: model_a, model_b (names of the two models); sae, seed; split; modality_a, modality_b ('image' or 'text': the
--          items whose codes are compared); draw; value (what the best of all concepts reaches by chance in this draw,
--          mean over the concepts of model_a, weighted by their energies in modality_a).
-- Definition: docs/definitions.md, "Correspondence".
CREATE VIEW correspondence_floors AS FROM read_parquet($files, hive_partitioning = false);
