-- Purpose: the mean similarity of the reconstructions of an image and its caption, and the terms that add up to it.
-- Inputs:  the run's table matched_similarity.
-- Columns: model, sae, seed, split; term: 'bridges' (sum of all raw bridges), 'text_on_bias' (<b, E_P z_T D>), 'image_on_bias'
--          (<E_P z_I D, b>), 'bias' (<b, b>), which add up to 'matched' (E_P <x_hat_I, x_hat_T>); 'shuffled' (<E_P x_hat_I,
--          E_P x_hat_T>), where matched less shuffled is the sum of all covariance bridges; value.
-- Definition: DEFINITIONS "Bridge Score", identities. z: codes; D: dictionary; b: decoder bias; x_hat = z D + b.
CREATE VIEW matched_similarity AS FROM read_parquet($files, hive_partitioning = false);
