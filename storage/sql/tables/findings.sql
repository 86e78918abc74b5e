-- Purpose: one row per question about a setting: its result, what chance or an unlearned SAE gives, and the verdict.
-- Inputs:  concepts, concept_groups, matches, bridge_totals, bridge_groups, retrieval, retrieval_groups, nulls, geometry,
--          saes; twins (model, sae, twin_of, frozen: the settings of which a part is never learned); the macros of
--          definitions.sql.
-- Columns: model, sae; question (what is asked of the setting, one row each); claim (the statement that holds or
--          fails); statistic (name of the result); figure (mean
--          over the seeds or over ordered pairs of seeds; with the rule 'above chance in every seed', of the seed that
--          decides); low, high (95 % interval of the result, NULL if it has none); interval_over (what the interval
--          is made from: 'seeds and image groups', 'seeds', 'image groups' or 'none');
--          null_name (what the result is compared with: 'chance', 'random directions', 'images permuted', or the frozen
--          part of the best frozen twin); null_mean, null_low, null_high (mean and 95 % range of the same statistic
--          under it); threshold (a bound that the interval must pass too, NULL without one); margin (factor within which
--          a result counts as equal to null_mean, NULL without one);
--          rule (one of 'above chance and threshold', 'below chance and threshold', 'above chance in every seed', 'nearer
--          than the margin'); bound (the number that the whole interval must be above, or below for 'below chance and
--          threshold'; NULL without null_low and null_high); seeds (number of seeds that are counted); answer (where the interval lies:
--          'above chance', 'as chance', 'below chance' or 'open'; for the modality subspace 'nearer than chance', 'as
--          chance', 'farther than chance' or 'open'); verdict (what the rule says of the claim: 'holds', 'fails' or 'undecided'); holds (the verdict as true,
--          false, or NULL if undecided); "null" (the same as null_mean, under its earlier name); note (what else a reader needs, such as the twin's name).
-- Definition: docs/definitions.md, "Findings". A verdict follows from the other columns of its row. The bound is the
--          larger of null_high and threshold (rules 'above ...'), the smaller of null_low and threshold ('below ...'), or
--          margin * null_mean ('nearer than the margin'). The claim holds if low > bound and fails if high <= bound; for
--          'below ...', it holds if high < bound and fails if low >= bound. In all other cases, and if a number is
--          missing, the verdict is 'undecided'.
WITH ranked AS (
    SELECT
        model, sae, seed, concept_id,
        NOT dead AND row_number() OVER of_life > count(*) FILTER (NOT dead) OVER whole // 2 AS rare,
        coalesce(sum(energy) OVER (ranking ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) < sum(energy) OVER whole / 2
            AS common
    FROM concepts
    WINDOW
        whole AS (PARTITION BY model, sae, seed),
        of_life AS (PARTITION BY model, sae, seed, dead ORDER BY energy DESC, concept_id),
        ranking AS (PARTITION BY model, sae, seed ORDER BY energy DESC, concept_id)
),
pairs_of_seeds AS (
    SELECT
        m.model, m.sae_a AS sae, m.seed_a, m.seed_b,
        avg(m.cosine::DOUBLE) FILTER (common) AS stability_share_50,
        avg(m.cosine::DOUBLE) FILTER (rare AND NOT b.dead) AS stability_rare,
        stability_share_50 - stability_rare AS stability_common_over_rare
    FROM matches AS m
    JOIN ranked AS r ON r.model = m.model AND r.sae = m.sae_a AND r.seed = m.seed_a AND r.concept_id = m.concept_a
    JOIN concepts AS b ON b.model = m.model AND b.sae = m.sae_b AND b.seed = m.seed_b AND b.concept_id = m.concept_b
    WHERE m.sae_a = m.sae_b
    GROUP BY m.model, m.sae_a, m.seed_a, m.seed_b
),
usage AS (
    SELECT
        model, sae, seed,
        avg(is_unimodal(modality_score)::INTEGER) AS unimodal_share,
        coalesce(sum(energy) FILTER (is_unimodal(modality_score)), 0) / nullif(sum(energy), 0) AS unimodal_energy_share
    FROM concepts
    WHERE is_counted(firings, modality_score)
    GROUP BY model, sae, seed
),
directions AS (
    SELECT
        model, sae, seed, count(*) AS alive,
        avg(align_mean_gap ** 2) AS norm_share_mean_gap, avg(align_logistic ** 2) AS norm_share_logistic,
        avg(align_lda ** 2) AS norm_share_lda, avg(align_inlp ** 2) AS norm_share_inlp,
        avg(direction_accuracy) AS direction_accuracy
    FROM concepts
    WHERE NOT dead
    GROUP BY model, sae, seed
),
-- The hits of an SAE's reconstructions beside those of the embeddings, on the same queries.
kept AS (
    SELECT r.model, r.sae, r.seed, r.direction, r.jackknife_group, r.hits, e.hits AS embedded
    FROM retrieval_groups AS r
    JOIN retrieval_groups AS e USING (model, direction, jackknife_group)
    WHERE r.intervention = 'reconstructions' AND e.intervention = 'embeddings'
),
net AS (
    SELECT model, sae, seed, sum(total) AS total, sum(positive) AS positive
    FROM bridge_totals
    WHERE kind = 'covariance' AND NOT self AND are_opposite(class_image, class_text)
    GROUP BY model, sae, seed
),
figures_of_runs AS (
    SELECT model, sae, seed, statistic, value
    FROM (UNPIVOT usage ON unimodal_share, unimodal_energy_share INTO NAME statistic VALUE value)
    UNION ALL
    SELECT model, sae, seed, statistic, value
    FROM (
        UNPIVOT directions
        ON norm_share_mean_gap, norm_share_logistic, norm_share_lda, norm_share_inlp, direction_accuracy
        INTO NAME statistic VALUE value
    )
    UNION ALL
    SELECT model, sae, seed, 'retrieval_kept_' || direction, sum(hits) / nullif(sum(embedded), 0)
    FROM kept
    GROUP BY model, sae, seed, direction
),
-- The same results with the images of one group left out.
without_group AS (
    SELECT
        model, sae, seed, 'retrieval_kept_' || direction AS statistic, jackknife_group,
        (sum(hits) OVER whole - hits) / nullif(sum(embedded) OVER whole - embedded, 0) AS value
    FROM kept
    WINDOW whole AS (PARTITION BY model, sae, seed, direction)
    UNION ALL
    SELECT model, sae, seed, statistic, jackknife_group, value
    FROM (
        UNPIVOT (
            SELECT
                model, sae, seed, jackknife_group,
                avg(is_unimodal(score)::INTEGER) AS unimodal_share,
                coalesce(sum(energy) FILTER (is_unimodal(score)), 0) / nullif(sum(energy), 0) AS unimodal_energy_share
            FROM (
                SELECT
                    model, sae, seed, jackknife_group, images + texts > 0 AS filled,
                    (sum(image) OVER whole - image) / nullif(sum(images) OVER whole - images, 0) AS of_image,
                    (sum("text") OVER whole - "text") / nullif(sum(texts) OVER whole - texts, 0) AS of_text,
                    sum(image_firings + text_firings) OVER whole - image_firings - text_firings AS firings,
                    (of_image + of_text) / 2 AS energy, of_image / nullif(of_image + of_text, 0) AS score
                FROM concept_groups
                WINDOW whole AS (PARTITION BY model, sae, seed, concept_id)
            )
            WHERE filled AND is_counted(firings, score)
            GROUP BY model, sae, seed, jackknife_group
        )
        ON unimodal_share, unimodal_energy_share INTO NAME statistic VALUE value
    )
),
-- Results of one SAE are stored as pairs of a seed with itself, so that leaving out a seed means the same for all.
figures AS (
    SELECT model, sae, statistic, seed AS seed_a, seed AS seed_b, value FROM figures_of_runs WHERE value IS NOT NULL
    UNION ALL
    SELECT model, sae, statistic, seed_a, seed_b, value
    FROM (
        UNPIVOT pairs_of_seeds
        ON stability_share_50, stability_rare, stability_common_over_rare INTO NAME statistic VALUE value
    )
),
means AS (
    SELECT model, sae, statistic, avg(value) AS figure, count(DISTINCT seed_a) AS seeds
    FROM figures
    GROUP BY model, sae, statistic
),
-- Standard errors by the delete-one jackknife, over seeds and over groups of images: se^2 = (n - 1) / n * sum of
-- (estimate without one - mean of these estimates)^2.
by_seeds AS (
    SELECT model, sae, statistic, t_quantile(count(*) - 1) * sqrt((count(*) - 1) * var_pop(value)) AS reach
    FROM (
        SELECT s.model, s.sae, s.statistic, s.seed, avg(f.value) AS value
        FROM (SELECT DISTINCT model, sae, statistic, seed_a AS seed FROM figures) AS s
        JOIN figures AS f USING (model, sae, statistic)
        WHERE s.seed NOT IN (f.seed_a, f.seed_b)
        GROUP BY s.model, s.sae, s.statistic, s.seed
    )
    GROUP BY model, sae, statistic
    HAVING count(*) > 1
),
by_groups AS (
    SELECT model, sae, statistic, t_quantile(count(*) - 1) * sqrt((count(*) - 1) * var_pop(value)) AS reach
    FROM (
        SELECT model, sae, statistic, jackknife_group, avg(value) AS value
        FROM without_group
        GROUP BY model, sae, statistic, jackknife_group
        HAVING count(value) = count(*)
    )
    GROUP BY model, sae, statistic
    HAVING count(*) > 1
),
estimates AS (
    SELECT
        m.*, s.reach AS of_seeds, g.reach AS of_groups,
        CASE
            WHEN of_seeds IS NOT NULL AND of_groups IS NOT NULL THEN 'seeds and image groups'
            WHEN of_seeds IS NOT NULL THEN 'seeds'
            WHEN of_groups IS NOT NULL THEN 'image groups'
            ELSE 'none'
        END AS interval_over,
        CASE WHEN interval_over <> 'none' THEN sqrt(coalesce(of_seeds, 0) ** 2 + coalesce(of_groups, 0) ** 2) END AS half,
        m.statistic LIKE 'unimodal%' OR m.statistic LIKE 'norm_share%' AS is_share,
        CASE WHEN is_share AND half IS NOT NULL THEN greatest(figure - half, 0) ELSE figure - half END AS low,
        CASE WHEN is_share AND half IS NOT NULL THEN least(figure + half, 1) ELSE figure + half END AS high
    FROM means AS m
    LEFT JOIN by_seeds AS s USING (model, sae, statistic)
    LEFT JOIN by_groups AS g USING (model, sae, statistic)
),
-- The frozen twin with the highest result. It has an interval of its own, which is the 95 % range of the null.
frozen AS (
    SELECT
        t.model, t.twin_of AS sae, e.statistic, t.frozen AS null_name, e.figure AS null_mean, e.low AS null_low,
        e.high AS null_high, 'the best frozen twin is ' || t.sae || if(e.low IS NULL, ', which has no interval', '') AS note
    FROM twins AS t
    JOIN estimates AS e ON e.model = t.model AND e.sae = t.sae
    WHERE e.statistic LIKE 'stability%' OR e.statistic LIKE 'unimodal%'
    QUALIFY row_number() OVER (PARTITION BY t.model, t.twin_of, e.statistic ORDER BY e.figure DESC, t.sae) = 1
),
-- The recall of a random ranking, over that of the embeddings. Its range is that of a binomial share of the queries.
ranking AS (
    SELECT
        e.model, 'retrieval_kept_' || e.direction AS statistic, e.queries, e.hits / e.queries AS recall,
        CASE e.direction WHEN 'text_to_image' THEN 1 / any_value(r.gallery) ELSE 1 / e.queries END AS p
    FROM (
        SELECT model, direction, sum(queries) AS queries, sum(hits) AS hits
        FROM retrieval_groups
        WHERE intervention = 'embeddings'
        GROUP BY model, direction
    ) AS e
    JOIN retrieval AS r USING (model, direction)
    WHERE r.intervention = 'embeddings'
    GROUP BY e.model, e.direction, e.queries, e.hits
),
-- Means over as many random directions as there are alive concepts.
counts AS (
    SELECT d.model, d.sae, sum(d.alive) AS alive, any_value(s.dim) AS dim
    FROM directions AS d
    LEFT JOIN saes AS s USING (model, sae, seed)
    GROUP BY d.model, d.sae
),
random_accuracy AS (
    SELECT n.model, n.sae, avg(n.mean) AS mean, sqrt(avg(n.sd ** 2) * (1 / any_value(c.alive) + 1 / sum(n.draws))) AS sd
    FROM nulls AS n
    JOIN counts AS c USING (model, sae)
    WHERE n.statistic = 'direction_accuracy' AND n."null" = 'floor_random'
    GROUP BY n.model, n.sae
),
subspaces AS (
    SELECT
        c.model, c.sae, 'norm_share_' || g.subspace AS statistic, nullif(g.rank / c.dim, 0) AS share,
        sqrt(share * (1 - share) / (c.dim / 2 + 1) / c.alive) AS sd
    FROM counts AS c
    JOIN geometry AS g USING (model)
),
chance AS (
    SELECT
        e.model, e.sae, r.statistic, 'chance' AS null_name, p / nullif(recall, 0) AS null_mean,
        greatest(p - 1.96 * sqrt(p * (1 - p) / queries), 0) / nullif(recall, 0) AS null_low,
        (p + 1.96 * sqrt(p * (1 - p) / queries)) / nullif(recall, 0) AS null_high,
        format('R@1 of the embeddings is {:.3f}, of the reconstructions {:.3f}, by chance {:.4f}', recall, e.figure * recall, p)
            AS note
    FROM estimates AS e
    JOIN ranking AS r USING (model, statistic)
    UNION ALL
    SELECT
        model, sae, 'direction_accuracy', 'random directions', mean, mean - 1.96 * sd, mean + 1.96 * sd,
        'v4 of the paper (arXiv 2504.11695): concept directions are poor modality classifiers'
    FROM random_accuracy
    UNION ALL
    SELECT
        model, sae, statistic, 'random directions', share, share - 1.96 * sd, share + 1.96 * sd,
        'v1 of the paper (arXiv 2504.11695): "close to, but not entirely within" the modality subspace; v4: "almost '
        || 'orthogonal to the subspace that defines modality"'
    FROM subspaces
    UNION ALL
    SELECT * FROM frozen
),
floors_of_stability AS (
    SELECT model, sae, statistic, avg(mean) + 1.96 * sqrt(avg(sd ** 2)) AS threshold
    FROM nulls
    WHERE "null" = 'floor_matched' AND statistic LIKE 'stability%'
    GROUP BY model, sae, statistic
),
questions(place, statistic, question, claim, rule, threshold, margin) AS (
    VALUES
    (1, 'retrieval_kept_image_to_text', 'How much of the retrieval R@1 do reconstructions keep, image to text?',
        'reconstructions keep most of the retrieval R@1, image to text', 'above chance and threshold', 0.5, NULL),
    (2, 'retrieval_kept_text_to_image', 'How much of the retrieval R@1 do reconstructions keep, text to image?',
        'reconstructions keep most of the retrieval R@1, text to image', 'above chance and threshold', 0.5, NULL),
    (3, 'stability_share_50', 'Do other seeds find the common concepts again?',
        'common concepts are stable', 'above chance and threshold', NULL, NULL),
    (4, 'stability_rare', 'Do other seeds find the rare concepts again?',
        'rare concepts are stable', 'above chance and threshold', NULL, NULL),
    (5, 'stability_common_over_rare', 'Are common concepts more stable than rare ones?',
        'common concepts are more stable than rare ones', 'above chance and threshold', NULL, NULL),
    (6, 'unimodal_share', 'Do most concepts serve one modality?',
        'most concepts serve one modality', 'above chance and threshold', 0.5, NULL),
    (7, 'unimodal_energy_share', 'Does most energy lie in concepts of one modality?',
        'most energy lies in concepts of one modality', 'above chance and threshold', 0.5, NULL),
    (8, 'norm_share_mean_gap', 'How near do concepts lie to the modality subspace, mean gap?',
        'concepts lie nearer to the modality subspace than chance, mean gap', 'nearer than the margin', NULL, 1.25),
    (9, 'norm_share_logistic', 'How near do concepts lie to the modality subspace, logistic?',
        'concepts lie nearer to the modality subspace than chance, logistic', 'nearer than the margin', NULL, 1.25),
    (10, 'norm_share_lda', 'How near do concepts lie to the modality subspace, lda?',
        'concepts lie nearer to the modality subspace than chance, lda', 'nearer than the margin', NULL, 1.25),
    (11, 'norm_share_inlp', 'How near do concepts lie to the modality subspace, inlp?',
        'concepts lie nearer to the modality subspace than chance, inlp', 'nearer than the margin', NULL, 1.25),
    (12, 'direction_accuracy', 'Do concept directions classify modality worse than random directions?',
        'concept directions classify modality worse than random directions, and poorly (under .55)', 'below chance and threshold', 0.55, NULL)
),
of_estimates AS (
    SELECT
        q.place, e.model, e.sae, q.question, q.claim, e.statistic, e.figure, e.low, e.high, e.interval_over,
        coalesce(c.null_name, if(q.place BETWEEN 3 AND 7, 'frozen twin', 'chance')) AS null_name,
        c.null_mean, c.null_low, c.null_high, coalesce(q.threshold, f.threshold) AS threshold, q.margin::DOUBLE AS margin,
        q.rule, e.seeds,
        concat_ws('; ',
            coalesce(c.note, if(q.place BETWEEN 3 AND 7, 'the study has no frozen twin of this setting', NULL)),
            if(f.threshold IS NULL, NULL, format('the threshold is the upper end of floor_matched, {:.3f}', f.threshold)),
            if(e.interval_over = 'none', 'there are too few seeds for an interval', NULL)) AS note
    FROM questions AS q
    JOIN estimates AS e USING (statistic)
    LEFT JOIN chance AS c USING (model, sae, statistic)
    LEFT JOIN floors_of_stability AS f USING (model, sae, statistic)
),
-- Bridges: each seed against its own permutations.
of_seeds AS (
    SELECT
        n.model, n.sae, n.seed, n.total AS figure, n.positive, g.half, figure - half AS low, figure + half AS high,
        c.mean AS null_mean, c.q025 AS null_low, c.q975 AS null_high, c.draws, p.mean AS positive_by_chance,
        k.concepts > 0 AS filled,
        count(*) OVER setting AS seeds, avg(figure) OVER setting AS mean,
        CASE WHEN filled AND low > null_high THEN 'holds' WHEN filled AND high <= null_high THEN 'fails' ELSE 'undecided' END
            AS verdict,
        row_number() OVER (
            PARTITION BY n.model, n.sae
            ORDER BY list_position(['fails', 'undecided', 'holds'], verdict), low - null_high NULLS FIRST, n.seed
        ) AS place
    FROM net AS n
    LEFT JOIN (
        SELECT model, sae, seed, t_quantile(count(*) - 1) * sqrt((count(*) - 1) * var_pop(value)) AS half
        FROM bridge_groups
        WHERE statistic = 'covariance_opposite_total'
        GROUP BY model, sae, seed
        HAVING count(*) > 1
    ) AS g USING (model, sae, seed)
    LEFT JOIN (
        SELECT
            model, sae, seed,
            least(count(*) FILTER (modality_class(modality_score) = 'image'),
                count(*) FILTER (modality_class(modality_score) = 'text')) AS concepts
        FROM concepts
        GROUP BY model, sae, seed
    ) AS k USING (model, sae, seed)
    LEFT JOIN nulls AS c
        ON c.model = n.model AND c.sae = n.sae AND c.seed = n.seed AND c.statistic = 'covariance_opposite_total'
            AND c."null" = 'images_permuted'
    LEFT JOIN nulls AS p
        ON p.model = n.model AND p.sae = n.sae AND p.seed = n.seed AND p.statistic = 'covariance_opposite_positive'
            AND p."null" = 'images_permuted'
    WINDOW setting AS (PARTITION BY n.model, n.sae)
),
listed AS (
    SELECT * FROM of_estimates
    UNION ALL
    SELECT
        13, model, sae, 'Do unimodal concepts of opposite modality bridge together?',
        'unimodal concepts of opposite modality bridge together', 'covariance_opposite_total', figure,
        CASE WHEN filled THEN low END, CASE WHEN filled THEN high END, if(filled AND half IS NOT NULL, 'image groups', 'none'),
        'images permuted', null_mean, null_low, null_high, NULL, NULL, 'above chance in every seed', seeds,
        CASE
            WHEN filled THEN format('seed {} decides; the mean over seeds is {:.3g}; the positive part is {:.3g}', seed, mean, positive)
                || coalesce(format(', by chance {:.3g}', positive_by_chance), '')
            ELSE format('seed {} has no concepts in one of the two classes', seed)
        END
    FROM of_seeds
    WHERE place = 1
),
bounded AS (
    SELECT
        *,
        CASE WHEN null_mean IS NULL OR null_low IS NULL OR null_high IS NULL THEN NULL
            WHEN rule = 'below chance and threshold' THEN least(null_low, threshold)
            WHEN rule = 'nearer than the margin' THEN margin * null_mean
            ELSE greatest(null_high, coalesce(threshold, null_high))
        END AS bound
    FROM listed
),
judged AS (
    SELECT
        *,
        CASE
            WHEN rule = 'below chance and threshold' THEN CASE WHEN high < bound THEN 'holds' WHEN low >= bound THEN 'fails' END
            WHEN low > bound THEN 'holds'
            WHEN high <= bound THEN 'fails'
        END AS decided,
        CASE
            WHEN rule = 'nearer than the margin' THEN
                CASE
                    WHEN low > margin * null_mean THEN 'nearer than chance'
                    WHEN high < null_mean / margin THEN 'farther than chance'
                    WHEN low >= null_mean / margin AND high <= margin * null_mean THEN 'as chance'
                END
            WHEN low > null_high THEN 'above chance'
            WHEN high < null_low THEN 'below chance'
            WHEN low >= null_low AND high <= null_high THEN 'as chance'
        END AS placed
    FROM bounded
)
SELECT
    model, sae, question, claim, statistic, figure, low, high, interval_over, null_name, null_mean, null_low, null_high,
    threshold::DOUBLE AS threshold, margin, rule, bound::DOUBLE AS bound, seeds::INTEGER AS seeds, coalesce(placed, 'open') AS answer,
    coalesce(decided, 'undecided') AS verdict, decided = 'holds' AS holds, null_mean AS "null", note
FROM judged
ANTI JOIN twins USING (model, sae)
ORDER BY model, sae, place
