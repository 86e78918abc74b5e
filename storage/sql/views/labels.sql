-- Purpose: the labels that the source gives the acquired images. An image may have several labels of one name.
-- Inputs:  the run's table of labels; view images.
-- Columns: image_id; name (what the labels are about: the column of the source, or what the source calls its labels);
--          label (the label itself, one of those that the image has under this name).
CREATE VIEW labels AS
SELECT images.image_id, listed.name, listed.label
FROM read_parquet($labels, hive_partitioning = false) AS listed
JOIN images USING (source_key);
