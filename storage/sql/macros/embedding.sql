-- Purpose: the embedding of one item.
-- Inputs:  m (model), modality ('image' or 'text'), item (image_id or pair_id); embedding_chunks, embedding_rows.
-- Columns: item_id; vector (the d numbers of the embedding, normalised to norm 1). No row for an item that the study does
--          not have, or that the model did not embed.
CREATE MACRO embedding(m, modality, item) AS TABLE
WITH stored AS (
    SELECT r.item_id, float16s(c.halves[1 + w * (r.place % 1024):w * (r.place % 1024 + 1)]) AS halves
    FROM embedding_rows AS r
    JOIN (
        SELECT chunk, halves, octet_length(halves) // 1024 AS w FROM embedding_chunks AS e
        WHERE e.model = m AND e.modality = modality AND e.shard = item >> 20
    ) AS c ON c.chunk = r.place // 1024
    WHERE r.modality = modality AND r.item_id = item AND r.shard = item >> 20
)
SELECT stored.item_id, list_transform(stored.halves, lambda v: v / sqrt(list_dot_product(stored.halves, stored.halves))) AS vector
FROM stored
WHERE NOT isnan(stored.halves[1]);
