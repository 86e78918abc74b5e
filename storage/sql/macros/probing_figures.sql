-- Purpose: how well a few concepts of a setting predict labels, beside all of its concepts, the embedding, as many
--          principal components, and the concepts of its frozen twins.
-- Inputs:  m (model), s (SAE setting); probing, saes.
-- Columns: modality ('image' or 'text': the items); name (of the labels); features (number of concepts, and of components
--          of pca and pca_chosen); labels (number of labels that are predicted); concepts, low, high (balanced accuracy
--          on held-out items of probes on the setting's concepts: mean and range over seeds; .5 is chance); best_frozen,
--          best_twin (the largest mean of a frozen twin's concepts, and that twin); excess (the part of the way from the
--          best twin to 1 that training has gained; = (concepts - best_frozen) / (1 - best_frozen)); pca (of the first
--          principal components of the embeddings), pca_chosen (of components chosen for each label as concepts are),
--          all_concepts (of all concepts of the setting, mean over seeds), embedding (of the whole embedding). All are
--          means over the labels.
-- Definition: docs/definitions.md, "Probing".
CREATE MACRO probing_figures(m, s) AS TABLE
WITH by_seed AS (
    SELECT sae, seed, modality, name, probe, features, count(*) AS labels, avg(balanced_accuracy) AS value
    FROM probing
    WHERE model = m
    GROUP BY ALL
),
by_setting AS (
    SELECT
        sae, modality, name, probe, features, any_value(labels) AS labels, avg(value) AS value, min(value) AS low,
        max(value) AS high
    FROM by_seed
    GROUP BY ALL
),
frozen AS (
    SELECT modality, name, features, max(value) AS best_frozen, arg_max(sae, value) AS best_twin
    FROM by_setting
    WHERE probe = 'concepts' AND sae IN (SELECT sae FROM saes WHERE model = m AND twin_of = s)
    GROUP BY ALL
),
baselines AS (
    SELECT
        modality, name, features, max(value) FILTER (probe = 'pca') AS pca,
        max(value) FILTER (probe = 'pca_chosen') AS pca_chosen
    FROM by_setting
    WHERE sae IS NULL
    GROUP BY ALL
),
whole AS (
    SELECT
        modality, name, max(value) FILTER (probe = 'all_concepts' AND sae = s) AS all_concepts,
        max(value) FILTER (probe = 'embedding') AS embedding
    FROM by_setting
    GROUP BY ALL
)
SELECT
    own.modality, own.name, own.features, own.labels, own.value AS concepts, own.low, own.high, frozen.best_frozen,
    frozen.best_twin, (own.value - frozen.best_frozen) / nullif(1 - frozen.best_frozen, 0) AS excess,
    baselines.pca, baselines.pca_chosen, whole.all_concepts, whole.embedding
FROM by_setting AS own
JOIN whole ON whole.modality = own.modality AND whole.name = own.name
LEFT JOIN frozen
    ON frozen.modality = own.modality AND frozen.name = own.name AND frozen.features = own.features
LEFT JOIN baselines
    ON baselines.modality = own.modality AND baselines.name = own.name AND baselines.features = own.features
WHERE own.sae = s AND own.probe = 'concepts'
ORDER BY own.modality, own.name, own.features;
