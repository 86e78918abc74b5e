-- Purpose: headline results per model: the image-to-text recall of the model's embeddings, and the recall of a random
--          ranking.
-- Inputs:  retrieval, retrieval_chance.
-- Columns: model; r1, chance1 (recall at 1, and its value by chance); r10, chance10 (the same at 10).
SELECT
    model, any_value(r1) AS r1, max(chance) FILTER (k = 1) AS chance1,
    any_value(r10) AS r10, max(chance) FILTER (k = 10) AS chance10
FROM retrieval
JOIN retrieval_chance() USING (direction)
WHERE direction = 'image_to_text' AND intervention = 'embeddings'
GROUP BY model
ORDER BY model
