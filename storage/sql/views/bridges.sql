-- Purpose: the bridges: image concepts and text concepts that fire together on pairs, with co-activation and cosine.
-- Inputs:  the run's table bridges.
-- Columns: model, sae, seed, split; image_concept, text_concept; pairs (number of pairs on which both fire, at least
--          the study's min_pairs); coactivation (G = E_P[z_i z_j]); cosine (<D_i, D_j>); bridge (G cosine);
--          covariance_bridge ((G - E_P[z_i] E_P[z_j]) cosine); correlation_bridge (covariance_bridge / (sd of z_i * sd
--          of z_j over the pairs), NULL where one sd is 0).
-- Definition: docs/definitions.md, "Bridge Score". E_P: mean over the counted pairs; z: codes; D: dictionary.
CREATE VIEW bridges AS FROM read_parquet($files, hive_partitioning = false);
