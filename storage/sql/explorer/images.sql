-- Purpose: the images that the explorer shows, with their captions.
-- Inputs:  shown_images, images, pairs.
-- Columns: image_id; block (number of the data file that holds it); key (the source's key); width, height; split;
--          captions (list of pair_ids).
SELECT
    s.image_id, s.block, i.source_key AS key, i.width, i.height, i.split,
    coalesce((SELECT list(p.pair_id ORDER BY p.pair_id) FROM pairs AS p WHERE p.image_id = s.image_id), []) AS captions
FROM shown_images AS s
JOIN images AS i USING (image_id)
ORDER BY s.image_id
