-- Purpose: the concepts that two sets of items use differently: what is in set a that is not in set b, and the reverse.
-- Inputs:  m (model), s (sae), seed; modality ('image': a and b are lists of image_id; 'text': lists of pair_id; 'both':
--          lists of image_id, whose captions are counted too); a, b (the two sets, such as
--          (SELECT list(image_id) FROM labels WHERE label = 'animals'); they may overlap); level (of the false
--          discoveries, by default 0.1); activations, images, pairs.
-- Columns: concept_id; firings (number of items of a or b on which the concept fires); energy_a, energy_b (mean
--          activation over the items of the set, items without the concept included; for 'both', the mean of the means
--          over images and over captions); energy_difference (energy_a - energy_b); energy_sd (standard error of
--          energy_difference, by delete-one-group jackknife over the 20 groups of images; NULL where a set lies in one
--          group); energy_low, energy_high (95 % interval: energy_difference -+ h energy_sd; h = 2.09 for 20 groups,
--          the 97.5 % point of Student's distribution with one degree of freedom less than there are groups); energy_p (probability of a difference as large as this one by chance); energy_q (the smallest
--          level at which the concept counts as shifted, by Benjamini and Hochberg over all concepts of the answer);
--          rate_a, rate_b (share of the items of the set on which the concept fires); rate_difference, rate_sd,
--          rate_low, rate_high, rate_p, rate_q (the same for the rate); level; shifted (energy_q or rate_q is at most
--          level: by each alone, level is the expected share of false ones among the concepts so found).
-- Definition: docs/definitions.md, "Shift between two sets of items". Concepts with fewer than 10 firings are left out.
CREATE MACRO concept_shift(m, s, seed, modality, a, b, level := 0.1) AS TABLE
WITH in_a AS (
    SELECT DISTINCT unnest(a)::BIGINT AS id
),
in_b AS (
    SELECT DISTINCT unnest(b)::BIGINT AS id
),
members AS (
    SELECT coalesce(in_a.id, in_b.id) AS id, in_a.id IS NOT NULL AS of_a, in_b.id IS NOT NULL AS of_b
    FROM in_a
    FULL JOIN in_b ON in_a.id = in_b.id
),
grouped AS (
    SELECT images.image_id, (floor(images.split_u * 2 ** 40)::BIGINT % 20)::INTEGER AS jackknife_group FROM images
),
items AS (
    SELECT 'image' AS kind, g.image_id AS item_id, g.jackknife_group, members.of_a, members.of_b
    FROM grouped AS g
    JOIN members ON members.id = g.image_id
    WHERE modality IN ('image', 'both')
    UNION ALL
    SELECT 'text', pairs.pair_id, g.jackknife_group, members.of_a, members.of_b
    FROM pairs
    JOIN grouped AS g ON g.image_id = pairs.image_id
    JOIN members ON members.id = CASE modality WHEN 'text' THEN pairs.pair_id ELSE pairs.image_id END
    WHERE modality IN ('text', 'both')
),
sizes AS (
    SELECT kind, jackknife_group, count(*) FILTER (of_a) AS n_a, count(*) FILTER (of_b) AS n_b
    FROM items
    GROUP BY kind, jackknife_group
),
cells AS (
    SELECT kind, jackknife_group, coalesce(n_a, 0) AS n_a, coalesce(n_b, 0) AS n_b
    FROM (SELECT DISTINCT kind FROM sizes) AS kinds
    CROSS JOIN (SELECT DISTINCT jackknife_group FROM sizes) AS places
    LEFT JOIN sizes USING (kind, jackknife_group)
),
sums AS (
    SELECT
        act.concept_id, items.kind, items.jackknife_group, count(*) AS firings,
        coalesce(sum(act.activation::DOUBLE) FILTER (items.of_a), 0) AS z_a,
        coalesce(sum(act.activation::DOUBLE) FILTER (items.of_b), 0) AS z_b,
        count(*) FILTER (items.of_a) AS f_a, count(*) FILTER (items.of_b) AS f_b
    FROM activations AS act
    JOIN items ON items.kind = act.modality AND items.item_id = act.item_id
    WHERE act.model = m AND act.sae = s AND act.seed = seed
    GROUP BY act.concept_id, items.kind, items.jackknife_group
),
counted AS (
    SELECT concept_id, sum(firings)::BIGINT AS firings FROM sums GROUP BY concept_id HAVING sum(firings) >= min_firings()
),
every AS (
    SELECT
        c.concept_id, c.firings, cells.kind, cells.jackknife_group, cells.n_a, cells.n_b,
        coalesce(z_a, 0) AS z_a, coalesce(z_b, 0) AS z_b, coalesce(f_a, 0) AS f_a, coalesce(f_b, 0) AS f_b
    FROM counted AS c
    CROSS JOIN cells
    LEFT JOIN sums
        ON sums.concept_id = c.concept_id AND sums.kind = cells.kind AND sums.jackknife_group = cells.jackknife_group
),
without_one AS (
    SELECT
        *,
        (sum(z_a) OVER whole - z_a) / nullif(sum(n_a) OVER whole - n_a, 0) AS left_energy_a,
        (sum(z_b) OVER whole - z_b) / nullif(sum(n_b) OVER whole - n_b, 0) AS left_energy_b,
        (sum(f_a) OVER whole - f_a) / nullif(sum(n_a) OVER whole - n_a, 0) AS left_rate_a,
        (sum(f_b) OVER whole - f_b) / nullif(sum(n_b) OVER whole - n_b, 0) AS left_rate_b,
        sum(z_a) OVER whole / nullif(sum(n_a) OVER whole, 0) AS energy_a,
        sum(z_b) OVER whole / nullif(sum(n_b) OVER whole, 0) AS energy_b,
        sum(f_a) OVER whole / nullif(sum(n_a) OVER whole, 0) AS rate_a,
        sum(f_b) OVER whole / nullif(sum(n_b) OVER whole, 0) AS rate_b
    FROM every
    WINDOW whole AS (PARTITION BY concept_id, kind)
),
both_kinds AS (
    SELECT
        concept_id, jackknife_group, any_value(firings) AS firings,
        avg(energy_a) AS energy_a, avg(energy_b) AS energy_b, avg(rate_a) AS rate_a, avg(rate_b) AS rate_b,
        CASE WHEN count(left_energy_a - left_energy_b) = count(*) THEN avg(left_energy_a - left_energy_b) END AS energy,
        CASE WHEN count(left_rate_a - left_rate_b) = count(*) THEN avg(left_rate_a - left_rate_b) END AS rate
    FROM without_one
    GROUP BY concept_id, jackknife_group
),
estimates AS (
    SELECT
        concept_id, any_value(firings) AS firings, greatest(count(*) - 1, 1) AS df,
        any_value(energy_a) AS energy_a, any_value(energy_b) AS energy_b,
        any_value(rate_a) AS rate_a, any_value(rate_b) AS rate_b,
        CASE WHEN count(energy) = count(*) AND count(*) > 1 THEN sqrt((count(*) - 1) * var_pop(energy)) END AS energy_sd,
        CASE WHEN count(rate) = count(*) AND count(*) > 1 THEN sqrt((count(*) - 1) * var_pop(rate)) END AS rate_sd
    FROM both_kinds
    GROUP BY concept_id
),
tested AS (
    SELECT
        *, energy_a - energy_b AS energy_difference, rate_a - rate_b AS rate_difference,
        -- The 97.5 % point of Student's distribution (Cornish and Fisher): 2.0926 for df = 19, where 2.0930 is exact.
        1.959964 + 2.3723 / df + 2.8225 / df ** 2 AS half,
        coalesce(two_sided_p(normal_of_student((energy_a - energy_b) / nullif(energy_sd, 0), df)), 1) AS energy_p,
        coalesce(two_sided_p(normal_of_student((rate_a - rate_b) / nullif(rate_sd, 0), df)), 1) AS rate_p
    FROM estimates
),
ranked AS (
    SELECT
        *, count(*) OVER () AS tests,
        row_number() OVER (ORDER BY energy_p, concept_id) AS energy_rank,
        row_number() OVER (ORDER BY rate_p, concept_id) AS rate_rank
    FROM tested
),
adjusted AS (
    SELECT
        *,
        min(energy_p * tests / energy_rank) OVER (ORDER BY energy_rank DESC) AS energy_q,
        min(rate_p * tests / rate_rank) OVER (ORDER BY rate_rank DESC) AS rate_q
    FROM ranked
)
SELECT
    concept_id, firings, energy_a, energy_b, energy_difference, energy_sd,
    energy_difference - half * energy_sd AS energy_low, energy_difference + half * energy_sd AS energy_high,
    energy_p, energy_q, rate_a, rate_b, rate_difference, rate_sd,
    rate_difference - half * rate_sd AS rate_low, rate_difference + half * rate_sd AS rate_high, rate_p, rate_q,
    level::DOUBLE AS level, energy_q <= level OR rate_q <= level AS shifted
FROM adjusted
ORDER BY least(energy_q, rate_q), least(energy_p, rate_p), concept_id;
