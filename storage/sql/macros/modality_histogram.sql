-- Purpose: histogram of the modality score, by number of concepts and by their energy, over all seeds of a setting.
-- Inputs:  m (model), s (sae), bins (number of bins); concepts. Only concepts for which is_counted is true are counted.
-- Columns: bin; low, high (bounds of the bin; the last bin includes its upper bound); share (share of the counted
--          concepts); energy_share (share of the energy of the counted concepts); concepts (number of counted concepts
--          in the bin); left_out (number of concepts of the setting that are not counted, the same in every row).
-- Definition: docs/definitions.md, "Modality score".
CREATE MACRO modality_histogram(m, s, bins) AS TABLE
WITH counted AS (
    SELECT least(floor(modality_score * bins), bins - 1)::INTEGER AS bin, energy
    FROM concepts
    WHERE model = m AND sae = s AND is_counted(firings, modality_score)
),
binned AS (
    SELECT bin, count(*) AS concepts, sum(energy) AS energy FROM counted GROUP BY bin
)
SELECT
    b.bin, b.bin / bins AS low, (b.bin + 1) / bins AS high,
    coalesce(concepts, 0) / (SELECT nullif(count(*), 0) FROM counted) AS share,
    coalesce(energy, 0) / (SELECT nullif(sum(energy), 0) FROM counted) AS energy_share,
    coalesce(concepts, 0) AS concepts,
    (SELECT count(*) FROM concepts WHERE model = m AND sae = s AND NOT is_counted(firings, modality_score)) AS left_out
FROM (SELECT unnest(range(bins))::INTEGER AS bin) AS b
LEFT JOIN binned USING (bin)
ORDER BY b.bin;
