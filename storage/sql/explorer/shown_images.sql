-- Purpose: the images that the explorer shows. Of a small study, all images. Of a larger study, the images that
--          are top items of a concept, and the images with a caption that is a top item.
-- Inputs:  images, pairs, explorer_top; $small (largest number of images of a small study), $block (images per file).
-- Columns: image_id; block (number of the file that holds it and its captions).
WITH wanted AS (
    SELECT image_id FROM images WHERE (SELECT count(*) FROM images) <= $small
    UNION
    SELECT item_id FROM explorer_top WHERE modality = 'image'
    UNION
    SELECT pairs.image_id FROM pairs JOIN explorer_top ON modality = 'text' AND item_id = pair_id
)
SELECT image_id, ((row_number() OVER (ORDER BY image_id) - 1) // $block)::INTEGER AS block
FROM wanted
ORDER BY image_id
