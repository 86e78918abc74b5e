-- One attack per line. {store} is the path of the store, {table} the path of a Parquet file that DuckDB may read.
COPY (SELECT 1) TO '{table}'
COPY saes TO '{table}' (FORMAT parquet)
COPY saes TO '{store}/x.csv' (HEADER)
COPY saes TO '{store}/parts' (FORMAT parquet, PARTITION_BY (model))
COPY (SELECT 1) TO '{store}/x.csv' (USE_TMP_FILE false)
COPY saes FROM '{table}'
COPY FROM DATABASE memory TO other
WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x
WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) SELECT 1
WITH x AS (COPY saes TO '{store}/x.csv') FROM x
with X as materialized (copy (from saes) to '{store}/x.json') select * from x
WITH a AS (SELECT 1), b AS (COPY (FROM a) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM a, b
WITH a AS (WITH b AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM b) FROM a
SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x)
SELECT (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT count(*) FROM x)
SELECT 1 WHERE EXISTS (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x)
SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT 2 FROM x)
SELECT 1 ORDER BY (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT 2 FROM x)
SELECT 1 LIMIT (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT 2 FROM x)
SELECT [y FOR y IN (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT [2] FROM x)]
SELECT list_transform([1], lambda v: (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) SELECT v FROM x))
SELECT CASE WHEN true THEN (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) SELECT 1 FROM x) END
SELECT sum(1) OVER (ORDER BY (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) SELECT 1 FROM x))
FROM saes, LATERAL (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x)
FROM saes JOIN saes AS b ON (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) SELECT true FROM x)
VALUES ((WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) SELECT 1 FROM x))
WITH RECURSIVE t AS (SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO '{table}') SELECT 2 FROM x)) FROM t
DESCRIBE WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x
SUMMARIZE WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x
UNPIVOT (WITH x AS (COPY (SELECT 1 AS a) TO '{table}' (FORMAT parquet)) FROM x) ON COLUMNS(*)
PIVOT (WITH x AS (COPY (SELECT 1 AS a) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x) ON Count
WITH x AS (COPY (SELECT 1 AS a) TO '{table}' (FORMAT parquet)), p AS (PIVOT saes ON model USING count(*)) FROM p
EXPLAIN ANALYZE COPY (SELECT 1) TO '{table}'
EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x
EXPLAIN (ANALYZE) WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet, USE_TMP_FILE false)) FROM x
EXPLAIN (ANALYZE, FORMAT json) (WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) FROM x)
/* x */ EXPLAIN /* y */ ANALYZE /* z */ WITH x AS (COPY (SELECT 1) TO '{table}' (FORMAT parquet)) FROM x
EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1
EXPLAIN ANALYZE PIVOT (WITH x AS (COPY (SELECT 1 AS a) TO '{table}' (FORMAT parquet)) FROM x) ON count
EXPLAIN WITH x AS (INSERT INTO saes VALUES (1) RETURNING *) FROM x
WITH x AS (INSERT INTO saes SELECT * FROM saes RETURNING *) FROM x
WITH x AS (UPDATE saes SET seed = 1 RETURNING *) FROM x
WITH x AS (DELETE FROM saes RETURNING *) FROM x
INSERT INTO saes VALUES (1)
UPDATE saes SET seed = 1
DELETE FROM saes
MERGE INTO saes USING saes AS b ON true WHEN MATCHED THEN DELETE
TRUNCATE saes
CREATE TABLE t (a INTEGER)
CREATE TEMP TABLE t AS SELECT 1
CREATE OR REPLACE VIEW saes AS SELECT 1
CREATE MACRO is_counted(a, b) AS true
CREATE SECRET s (TYPE http)
CREATE TYPE mood AS ENUM ('a')
CREATE SEQUENCE q
DROP VIEW saes
ALTER VIEW saes RENAME TO other
EXPORT DATABASE '{store}/x'
IMPORT DATABASE '{store}/x'
ATTACH '{store}/x.duckdb'
ATTACH ':memory:' AS other
DETACH memory
USE memory
INSTALL httpfs
LOAD httpfs
LOAD '{store}/x.duckdb_extension'
UPDATE EXTENSIONS
SET enable_external_access = true
SET GLOBAL allowed_paths = ['/']
SET VARIABLE x = 1
RESET enable_external_access
PRAGMA enable_profiling
PRAGMA profile_output = '{store}/x.json'
PRAGMA database_size
CHECKPOINT
FORCE CHECKPOINT
VACUUM
ANALYZE
BEGIN
CALL pragma_version()
CALL enable_logging(storage = 'file', storage_config = {'path': '{store}/logs'})
PREPARE p AS SELECT 1
EXECUTE p
SELECT 1; SELECT 2
SELECT 1; DROP VIEW saes
SELECT 1;; COPY saes TO '{table}'
FROM enable_logging(storage := 'file')
FROM enable_profiling()
FROM checkpoint()
FROM read_text('/etc/passwd')
FROM read_blob('{table}')
FROM read_csv('/etc/passwd')
FROM read_csv_auto('https://example.org/x.csv')
FROM read_json('{store}/x.json')
FROM read_parquet('{table}')
FROM parquet_scan('{table}')
FROM parquet_metadata('{table}')
FROM parquet_kv_metadata('{table}')
FROM parquet_schema('{table}')
FROM sniff_csv('{table}')
FROM glob('/etc/*')
FROM main.read_text('/etc/passwd')
FROM system.main.read_text('/etc/passwd')
FROM '{table}'
FROM "{table}"
FROM '/etc/passwd'
FROM 'x.csv'
FROM 's3://bucket/x.parquet'
DESCRIBE '{table}'
DESCRIBE FROM read_csv('/etc/passwd')
SUMMARIZE '{table}'
SELECT * FROM saes WHERE model IN (FROM read_text('/etc/passwd') SELECT content)
SELECT (SELECT content FROM read_text('/etc/passwd'))
FROM query('COPY (SELECT 1) TO ''{table}''')
FROM query_table('{table}')
FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''/etc/passwd'')'))
SELECT json_serialize_plan('FROM read_text(''/etc/passwd'')')
SELECT getenv('HOME')
SELECT 'HOME'.getenv()
SELECT current_setting('allowed_paths')
SELECT getvariable('x')
SELECT nextval('q')
SELECT setseed(0.5)
SELECT write_log('x')
SELECT sleep_ms(1000000)
FROM duckdb_settings()
FROM duckdb_secrets()
FROM duckdb_logs
FROM duckdb_extensions()
FROM duckdb_databases()
FROM pragma_database_list
FROM pg_catalog.pg_settings
FROM pragma_storage_info('saes')
FROM seq_scan('saes')
FROM python_map_function(1)
SHOW DATABASES
SHOW VARIABLES
SELECT ?
SELECT $name
