-- Purpose: raise an error when a macro is given a model, SAE, seed or concept that the run does not have, and say which
--          there are. `storage.macros` puts this check in front of every table macro.
-- Inputs:  wanted_model, wanted_sae, wanted_seed, wanted_concept: what the macro is given, as text; NULL for a parameter
--          that the macro does not have; concepts.
-- Columns: false. In a run without any concept nothing is checked, since nothing can be named.
CREATE OR REPLACE MACRO unknown_subject(wanted_model, wanted_sae, wanted_seed, wanted_concept) AS (
    SELECT CASE
        WHEN len(found.models) = 0 THEN 'false'
        WHEN wanted_model IS NOT NULL AND NOT list_contains(found.models, wanted_model)
            THEN error(concat('No model named ''', wanted_model, '''. Available: ', array_to_string(found.models, ', '), '.'))
        WHEN wanted_sae IS NOT NULL AND NOT list_contains(found.saes, wanted_sae)
            THEN error(concat(
                'No SAE named ''', wanted_sae, '''', ' for model ''' || wanted_model || '''', '. Available: ',
                array_to_string(found.saes, ', '), '.'
            ))
        WHEN wanted_seed IS NOT NULL AND NOT list_contains(found.seeds, try_cast(wanted_seed AS INTEGER))
            THEN error(concat(
                'No seed ', wanted_seed, ' of the SAE ''', wanted_sae, ''' for model ''', wanted_model, '''. Available: ',
                array_to_string(found.seeds::VARCHAR[], ', '), '.'
            ))
        WHEN wanted_concept IS NOT NULL AND NOT coalesce(try_cast(wanted_concept AS INTEGER) BETWEEN 0 AND found.last, false)
            THEN error(concat(
                'No concept ', wanted_concept, ' in the SAE ''', wanted_sae, ''', seed ', wanted_seed, ', for model ''',
                wanted_model, '''. Available: 0 to ', found.last, '.'
            ))
        ELSE 'false'
    END::BOOLEAN
    FROM (
        SELECT
            coalesce(list_sort(list(DISTINCT subjects.model)), []) AS models,
            list_sort(list(DISTINCT subjects.sae) FILTER (wanted_model IS NULL OR subjects.model = wanted_model)) AS saes,
            list_sort(list(DISTINCT subjects.seed) FILTER (subjects.model = wanted_model AND subjects.sae = wanted_sae))
                AS seeds,
            max(subjects.last) FILTER (
                subjects.model = wanted_model AND subjects.sae = wanted_sae AND subjects.seed::VARCHAR = wanted_seed
            ) AS last
        FROM (
            SELECT concepts.model, concepts.sae, concepts.seed, max(concepts.concept_id) AS last
            FROM concepts
            GROUP BY concepts.model, concepts.sae, concepts.seed
        ) AS subjects
    ) AS found
);
