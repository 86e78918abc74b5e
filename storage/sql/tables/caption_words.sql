-- Purpose: the distinct words of every training caption.
-- Inputs:  pairs.
-- Columns: pair_id; word (in lower case, 2 to 40 characters: letters, digits and marks, with apostrophes and hyphens
--          between them, but not digits alone).
SELECT DISTINCT pair_id, word
FROM (
    SELECT pair_id, unnest(regexp_extract_all(lower(caption), '[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:[''’-][\p{L}\p{M}\p{N}]+)*')) AS word
    FROM pairs
    WHERE split = 'train'
)
WHERE length(word) BETWEEN 2 AND 40 AND NOT regexp_full_match(word, '[\p{N}''’-]+')
