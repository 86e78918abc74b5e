-- Purpose: every concept of every SAE: how much and how often it is used, on which modality, its geometry, its name and
--          its stability.
-- Inputs:  the run's tables concepts, concept_names and matches; $named, $matched (0 where the run lacks the last two, of
--          earlier versions).
-- Columns: model, sae, seed; split (the items that are counted: 'heldout', 'train' or 'all'); concept_id (number of the
--          concept in its SAE, from 0);
--          energy (how strongly the concept is used, on average over both modalities; (energy_image + energy_text) / 2);
--          energy_image (mean activation over all counted images, those without the concept included; E_I[z]);
--          energy_text (mean activation over all counted captions; E_T[z]);
--          energy_squared_image, energy_squared_text (mean of the squared activation over the counted images, and over
--          the counted captions; E_I[z^2], E_T[z^2]);
--          rate_image, rate_text (share of the counted images, and of the counted captions, on which the concept fires);
--          firings (number of counted items of both modalities on which the concept fires);
--          modality_score (share of the concept's energy that is on images: 1 is used on images alone, 0 on captions
--          alone; energy_image / (energy_image + energy_text), NULL where both are 0);
--          modality_auc (probability that the concept is more active on an image than on a caption, a tie counts one
--          half: .5 tells nothing, 1 means that images always have more; area under the ROC curve);
--          direction_accuracy (how well the concept's direction alone tells images from captions: share of held-out items
--          classified right, mean of both modalities; .5 is chance);
--          align_mean_gap, align_logistic, align_lda (how nearly the concept's direction points from captions to images:
--          1 along the direction that separates them, 0 at a right angle, -1 towards captions; cosine with the
--          difference of the means, with the normal of a logistic regression, and with Fisher's discriminant);
--          align_inlp (how much of the concept's direction lies in the subspace that holds what linear classifiers use to
--          tell images from captions: 0 nothing, 1 all; length of the projection of the unit direction on it);
--          monosemanticity (how alike the images are on which the concept fires, in the model's own embeddings: mean
--          cosine of two such images, weighted by the product of the two activations; NULL with fewer than 2 images);
--          monosemanticity_independent (the same with the embeddings of the model that the key analyze.independent
--          names, over the images that both models embedded; NULL if it names none, and for that model's own SAEs);
--          dead (whether the concept fires on no training item);
--          energy_sd, energy_image_sd, energy_text_sd, rate_image_sd, rate_text_sd, modality_score_sd (standard error of
--          the column without _sd: how far the choice of images moves it; delete-one-group jackknife over 20 groups of
--          images; NULL where leaving out a group makes a denominator 0);
--          name (up to three words that set the captions of the concept's strongest training items apart; NULL is 'no
--          name': there are no such words, or they do not find the concept's held-out items better than chance, that is,
--          name_score_low is not above .5; where name_score is NULL for all concepts of a model, as for vectors that
--          were computed elsewhere, no encoder could score the words, and they are given as they are);
--          name_score (how well an encoder that sees only the words tells the held-out items on which the concept fires
--          from the others: the share of pairs of an item on which it fires and one on which it does not in which the
--          first is more similar to the words; .5 is chance, 1 is perfect; AUC of cos(E(words), x) over items of the
--          concept's own modality; NULL where the words have no score, or there are none);
--          name_score_low, name_score_high (bounds of the 95 % interval of name_score, from leaving out one of 20 groups
--          of images at a time; NULL with fewer than 10 firings);
--          name_chance (name_score with the words of the concept next in energy: what the words of other concepts reach);
--          stability (how surely another seed finds the concept again: cosine of its direction with the direction that is
--          matched with it in another seed of the same setting, mean over the other seeds; 1 is the same direction, NULL
--          with one seed; the view floors has what chance reaches).
-- Definition: docs/definitions.md, "Per concept", "Monosemanticity", "Uncertainty of per-concept sums", "Names of
--          concepts", "Stability".
CREATE VIEW concepts AS
WITH names AS (
    FROM read_parquet($names, hive_partitioning = false)
    UNION ALL BY NAME
    -- Runs of earlier versions lack the table: $names is then another file, and its rows are left out.
    SELECT
        NULL::VARCHAR AS words, NULL::BOOLEAN AS is_scored, NULL::DOUBLE AS score, NULL::DOUBLE AS low,
        NULL::DOUBLE AS high, NULL::DOUBLE AS chance
    WHERE false
),
matched AS (
    FROM read_parquet($matches, hive_partitioning = false)
    UNION ALL BY NAME
    SELECT
        NULL::VARCHAR AS sae_a, NULL::INTEGER AS seed_a, NULL::VARCHAR AS sae_b, NULL::INTEGER AS concept_a,
        NULL::DOUBLE AS cosine
    WHERE false
),
stabilities AS (
    SELECT model, sae_a, seed_a, concept_a, avg(cosine::DOUBLE) AS stability
    FROM matched
    WHERE $matched > 0 AND sae_a = sae_b
    GROUP BY model, sae_a, seed_a, concept_a
)
SELECT
    c.*,
    CASE WHEN n.low > 0.5 OR NOT n.is_scored THEN n.words END AS name,
    n.score AS name_score, n.low AS name_score_low, n.high AS name_score_high, n.chance AS name_chance,
    m.stability
FROM read_parquet($files, hive_partitioning = false) AS c
LEFT JOIN names AS n
    ON $named > 0 AND n.model = c.model AND n.sae = c.sae AND n.seed = c.seed AND n.concept_id = c.concept_id
LEFT JOIN stabilities AS m
    ON m.model = c.model AND m.sae_a = c.sae AND m.seed_a = c.seed AND m.concept_a = c.concept_id;
