-- Purpose: every trained SAE: its setting, and the accuracy and sparsity of its reconstruction of the counted rows.
-- Inputs:  the run's table saes.
-- Columns: model; sae (setting); seed; architecture; dim (d); width (C); k; decoder_bias; image_share (of the training
--          mixture, or 'natural'); data_half ('a' or 'b' of the images, NULL for all); split (of the counted rows); r2,
--          r2_image, r2_text (explained variance; r2 credits the gap between modalities); r2_scalar_mean (the variant of
--          overcomplete, for comparison only); cosine (of row and reconstruction); l0, l0_image, l0_text (non-zero codes per
--          row); hoyer (sparsity); rows_seen (training draws); path (folder in the store); dead_fraction (share of concepts
--          that fire on no training row).
-- Definition: DEFINITIONS "Reconstruction and sparsity".
CREATE VIEW saes AS FROM read_parquet($files);
