-- Purpose: hits of retrieval at K = 1 per group of images, from which the intervals of the findings follow.
-- Inputs:  the run's table retrieval_groups.
-- Columns: model; sae, seed (setting and seed of the SAE, NULL for the embeddings); split; intervention (which rows of
--          images and captions are compared: 'embeddings' or 'reconstructions'); direction (what looks for what:
--          'image_to_text' or 'text_to_image'); jackknife_group (0 to 19, the group of the query's image); queries
--          (number of queries of the group in the gallery); hits (number of queries whose own item ranks first).
-- Definition: docs/definitions.md, "Retrieval", "Uncertainty of per-concept sums". The recall without a group is the
--          share of hits among the queries of all other groups; the gallery stays whole. A group without queries has
--          no row.
CREATE VIEW retrieval_groups AS FROM read_parquet($files, hive_partitioning = false);
