-- Purpose: share of the energy in the K most energetic concepts.
-- Inputs:  m (model), s (sae); concepts.
-- Columns: k (1, 2, 4 ... and the width); energy_share (of the top K; mean over seeds), low, high (range over seeds);
--          image_share, text_share (shares of energy_image and energy_text in the same concepts, means over seeds);
--          even_share (energy share that K concepts would have if all had equal energy).
-- Definition: docs/definitions.md, "Per concept".
CREATE MACRO energy_concentration(m, s) AS TABLE
WITH run AS (
    SELECT
        seed,
        row_number() OVER ranking AS k,
        count(*) OVER whole AS width,
        sum(energy) OVER ranking / nullif(sum(energy) OVER whole, 0) AS energy_share,
        sum(energy_image) OVER ranking / nullif(sum(energy_image) OVER whole, 0) AS image_share,
        sum(energy_text) OVER ranking / nullif(sum(energy_text) OVER whole, 0) AS text_share
    FROM concepts
    WHERE model = m AND sae = s
    WINDOW
        whole AS (PARTITION BY seed),
        ranking AS (
            PARTITION BY seed ORDER BY energy DESC, concept_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        )
)
SELECT
    k, avg(energy_share) AS energy_share, min(energy_share) AS low, max(energy_share) AS high,
    avg(image_share) AS image_share, avg(text_share) AS text_share, k / any_value(width) AS even_share
FROM run
WHERE k = width OR k = 2 ** round(log2(k))
GROUP BY k
ORDER BY k;
