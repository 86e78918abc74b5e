-- Purpose: the number of training captions that contain each word.
-- Inputs:  caption_words.
-- Columns: word; captions (number of captions).
SELECT word, count(*) AS captions FROM caption_words GROUP BY word
