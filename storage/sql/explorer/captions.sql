-- Purpose: the captions that the explorer shows: those of the images that it shows.
-- Inputs:  shown_images, pairs.
-- Columns: pair_id; block (of its image); caption; image (its image_id); split.
SELECT p.pair_id, s.block, p.caption, p.image_id AS image, p.split
FROM pairs AS p
JOIN shown_images AS s USING (image_id)
ORDER BY p.pair_id
