-- Purpose: headline results of one SAE setting on one model: the stability over pairs of seeds and its floors (the
--          stability that chance reaches), for all concepts and for the most energetic concepts.
-- Inputs:  stability, stability_by_energy; $model, $sae.
-- Columns: stability, floor_random, floor_matched, floor_matched_sd (of all concepts, NULL with one seed);
--          top_stability, top_floor_matched, top_floor_matched_sd (of the N most energetic concepts, where N is the
--          macro top_concepts(); NULL for an SAE with fewer than N concepts).
SELECT
    avg(every.stability) AS stability, avg(every.floor_random) AS floor_random,
    avg(every.floor_matched) AS floor_matched, avg(every.floor_matched_sd) AS floor_matched_sd,
    any_value(top.stability) AS top_stability, any_value(top.floor_matched) AS top_floor_matched,
    any_value(top.floor_matched_sd) AS top_floor_matched_sd
FROM stability($model, $sae) AS every
LEFT JOIN stability_by_energy($model, $sae) AS top ON top.k = top_concepts()
