-- Purpose: the definitions that tables, pages and programs share. This file is the only one that states them. Every
--          catalog has them as macros, `storage.definitions` reads them for Python, and the explorer's manifest holds
--          them for the browser.
-- Definition: docs/definitions.md, "Modality score" (unimodal, class, counted), "Stability by energy" (top_concepts),
--          "Totals of bridges" (are_opposite), "Chance of retrieval" (chance_of_hit), "Findings" (t_quantile).

-- A concept is unimodal when its modality score is below this bound (captions) or above 1 - bound (images).
CREATE OR REPLACE MACRO unimodal_bound() AS 0.1;
CREATE OR REPLACE MACRO is_unimodal(modality_score) AS
    modality_score < unimodal_bound() OR modality_score > 1 - unimodal_bound();

-- The class of a concept by its modality score. A concept that fires on no counted item has no score: it is silent.
CREATE OR REPLACE MACRO modality_class(modality_score) AS CASE
    WHEN modality_score IS NULL THEN 'silent'
    WHEN modality_score < unimodal_bound() THEN 'text'
    WHEN modality_score > 1 - unimodal_bound() THEN 'image'
    ELSE 'bimodal'
END;
CREATE OR REPLACE MACRO are_opposite(class_a, class_b) AS
    (class_a = 'image' AND class_b = 'text') OR (class_a = 'text' AND class_b = 'image');

-- Concepts with fewer firings than this number are left out of shares and histograms of the modality score.
CREATE OR REPLACE MACRO min_firings() AS 10;
CREATE OR REPLACE MACRO is_counted(firings, modality_score) AS firings >= min_firings() AND modality_score IS NOT NULL;

-- The number of concepts that the report calls "the most energetic concepts" in its headlines and sentences.
CREATE OR REPLACE MACRO top_concepts() AS 32;

-- Probability that k items, drawn from `total` items without replacement, contain at least one of `own` given items.
CREATE OR REPLACE MACRO chance_of_hit(k, own, total) AS
    1 - list_product([greatest(total - own - i, 0) / greatest(total - i, 1) FOR i IN range(least(k, total)::BIGINT)]);

-- The 97.5 % quantile of Student's t with df degrees of freedom: half a 95 % interval, in standard errors. Beyond 20
-- degrees of freedom it is the normal quantile with a correction, exact to .006.
CREATE OR REPLACE MACRO t_quantile(df) AS CASE
    WHEN df < 1 THEN NULL
    WHEN df <= 20 THEN [
        12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448,
        2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860
    ][df]::DOUBLE
    ELSE 1.96 + 2.4 / df
END;

-- Two-sided p of a normal variable of standard deviation 1 that is as far from 0 as z, erfc(|z| / sqrt 2). Its relative
-- error is below 1.2e-7 (Press et al., Numerical Recipes, erfcc).
CREATE OR REPLACE MACRO erfc_of(t, x) AS t * exp(-x - 1.26551223 + t * (1.00002368 + t * (0.37409196
    + t * (0.09678418 + t * (-0.18628806 + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587
    + t * (-0.82215223 + t * 0.17087277)))))))));
CREATE OR REPLACE MACRO two_sided_p(z) AS erfc_of(1 / (1 + abs(z) / sqrt(8)), z * z / 2);

-- The normal variable that is as improbable as a variable t of Student's distribution with df degrees of freedom
-- (Wallace 1959, Annals of Mathematical Statistics 30).
CREATE OR REPLACE MACRO normal_of_student(t, df) AS (8 * df + 1) / (8 * df + 3) * sqrt(df * ln(1 + t * t / df));

-- The numbers in the bytes of a little-endian array of float16, as doubles, exactly.
CREATE OR REPLACE MACRO float16_of(bits) AS (1 - 2 * (bits >> 15)) * CASE (bits >> 10) & 31
    WHEN 31 THEN CASE WHEN bits & 1023 = 0 THEN 'inf'::DOUBLE ELSE 'nan'::DOUBLE END
    WHEN 0 THEN (bits & 1023) * 2.0::DOUBLE ** -24
    ELSE (1024 + (bits & 1023)) * 2.0::DOUBLE ** (((bits >> 10) & 31) - 25)
END;
CREATE OR REPLACE MACRO float16s(bytes) AS list_transform(
    regexp_extract_all(hex(bytes), '.{4}'), lambda h: float16_of(('0x' || h[3:4] || h[1:2])::BIGINT)
);
