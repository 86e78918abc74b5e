-- Purpose: how well the concepts of a setting tell labels apart, beside permuted labels and the concepts of its frozen
--          twins.
-- Inputs:  m (model), s (SAE setting); concept_labels, concepts, nulls, saes.
-- Columns: name (of the labels); concepts (number of counted concepts that have a best label, mean over seeds); auc, low,
--          high (mean held-out AUC of the counted concepts and their best labels: mean and range over seeds); null_mean,
--          null_q975 (mean and 97.5 % quantile of that mean AUC when labels are permuted and chosen again; the largest
--          quantile over seeds); above_null (share of the concepts whose AUC exceeds the 97.5 % quantile of their own
--          null; about .025 is chance); best_frozen, best_twin (the largest mean AUC of a frozen twin, and that twin);
--          excess (the part of the way from the best twin to 1 that training has gained; = (auc - best_frozen) / (1 -
--          best_frozen)).
-- Definition: docs/definitions.md, "Labels of concepts".
CREATE MACRO label_figures(m, s) AS TABLE
WITH by_seed AS (
    SELECT
        l.sae, l.seed, l.name, count(l.auc) AS concepts, avg(l.auc) AS auc, avg(l.above_null::INTEGER) AS above_null
    FROM concept_labels AS l
    JOIN concepts AS c USING (model, sae, seed, concept_id)
    WHERE l.model = m AND is_counted(c.firings, c.modality_score)
    GROUP BY ALL
),
by_setting AS (
    SELECT
        sae, name, avg(concepts) AS concepts, avg(auc) AS auc, min(auc) AS low, max(auc) AS high,
        avg(above_null) AS above_null
    FROM by_seed
    GROUP BY ALL
),
permuted AS (
    SELECT substr(statistic, 11) AS name, avg(mean) AS null_mean, max(q975) AS null_q975
    FROM nulls
    WHERE model = m AND sae = s AND "null" = 'labels_permuted' AND prefix(statistic, 'label_auc_')
    GROUP BY ALL
),
frozen AS (
    SELECT name, max(auc) AS best_frozen, arg_max(sae, auc) AS best_twin
    FROM by_setting
    WHERE sae IN (SELECT sae FROM saes WHERE model = m AND twin_of = s)
    GROUP BY ALL
)
SELECT
    own.name, own.concepts, own.auc, own.low, own.high, permuted.null_mean, permuted.null_q975, own.above_null,
    frozen.best_frozen, frozen.best_twin, (own.auc - frozen.best_frozen) / nullif(1 - frozen.best_frozen, 0) AS excess
FROM by_setting AS own
LEFT JOIN permuted ON permuted.name = own.name
LEFT JOIN frozen ON frozen.name = own.name
WHERE own.sae = s
ORDER BY own.name;
