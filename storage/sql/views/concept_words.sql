-- Purpose: the words that distinguish the training captions of each concept from all training captions, the most
--          distinctive first. The first three are the words of the view concept_names.
-- Inputs:  the run's table concept_words.
-- Columns: model, sae, seed, concept_id; word (the word itself, in lower case); score (how much more often the word occurs in the captions
--          of the concept than in all captions, in standard errors: at least 1.96; the difference of the log odds of the
--          word, divided by its standard deviation).
-- Definition: docs/definitions.md, "Names of concepts".
CREATE VIEW concept_words AS FROM read_parquet($files, hive_partitioning = false);
