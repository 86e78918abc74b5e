SELECT 1
SELECT 1; -- a comment after the semicolon
/* a comment before */ SELECT 1 /* one inside */ AS one
FROM images LIMIT 3
TABLE images
VALUES (1, 'a'), (2, 'b')
SELECT count(*), count(DISTINCT split) FROM images
WITH held AS (SELECT * FROM images WHERE split = 'heldout') SELECT count(*) FROM held JOIN pairs USING (image_id)
WITH a AS MATERIALIZED (SELECT 1 AS x), b AS NOT MATERIALIZED (FROM a) FROM b
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t
WITH RECURSIVE t(n, k) USING KEY (n) AS (SELECT 1, 2 UNION SELECT n, k + 1 FROM t WHERE k < 5) FROM t
SELECT image_id, row_number() OVER (PARTITION BY split ORDER BY width DESC, image_id) AS place FROM images
SELECT width, sum(width) OVER w, lag(width, 1, 0) OVER w, first_value(width IGNORE NULLS) OVER w FROM images WINDOW w AS (ORDER BY image_id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES)
SELECT rank() OVER (ORDER BY width), dense_rank() OVER (ORDER BY width), ntile(4) OVER (ORDER BY width), percent_rank() OVER (ORDER BY width), cume_dist() OVER (ORDER BY width), nth_value(width, 2) OVER (ORDER BY width), last_value(width) OVER (), lead(width) OVER (ORDER BY image_id) FROM images
SELECT split, width FROM images QUALIFY row_number() OVER (PARTITION BY split ORDER BY image_id) = 1
PIVOT images ON split USING count(*)
PIVOT images ON split, width IN (8, 16) USING count(*), max(image_id) GROUP BY height ORDER BY height LIMIT 3
PIVOT (SELECT split, width FROM images) ON split IN ('train', 'heldout') USING avg(width)
WITH p AS (PIVOT images ON split USING count(*)) SELECT * FROM p
SELECT * FROM (PIVOT pairs ON split USING count(*) GROUP BY image_id) LIMIT 2
FROM images PIVOT (count(*) FOR split IN ('train', 'heldout') GROUP BY width)
UNPIVOT (SELECT model, seed, r2_image, r2_text FROM saes) ON r2_image, r2_text INTO NAME modality VALUE r2
SELECT * FROM saes UNPIVOT INCLUDE NULLS (r2 FOR modality IN (r2_image, r2_text))
SELECT list_transform([1, 2, 3], lambda x: x + 1), list_filter([1, 2], lambda x, i: i > 1), list_reduce([1, 2], lambda a, b: a + b)
SELECT [x * 2 FOR x IN [1, 2, 3] IF x > 1] AS doubled
SELECT {'a': 1, 'b': {'c': [1, 2]}}.b.c[1], MAP {'k': 1}['k'], [1, 2, 3][2:], [1, 2, 3][-1], row(1, 2), struct_pack(a := 1)
SELECT 1 AS x UNION ALL BY NAME SELECT 2 AS x EXCEPT SELECT 3 INTERSECT SELECT 4
SELECT a.split FROM images AS a UNION SELECT split FROM pairs ORDER BY 1 LIMIT 2 OFFSET 1
SELECT image_id FROM images AS i WHERE width >= (SELECT max(width) FROM images AS j WHERE j.split = i.split)
SELECT image_id FROM images AS i WHERE EXISTS (FROM pairs AS p WHERE p.image_id = i.image_id) AND image_id NOT IN (SELECT image_id FROM pairs WHERE false) AND width > ANY (SELECT 1)
SELECT i.image_id, c.caption FROM images AS i, LATERAL (SELECT caption FROM pairs WHERE pairs.image_id = i.image_id LIMIT 1) AS c LIMIT 3
FROM images POSITIONAL JOIN pairs LIMIT 2
FROM images AS a ASOF JOIN images AS b ON a.image_id >= b.image_id SELECT count(*)
SELECT count(*) FROM images SEMI JOIN pairs USING (image_id)
SELECT count(*) FROM images ANTI JOIN pairs USING (image_id)
SELECT count(*) FROM images LEFT JOIN pairs ON images.image_id = pairs.image_id AND pairs.split <> 'x'
SELECT count(*) FROM images NATURAL JOIN pairs
SELECT count(*) FROM range(3) CROSS JOIN range(2) AS r(x)
FROM images USING SAMPLE 10% (bernoulli, 3)
SELECT count(*) FROM images TABLESAMPLE reservoir(5 ROWS) REPEATABLE (1)
SELECT split, width, count(*) FROM images GROUP BY GROUPING SETS ((split), (width), ()) HAVING count(*) > 0 ORDER BY ALL
SELECT split, grouping(split), count(*) FROM images GROUP BY ROLLUP (split)
SELECT split, width, count(*) FROM images GROUP BY CUBE (split, width)
SELECT split, count(*) FILTER (width > 3), list(width ORDER BY width DESC), string_agg(DISTINCT source_key, ', ' ORDER BY source_key) FROM images GROUP BY ALL ORDER BY split NULLS FIRST
SELECT DISTINCT ON (split) split, width FROM images ORDER BY split, width DESC
SELECT * EXCLUDE (split) REPLACE (width * 2 AS width) RENAME (height AS tall) FROM images LIMIT 1
SELECT COLUMNS('r2.*'), COLUMNS(lambda c: c LIKE 'l0%') FROM saes
SELECT min(COLUMNS(*)) FROM images
SELECT CASE WHEN width > 8 THEN 'wide' WHEN width IS NULL THEN NULL ELSE 'small' END, CASE split WHEN 'train' THEN 1 END, coalesce(NULL, 1), nullif(1, 1), if(true, 1, 2) FROM images LIMIT 1
SELECT width::VARCHAR, CAST(width AS DOUBLE), TRY_CAST('x' AS INTEGER), '1'::STRUCT(a INTEGER, b VARCHAR[])  IS NULL FROM images WHERE false
SELECT 1 BETWEEN 0 AND 2, 1 IN (1, 2), 1 NOT IN (3), 'a' LIKE 'a%', 'a' ILIKE 'A', 'a' SIMILAR TO 'a.*', 'a' GLOB 'a*', 1 IS DISTINCT FROM 2, NOT true, NULL IS NULL, 'x' LIKE 'a\_' ESCAPE '\'
SELECT DATE '2020-01-01' + INTERVAL 1 DAY, extract('year' FROM TIMESTAMP '2020-01-01 00:00:00'), date_trunc('month', DATE '2020-02-03'), strftime(DATE '2020-01-01', '%Y'), now() > TIMESTAMP '2020-01-01 00:00:00'
SELECT 5 // 2, 5 % 2, 2 ** 3, 5 & 1, 1 << 2, ~1, -1, 'a' || 'b', 5!, @(-1), xor(1, 2)
SELECT round(avg(width), 2), median(width), quantile_cont(width, [0.1, 0.9]), stddev(width), corr(width, height), arg_max(image_id, width), mode(split), histogram(width), approx_count_distinct(image_id) FROM images
SELECT regexp_extract(caption, '(\w+)', 1), lower(caption), length(caption), split_part(caption, ' ', 1), substr(caption, 1, 3), caption[1:2], replace(caption, 'a', 'b'), format('{} x', caption), printf('%s', caption) FROM pairs LIMIT 2
SELECT unnest([1, 2]), unnest({'a': 1, 'b': 2}), generate_series(1, 3), unnest([{'a': 1}], recursive := true)
SELECT * FROM unnest([1, 2]) WITH ORDINALITY AS t(x, n)
SELECT * FROM generate_series(1, 3) AS s(i), json_each('{"a": [1, 2]}')
SELECT '{"a": 1}'::JSON ->> 'a', json_extract('{"a": 1}', '$.a'), to_json({'a': 1})
SELECT random() < 2, uuid() IS NOT NULL, hash(1), md5('a'), sha256('a'), version() IS NOT NULL
SELECT 'a' COLLATE NOCASE = 'A', #1, t.* FROM (SELECT 1 AS x) AS t
SELECT width AS w, w + 1 AS v FROM images WHERE w > 0 ORDER BY v DESC NULLS LAST LIMIT 10%
EXPLAIN SELECT count(*) FROM images
EXPLAIN ANALYZE SELECT count(*) FROM images JOIN pairs USING (image_id)
EXPLAIN (FORMAT json) SELECT 1
EXPLAIN (ANALYZE, FORMAT json) FROM images LIMIT 1
EXPLAIN (SELECT 1)
EXPLAIN DESCRIBE images
EXPLAIN PIVOT images ON split USING count(*)
DESCRIBE concepts
DESCRIBE SELECT 1 AS x
DESCRIBE
SHOW TABLES
SHOW ALL TABLES
SHOW images
SUMMARIZE images
SUMMARIZE SELECT width, height FROM images
SELECT column_name, null_percentage FROM (SUMMARIZE images)
SELECT column_name FROM (DESCRIBE images)
SELECT table_name, column_name FROM information_schema.columns WHERE table_name = 'images'
SELECT view_name FROM duckdb_views() WHERE NOT internal
SELECT name FROM sqlite_master
WITH "odd name" AS (SELECT 1 AS "a;b") FROM "odd name"
SELECT 'copy (select 1) to ''/tmp/x''' AS words, $$attach 'x'$$ AS more
SELECT model, sae, is_counted(firings, modality_score), modality_class(modality_score), unimodal_bound(), min_firings() FROM concepts LIMIT 2
FROM top_bridges('tiny', 'main', 0, 3, by := 'correlation_bridge')
FROM bridge_figures('tiny', 'main')
FROM stability('tiny', 'main')
FROM stability_by_energy('tiny', 'main')
FROM stability_by_energy_share('tiny', 'main')
FROM diet_stability('tiny', 'main')
FROM sensitivity('tiny', 'main')
FROM matched_share('tiny', 'main')
FROM energy_concentration('tiny', 'main')
FROM modality_histogram('tiny', 'main', 10)
FROM retrieval_chance()
FROM top_items('tiny', 'main', 0, 1, 'text', 3)
FROM concept_profile('tiny', 'main', 0, 1)
FROM nulls_of('tiny', 'main')
SELECT is_unimodal(0.05), are_opposite('image', 'text'), chance_of_hit(1, 1, 10), top_concepts()
FROM ledger
SELECT image_id, octet_length(image) FROM image_bytes LIMIT 2
