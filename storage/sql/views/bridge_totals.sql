-- Purpose: sums of all bridges, stored or not, by the modality classes of their two concepts.
-- Inputs:  the run's table bridge_totals.
-- Columns: model, sae, seed, split; class_image, class_text (class of the image concept and of the text concept:
--          'image', 'text', 'bimodal', or 'silent' on the counted items); self (whether both are the same concept);
--          kind ('raw' or 'covariance'); total, positive, negative (sum of all scores, of the positive scores, of the
--          negative scores).
-- Definition: docs/definitions.md, "Totals of bridges". The sums include all pairs of concepts. They also include the
--          pairs that the view bridges leaves out because their concepts fire together on fewer than min_pairs pairs.
CREATE VIEW bridge_totals AS FROM read_parquet($files, hive_partitioning = false);
