-- Purpose: the pictures of the images that the explorer shows.
-- Inputs:  shown_images, image_bytes.
-- Columns: image_id; image (encoded bytes).
SELECT image_id, image FROM image_bytes JOIN shown_images USING (image_id) ORDER BY image_id
