-- Purpose: the subspaces that separate a model's images from its captions.
-- Inputs:  the run's table geometry.
-- Columns: model; subspace ('mean_gap', 'logistic', 'lda' or 'inlp'); rank (its dimensions); heldout_accuracy (balanced
--          accuracy of the classifier; for inlp, of a classifier fitted after the subspace is projected out).
-- Definition: docs/definitions.md, "Geometry".
CREATE VIEW geometry AS FROM read_parquet($files, hive_partitioning = false);
