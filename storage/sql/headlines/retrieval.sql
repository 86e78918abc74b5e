-- Purpose: headline figures per model: image-to-text recall of its embeddings, and the recall that chance reaches.
-- Inputs:  retrieval, retrieval_chance.
-- Columns: model; r1, chance1, r10, chance10.
SELECT
    model, any_value(r1) AS r1, max(chance) FILTER (k = 1) AS chance1,
    any_value(r10) AS r10, max(chance) FILTER (k = 10) AS chance10
FROM retrieval
JOIN retrieval_chance() USING (direction)
WHERE direction = 'image_to_text' AND intervention = 'embeddings'
GROUP BY model
ORDER BY model
