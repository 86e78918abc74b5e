-- Purpose: in how many captions each word stands.
-- Inputs:  caption_words.
-- Columns: word; captions.
SELECT word, count(*) AS captions FROM caption_words GROUP BY word
