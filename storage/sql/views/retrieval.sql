-- Purpose: recall of retrieval between images and captions, with interventions on the concepts.
-- Inputs:  the run's table retrieval.
-- Columns: model, sae, seed (NULL for interventions without an SAE); split; intervention: 'embeddings', 'mean_removed' (the
--          training mean of each modality removed), 'reconstructions', 'without_unimodal', 'without_bimodal',
--          'without_aligned' (the concepts most aligned with the mean gap removed), 'random_for_<set>' (random concepts of
--          equal energy removed, mean over draws), 'only_bridging' (only the concepts of the top bridges kept, with the bias);
--          direction ('image_to_text' or 'text_to_image'); gallery, captions (number of images and captions in the gallery);
--          r1, r5, r10 (recall); concepts (number of concepts removed or kept); energy_share (their share of the energy).
-- Definition: DEFINITIONS "What concepts do for retrieval".
CREATE VIEW retrieval AS FROM read_parquet($files);
