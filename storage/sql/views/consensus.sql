-- Purpose: how many seeds hold each concept of a consensus SAE, one row per concept.
-- Inputs:  the view consensus_members.
-- Columns: model, sae, seed, concept_id; seeds (number of seeds that hold the concept: their own concept that is matched
--          to it has a cosine of .7 or more with the concept of the medoid, which is the seed that agrees best with the
--          others and always counts); cosine (mean cosine of the directions of these seeds' concepts with the merged
--          direction; 1 where all seeds have the same direction).
-- Definition: docs/definitions.md, "Consensus SAE". Concepts that fewer than half of the seeds hold are not in the SAE.
CREATE VIEW consensus AS
SELECT model, sae, seed, concept_id, count(*) AS seeds, avg(cosine) AS cosine
FROM consensus_members
GROUP BY ALL;
