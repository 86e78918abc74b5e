-- Purpose: all numbers of one concept, in one row.
-- Inputs:  m (model), s (sae), seed, concept; concepts, bridges.
-- Columns: the columns of concepts; energy_rank (place of the concept in its SAE by energy: 1 has the most);
--          strongest_text, strongest_text_bridge (the text concept and the score of the highest bridge in which this
--          concept is the image concept); strongest_image, strongest_image_bridge (the image concept and the score of
--          the highest bridge in which this concept is the text concept).
CREATE MACRO concept_profile(m, s, seed, concept) AS TABLE
WITH ranked AS (
    SELECT concepts.*, row_number() OVER (ORDER BY concepts.energy DESC, concepts.concept_id) AS energy_rank
    FROM concepts
    WHERE concepts.model = m AND concepts.sae = s AND concepts.seed = seed
)
SELECT
    ranked.*,
    as_image.text_concept AS strongest_text, as_image.bridge AS strongest_text_bridge,
    as_text.image_concept AS strongest_image, as_text.bridge AS strongest_image_bridge
FROM ranked
LEFT JOIN (
    SELECT arg_max(b.text_concept, b.bridge) AS text_concept, max(b.bridge) AS bridge FROM bridges AS b
    WHERE b.model = m AND b.sae = s AND b.seed = seed AND b.image_concept = concept
) AS as_image ON true
LEFT JOIN (
    SELECT arg_max(b.image_concept, b.bridge) AS image_concept, max(b.bridge) AS bridge FROM bridges AS b
    WHERE b.model = m AND b.sae = s AND b.seed = seed AND b.text_concept = concept
) AS as_text ON true
WHERE ranked.concept_id = concept;
