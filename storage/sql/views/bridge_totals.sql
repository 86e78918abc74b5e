-- Purpose: what all bridges add up to, stored or not, by the modality that either concept serves.
-- Inputs:  the run's table bridge_totals.
-- Columns: model, sae, seed, split; class_image, class_text (of image concept and text concept: 'image', 'text', 'bimodal', or
--          'silent' on the counted items); self (a concept with itself); kind ('raw' or 'covariance'); total, positive,
--          negative (sums of all, of the positive, of the negative scores).
-- Definition: DEFINITIONS "Bridge Score", totals. Untruncated.
CREATE VIEW bridge_totals AS FROM read_parquet($files);
