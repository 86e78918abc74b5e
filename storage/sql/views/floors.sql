-- Purpose: what unrelated dictionaries score: the draws that nulls sums up, concept by concept.
-- Inputs:  the run's table floors.
-- Columns: model, sae, seed; "null" ('floor_random': unit vectors; 'floor_matched': rows with the mean and covariance of the
--          dictionary's); draw; concept_id; cosine (of the concept and the drawn row that it is matched with).
-- Definition: DEFINITIONS "Stability", floors.
CREATE VIEW floors AS FROM read_parquet($files);
