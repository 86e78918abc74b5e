-- Purpose: results of bridges computed without the images of one group, from which the intervals of the findings
--          follow.
-- Inputs:  the run's table bridge_groups.
-- Columns: model, sae, seed, split; statistic ('covariance_opposite_total': sum of the covariance bridges between
--          concepts of the class image and concepts of the class text, in either role); jackknife_group (0 to 19, the
--          group of images that is left out with its captions); value (the result over the pairs of all other groups).
-- Definition: docs/definitions.md, "Uncertainty of per-concept sums", "Results of bridges". A group without counted
--          pairs has no row.
CREATE VIEW bridge_groups AS FROM read_parquet($files, hive_partitioning = false);
