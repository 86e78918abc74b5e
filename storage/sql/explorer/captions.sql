-- Purpose: the captions of the images that the explorer shows.
-- Inputs:  shown_images, pairs.
-- Columns: pair_id; block (number of the data file that holds the caption); caption; image (image_id); split.
SELECT p.pair_id, s.block, p.caption, p.image_id AS image, p.split
FROM pairs AS p
JOIN shown_images AS s USING (image_id)
ORDER BY p.pair_id
