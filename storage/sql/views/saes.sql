-- Purpose: every trained SAE: its setting, and the accuracy and sparsity of its reconstruction of the counted rows.
-- Inputs:  the run's table saes.
-- Columns: model; sae (name of the setting, as the study file gives it, or of a data diet or frozen twin of it); seed;
--          architecture (how the codes are made sparse: name of the architecture, such as 'batchtopk'); dim (number of
--          dimensions of the embeddings; d); width (number of concepts in the dictionary; C); k (number of concepts per row that training
--          asks for); decoder_bias (whether a constant vector is added to every reconstruction); image_share (share of
--          images among the rows drawn in training, or 'natural' for the share that they have); data_half (the half of
--          the images on which the SAE is trained, 'a' or 'b'; NULL if it is trained on all); split; r2 (how much of
--          the differences between rows the reconstruction keeps: 1 is all, 0 is no better than the mean; about the
--          mean of both modality means, so it also counts the reconstruction of the gap between the modalities);
--          r2_image, r2_text (the same for images, and for captions, each about its own mean; 1 - |x - x_hat|^2 / |x -
--          mean|^2); r2_scalar_mean (the same about one number as the mean of all entries, as the library
--          `overcomplete` defines it, for comparison only); cosine (how nearly a reconstruction points where its row
--          does: mean cosine); l0, l0_image, l0_text (number of concepts that fire on a row, on average, over both
--          modalities, over images and over captions); hoyer (how unequal the activations of a row are: 0 if all are
--          equal, 1 if one concept alone fires; Hoyer sparsity, (sqrt(C) - |z|_1 / |z|_2) / (sqrt(C) - 1)); rows_seen
--          (number of rows drawn in training); path (folder of the SAE in the store); dead_fraction (share of concepts
--          that fire on no training row); settings (how the SAE was trained, as a JSON object; keys that were added
--          later are left out while they have their default value); frozen (the part of the SAE that was never learned:
--          'frozen_decoder', 'soft_frozen_decoder' or 'frozen_encoder'; NULL for a trained SAE); twin_of (the setting
--          of which this one is the frozen twin that the key nulls of the study added; NULL for any other setting).
-- Definition: docs/definitions.md, "Reconstruction and sparsity", "Frozen nulls".
CREATE VIEW saes AS
FROM read_parquet($files, hive_partitioning = false)
UNION ALL BY NAME
-- Tables of earlier versions lack these columns: they are NULL there.
SELECT NULL::VARCHAR AS settings, NULL::VARCHAR AS frozen, NULL::VARCHAR AS twin_of WHERE false;
