-- Purpose: write one shard's activations in long form, sorted so that the rows of one concept are contiguous.
-- Inputs:  image_codes, text_codes (item_id, concept_id, activation), $path (the file to write).
-- Columns: modality ('image' or 'text'), concept_id, item_id (image_id of an image row, pair_id of a caption row), activation.
COPY (
    WITH both_modalities AS (
        SELECT 'image' AS modality, concept_id, item_id, activation FROM image_codes
        UNION ALL
        SELECT 'text' AS modality, concept_id, item_id, activation FROM text_codes
    )
    SELECT * FROM both_modalities ORDER BY modality, concept_id, item_id
) TO $path (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 131072, PARQUET_VERSION v2);
