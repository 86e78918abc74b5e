-- Purpose: the subspaces that separate a model's images from its captions.
-- Inputs:  the run's table geometry.
-- Columns: model; subspace (how the directions that separate images from captions were found: 'mean_gap', the
--          difference of the two means; 'logistic', the normal of a logistic regression; 'lda', Fisher's discriminant;
--          'inlp', one classifier after another, each without the directions of those before it); rank (number of
--          dimensions of the subspace); heldout_accuracy (how well a classifier with the direction tells held-out
--          images from captions, .5 is chance; for inlp, a classifier fitted after the subspace is projected out, so
--          that .5 means that nothing is left; balanced accuracy).
-- Definition: docs/definitions.md, "Geometry".
CREATE VIEW geometry AS FROM read_parquet($files, hive_partitioning = false);
