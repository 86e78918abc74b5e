-- Purpose: how often the strongest bridges of a setting join two concepts with the same best label, and how often by
--          chance.
-- Inputs:  m (model), s (sae), n (number of bridges); bridges, concept_labels.
-- Columns: seed; name (of the labels); "by" (score that ranks the bridges: 'bridge', 'covariance_bridge' or
--          'correlation_bridge'); bridges (number of the n strongest that exist; a concept's bridge with itself is left
--          out); precision (share of them whose image concept and text concept have the same best label, both above
--          their null); chance (the same share when the image concepts and the text concepts of these bridges are paired
--          at random); labelled (share of them in which both concepts have a label above its null).
-- Definition: docs/definitions.md, "Precision of bridges". With a_l and b_l the numbers of these bridges whose image concept,
--          and whose text concept, has the label l: chance = (sum of a_l b_l over labels, less the pairs of a concept
--          with itself) / (n^2 less the pairs of a concept with itself). The concepts, and with them their energies,
--          are those of the bridges themselves.
CREATE MACRO bridge_precision(m, s, n) AS TABLE
WITH scored AS (
    SELECT b.seed, b.image_concept, b.text_concept, score.name AS "by", score.value
    FROM bridges AS b
    CROSS JOIN LATERAL (
        SELECT unnest([
            {'name': 'bridge', 'value': b.bridge},
            {'name': 'covariance_bridge', 'value': b.covariance_bridge},
            {'name': 'correlation_bridge', 'value': b.correlation_bridge}
        ]) AS score
    ) AS scores
    WHERE b.model = m AND b.sae = s AND b.image_concept <> b.text_concept AND score.value IS NOT NULL
),
top AS (
    SELECT seed, "by", image_concept, text_concept
    FROM scored
    QUALIFY row_number() OVER (PARTITION BY seed, "by" ORDER BY value DESC, image_concept, text_concept) <= n
),
names AS (
    SELECT DISTINCT seed, name FROM concept_labels WHERE model = m AND sae = s
),
known AS (
    SELECT seed, concept_id, name, label FROM concept_labels WHERE model = m AND sae = s AND above_null
),
joined AS (
    SELECT top.seed, names.name, top."by", top.image_concept, top.text_concept, i.label AS image_label, t.label AS text_label
    FROM top
    JOIN names ON names.seed = top.seed
    LEFT JOIN known AS i ON i.seed = top.seed AND i.name = names.name AND i.concept_id = top.image_concept
    LEFT JOIN known AS t ON t.seed = top.seed AND t.name = names.name AND t.concept_id = top.text_concept
),
whole AS (
    SELECT
        seed, name, "by", count(*) AS found,
        count(*) FILTER (image_label = text_label) AS agreeing,
        count(*) FILTER (image_label IS NOT NULL AND text_label IS NOT NULL) AS both
    FROM joined
    GROUP BY seed, name, "by"
),
counts AS (
    SELECT seed, name, "by", image_concept AS concept, image_label AS label, 1 AS as_image, 0 AS as_text FROM joined
    UNION ALL
    SELECT seed, name, "by", text_concept, text_label, 0, 1 FROM joined
),
own AS (
    SELECT
        seed, name, "by", sum(images * texts) AS pairs,
        coalesce(sum(images * texts) FILTER (label IS NOT NULL), 0) AS agreeing
    FROM (
        SELECT seed, name, "by", concept, label, sum(as_image) AS images, sum(as_text) AS texts
        FROM counts
        GROUP BY seed, name, "by", concept, label
    )
    GROUP BY seed, name, "by"
),
paired AS (
    SELECT seed, name, "by", coalesce(sum(images * texts) FILTER (label IS NOT NULL), 0) AS agreeing
    FROM (
        SELECT seed, name, "by", label, sum(as_image) AS images, sum(as_text) AS texts
        FROM counts
        GROUP BY seed, name, "by", label
    )
    GROUP BY seed, name, "by"
)
SELECT
    whole.seed, whole.name, whole."by", whole.found AS bridges, whole.agreeing / whole.found AS "precision",
    (paired.agreeing - own.agreeing) / nullif(whole.found * whole.found - own.pairs, 0) AS chance,
    whole.both / whole.found AS labelled
FROM whole
JOIN own ON own.seed = whole.seed AND own.name = whole.name AND own."by" = whole."by"
JOIN paired ON paired.seed = whole.seed AND paired.name = whole.name AND paired."by" = whole."by"
ORDER BY whole.seed, whole.name, whole."by";
