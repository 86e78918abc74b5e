-- Purpose: how much of a concept lies in the span of its m most similar atoms (dictionary rows) of another seed, for m =
--          1, 2, 4, 8, 16, and what chance reaches with as many atoms.
-- Inputs:  m (model), s (sae); subspace_matches, concepts, nulls.
-- Columns: atoms (the number m of atoms); projection (length of the projection of a concept's unit direction on the span:
--          mean over concepts, weighted by their energy, and over ordered pairs of seeds); low, high (range over the
--          pairs); floor_random, floor_random_sd, floor_matched, floor_matched_sd (means over seeds; both rise with the
--          number of atoms).
-- Definition: docs/definitions.md, "Subspace stability".
CREATE MACRO subspace_stability(m, s) AS TABLE
WITH pairs_of_seeds AS (
    SELECT x.atoms, x.seed_a, x.seed_b, sum(x.projection * c.energy) / nullif(sum(c.energy), 0) AS projection
    FROM subspace_matches AS x
    JOIN concepts AS c
        ON c.model = x.model AND c.sae = x.sae AND c.seed = x.seed_a AND c.concept_id = x.concept_id
    WHERE x.model = m AND x.sae = s
    GROUP BY ALL
),
floor_of AS (
    SELECT
        replace(statistic, 'subspace_stability_', '')::INTEGER AS atoms,
        avg(mean) FILTER ("null" = 'floor_random') AS random, avg(sd) FILTER ("null" = 'floor_random') AS random_sd,
        avg(mean) FILTER ("null" = 'floor_matched') AS matched, avg(sd) FILTER ("null" = 'floor_matched') AS matched_sd
    FROM nulls
    WHERE model = m AND sae = s AND statistic LIKE 'subspace\_stability\_%' ESCAPE '\'
    GROUP BY ALL
)
SELECT
    atoms, avg(projection) AS projection, min(projection) AS low, max(projection) AS high,
    any_value(random) AS floor_random, any_value(random_sd) AS floor_random_sd,
    any_value(matched) AS floor_matched, any_value(matched_sd) AS floor_matched_sd
FROM floor_of
LEFT JOIN pairs_of_seeds USING (atoms)
GROUP BY atoms
ORDER BY atoms;
