-- Purpose: the mean similarity of the reconstructions of an image and its caption, and the terms that add up to it.
-- Inputs:  the run's table matched_similarity.
-- Columns: model, sae, seed, split; term: 'bridges' (sum of all raw bridges), 'text_on_bias' (<b_I, E_P z_T D>),
--          'image_on_bias' (<E_P z_I D, b_T>), 'bias' (<b_I, b_T>), 'matched' (E_P <x_hat_I, x_hat_T>, the sum of these
--          four terms), 'shuffled' (<E_P x_hat_I, E_P x_hat_T>; matched less shuffled is the sum of all covariance
--          bridges); value.
-- Definition: docs/definitions.md, "Identities of bridges". E_P: mean over the counted pairs; z_I, z_T: codes of the
--          image and of the caption; D: dictionary; b_I, b_T: biases of the two modalities; x_hat = z D + b.
CREATE VIEW matched_similarity AS FROM read_parquet($files, hive_partitioning = false);
