-- Purpose: what concepts do for retrieval between images and captions.
-- Inputs:  the run's table retrieval.
-- Columns: model, sae, seed (NULL where no SAE is asked); split; intervention: 'embeddings', 'mean_removed' (each modality's
--          training mean), 'reconstructions', 'without_unimodal', 'without_bimodal', 'without_aligned' (the concepts most
--          aligned with the mean gap), 'random_for_<set>' (as much energy in random concepts removed, mean over draws),
--          'only_bridging' (the concepts of the top bridges kept, with the bias); direction ('image_to_text' or
--          'text_to_image'); gallery, captions (its images and captions); r1, r5, r10 (recall); concepts (how many are removed
--          or kept); energy_share (their share of the energy).
-- Definition: DEFINITIONS "What concepts do for retrieval".
CREATE VIEW retrieval AS FROM read_parquet($files);
