-- Purpose: all SAEs of the catalog, with the results that the explorer lists.
-- Inputs:  saes, matches, nulls, bridges; $most (maximum number of bridges per SAE).
-- Columns: model, sae, seed; concepts (number of concepts), dim, k, architecture; r2, r2_image, r2_text, l0,
--          dead_fraction, split (all as in the view saes); stability (mean cosine to the matched concepts in the other
--          seeds of the same model and SAE, NULL with one seed); floor_random, floor_matched (stability reached by
--          chance: mean over the draws of each of two floors); bridges (number of bridges that the explorer shows).
SELECT
    s.model, s.sae, s.seed, s.width AS concepts, s.dim, s.k, s.architecture,
    s.r2, s.r2_image, s.r2_text, s.l0, s.dead_fraction, s.split,
    (
        SELECT avg(m.cosine::DOUBLE) FROM matches AS m
        WHERE m.model = s.model AND m.sae_a = s.sae AND m.sae_b = s.sae AND m.seed_a = s.seed
    ) AS stability,
    (
        SELECT avg(n.mean) FROM nulls AS n
        WHERE n.model = s.model AND n.sae = s.sae AND n.seed = s.seed AND n.statistic = 'stability' AND n."null" = 'floor_random'
    ) AS floor_random,
    (
        SELECT avg(n.mean) FROM nulls AS n
        WHERE n.model = s.model AND n.sae = s.sae AND n.seed = s.seed AND n.statistic = 'stability' AND n."null" = 'floor_matched'
    ) AS floor_matched,
    least($most, (
        SELECT count(*) FROM bridges AS b WHERE b.model = s.model AND b.sae = s.sae AND b.seed = s.seed
    )) AS bridges
FROM saes AS s
ORDER BY s.model, s.sae, s.seed
