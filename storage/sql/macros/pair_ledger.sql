-- Purpose: the similarity of any image and any caption of the study, split exactly into what pairs of concepts contribute,
--          biases, means and what the SAE leaves out.
-- Inputs:  m (model), s (sae), seed; image (image_id), caption (pair_id; of this image or of another one); activations,
--          atoms, sae_offsets, embedding_chunks, embedding_rows.
-- Columns: term ('concepts' for a pair of concepts; else 'text_on_bias', 'image_on_bias', 'bias', 'text_on_mean',
--          'image_on_mean', 'bias_on_means', 'means', 'image_residual', 'text_residual' or 'residuals'); image_concept,
--          text_concept (the concept of the image and that of the caption, NULL where the row has none); contribution
--          (what the row adds to the similarity; for a pair of concepts, the two activations times the cosine of the two
--          directions, z_i z_j <D_i, D_j>); similarity (cosine of the two embeddings, the same in every row; the
--          contributions sum to it).
-- Definition: docs/definitions.md, "Pair ledger". The largest contribution comes first. A term that one concept has a
--          part in has a row for each such concept. So the rows without some concepts sum to the inner product that is
--          left when these concepts are left out of both items. No rows for an item without an embedding.
CREATE MACRO pair_ledger(m, s, seed, image, caption) AS TABLE
WITH fired AS (
    SELECT 'image' AS side, a.concept_id, a.activation::DOUBLE AS activation FROM activations AS a
    WHERE a.model = m AND a.sae = s AND a.seed = seed AND a.modality = 'image' AND a.item_id = image
    UNION ALL
    SELECT 'text', a.concept_id, a.activation::DOUBLE FROM activations AS a
    WHERE a.model = m AND a.sae = s AND a.seed = seed AND a.modality = 'text' AND a.item_id = caption
),
items AS (
    SELECT 'image' AS side, x.vector FROM embedding(m, 'image', image) AS x
    UNION ALL
    SELECT 'text', x.vector FROM embedding(m, 'text', caption) AS x
),
known AS (
    SELECT
        fired.side, 'concept' AS kind, fired.concept_id,
        list_transform(d.direction, lambda v: v::DOUBLE * fired.activation) AS vector
    FROM fired
    JOIN (SELECT a.concept_id, a.direction FROM atoms AS a WHERE a.model = m AND a.sae = s AND a.seed = seed) AS d
        ON d.concept_id = fired.concept_id
    UNION ALL
    SELECT o.modality, 'bias', NULL, o.bias::DOUBLE[] FROM sae_offsets AS o
    WHERE o.model = m AND o.sae = s AND o.seed = seed
    UNION ALL
    SELECT o.modality, 'mean', NULL, o.mean::DOUBLE[] FROM sae_offsets AS o
    WHERE o.model = m AND o.sae = s AND o.seed = seed AND o.mean IS NOT NULL
),
numbers AS (
    SELECT side, unnest(vector) AS part, generate_subscripts(vector, 1) AS axis FROM known
),
rebuilt AS (
    SELECT side, list(total ORDER BY axis) AS vector
    FROM (SELECT side, axis, sum(part) AS total FROM numbers GROUP BY side, axis)
    GROUP BY side
),
parts AS (
    SELECT * FROM known
    UNION ALL
    SELECT
        items.side, 'residual', NULL,
        list_transform(list_zip(items.vector, rebuilt.vector), lambda pair: pair[1] - pair[2])
    FROM items
    JOIN rebuilt ON rebuilt.side = items.side
),
whole AS (
    SELECT list_dot_product(i.vector, t.vector) AS similarity
    FROM items AS i, items AS t
    WHERE i.side = 'image' AND t.side = 'text'
)
SELECT
    CASE
        WHEN i.kind = 'residual' AND t.kind = 'residual' THEN 'residuals'
        WHEN i.kind = 'residual' THEN 'image_residual'
        WHEN t.kind = 'residual' THEN 'text_residual'
        WHEN i.kind = 'concept' THEN
            CASE t.kind WHEN 'concept' THEN 'concepts' WHEN 'bias' THEN 'image_on_bias' ELSE 'image_on_mean' END
        WHEN t.kind = 'concept' THEN CASE i.kind WHEN 'bias' THEN 'text_on_bias' ELSE 'text_on_mean' END
        WHEN i.kind = t.kind THEN CASE i.kind WHEN 'bias' THEN 'bias' ELSE 'means' END
        ELSE 'bias_on_means'
    END AS term,
    i.concept_id AS image_concept, t.concept_id AS text_concept,
    list_dot_product(i.vector, t.vector) AS contribution, whole.similarity
FROM parts AS i, parts AS t, whole
WHERE i.side = 'image' AND t.side = 'text'
ORDER BY abs(contribution) DESC, term, image_concept, text_concept;
