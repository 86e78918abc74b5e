-- Purpose: every trained SAE: its setting, and the accuracy and sparsity of its reconstruction of the counted rows.
-- Inputs:  the run's table saes.
-- Columns: model; sae (setting); seed; architecture; dim (d); width (C); k (requested codes per row); decoder_bias;
--          image_share (share of images in the training mixture, or 'natural'); data_half (the half of the images on
--          which the SAE is trained, 'a' or 'b'; NULL if it is trained on all); split (of the counted rows); r2,
--          r2_image, r2_text (explained variance; r2 is measured about the mean of both modality means, so it also
--          counts the reconstruction of the gap between the modalities); r2_scalar_mean (R2 about one scalar mean, as
--          the library `overcomplete` defines it, for comparison only); cosine (of row and reconstruction); l0,
--          l0_image, l0_text (non-zero codes per row); hoyer (Hoyer sparsity of the codes); rows_seen (rows drawn in
--          training); path (folder in the store); dead_fraction (share of concepts that fire on no training
--          row); settings (JSON object: how the SAE was trained; keys that were added later are left out while they have
--          their default value); frozen (the part of the SAE that was never learned: 'frozen_decoder',
--          'soft_frozen_decoder' or 'frozen_encoder'; NULL for a trained SAE); twin_of (the setting of which this one
--          is the frozen twin that the key nulls of the study added; NULL for any other setting).
-- Definition: docs/definitions.md, "Reconstruction and sparsity", "Frozen nulls".
CREATE VIEW saes AS
FROM read_parquet($files, hive_partitioning = false)
UNION ALL BY NAME
-- Tables of earlier versions lack these columns: they are NULL there.
SELECT NULL::VARCHAR AS settings, NULL::VARCHAR AS frozen, NULL::VARCHAR AS twin_of WHERE false;
