-- Purpose: matched cosines with unrelated dictionaries, per draw and concept; the table nulls summarises them.
-- Inputs:  the run's table floors.
-- Columns: model, sae, seed; "null" ('floor_random': unit vectors; 'floor_matched': rows with the mean and covariance of the
--          dictionary); draw; concept_id; cosine (of the concept and the drawn row that is matched with it).
-- Definition: DEFINITIONS "Stability", floors.
CREATE VIEW floors AS FROM read_parquet($files);
