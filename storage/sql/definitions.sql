-- Purpose: the definitions that tables, pages and programs share. Each is stated only here. Every catalog has them as
--          macros; `storage.definitions` reads them for Python, and the explorer's manifest contains them for the front
--          end.
-- Definition: DEFINITIONS "Per concept" (unimodal, counted), "Bridge Score" (classes), "What concepts do for retrieval".

-- A concept is unimodal when its modality score is below this bound (captions) or above 1 - bound (images).
CREATE OR REPLACE MACRO unimodal_bound() AS 0.1;
CREATE OR REPLACE MACRO is_unimodal(modality_score) AS
    modality_score < unimodal_bound() OR modality_score > 1 - unimodal_bound();

-- The class of a concept. A concept that fires on no counted item has no score and is silent.
CREATE OR REPLACE MACRO modality_class(modality_score) AS CASE
    WHEN modality_score IS NULL THEN 'silent'
    WHEN modality_score < unimodal_bound() THEN 'text'
    WHEN modality_score > 1 - unimodal_bound() THEN 'image'
    ELSE 'bimodal'
END;
CREATE OR REPLACE MACRO are_opposite(class_a, class_b) AS
    (class_a = 'image' AND class_b = 'text') OR (class_a = 'text' AND class_b = 'image');

-- Concepts with fewer firings than this are left out of shares and histograms of the modality score.
CREATE OR REPLACE MACRO min_firings() AS 10;
CREATE OR REPLACE MACRO is_counted(firings, modality_score) AS firings >= min_firings() AND modality_score IS NOT NULL;

-- How many concepts the headlines and sentences of the report mean by "the most energetic concepts".
CREATE OR REPLACE MACRO top_concepts() AS 32;

-- Chance that at least one of `own` items is among k items drawn from `total` without replacement.
CREATE OR REPLACE MACRO chance_of_hit(k, own, total) AS
    1 - list_product([greatest(total - own - i, 0) / greatest(total - i, 1) FOR i IN range(least(k, total)::BIGINT)]);
