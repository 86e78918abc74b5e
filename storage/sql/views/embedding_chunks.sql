-- Purpose: the embeddings of every model as the store keeps them: 1,024 rows per chunk. The macro embedding reads one
--          row.
-- Inputs:  the chunks of one model, shard and modality, of the Zarr array that has the rows; zarr.json, which describes
--          the array.
-- Columns: model; modality ('image' or 'text': what the rows embed); shard (number of the shard of pairs, item // 2^20);
--          chunk (rows 1,024 * chunk to 1,024 * chunk + 1,023 of the shard);
--          halves (the rows one after another as little-endian numbers of 16 bits, not normalised; the last chunk is
--          filled up with NaN, and a row without an embedding is NaN).
-- Notes:   the catalog joins one such SELECT per model, shard and modality by UNION ALL. All three are constants in each
--          SELECT, so a query for one item opens only the files of its shard. A chunk that has not the 1,024 * d * 2
--          bytes that follow from zarr.json is an error.
SELECT
    $model AS model, $modality AS modality, $shard AS shard,
    regexp_extract(file.filename, '(\d+)[/\\]0$', 1)::INTEGER AS chunk,
    CASE
        WHEN octet_length(file.content) = 1024 * 2 * described.dim THEN file.content
        ELSE error(
            file.filename || ' is damaged: it has ' || octet_length(file.content) || ' bytes, and zarr.json states '
            || coalesce((1024 * 2 * described.dim)::VARCHAR, 'no number') || ': delete the folder '
            || regexp_extract(file.filename, '([^/\\]+)[/\\]\w+[/\\]c[/\\]\d+[/\\]0$', 1)
            || ', and the next run makes it again'
        )
    END AS halves
FROM read_blob($files) AS file,
    (
        SELECT CASE WHEN json_valid(content) THEN try_cast(content ->> '$.shape[1]' AS BIGINT) END AS dim
        FROM read_text($described)
    ) AS described
