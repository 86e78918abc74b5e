-- Purpose: the subspaces that tell a model's images from its captions.
-- Inputs:  the run's table geometry.
-- Columns: model; subspace ('mean_gap', 'logistic', 'lda' or 'inlp'); rank (its dimensions); heldout_accuracy (balanced, of
--          the classifier; for inlp of a classifier fitted on what the subspace leaves over).
-- Definition: DEFINITIONS "geometry".
CREATE VIEW geometry AS FROM read_parquet($files);
