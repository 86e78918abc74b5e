-- Purpose: the words that distinguish the training captions of each concept of one SAE from all training captions. They
--          serve as an automatic name of the concept.
-- Inputs:  codes (of one SAE), pairs, caption_words, caption_counts; $model, $sae, $seed; $top (number of training items
--          of each modality that stand for a concept), $prior (number of captions), $least (lowest score), $n (maximum
--          number of words per concept).
-- Columns: model, sae, seed, concept_id; word; score.
-- Definition: docs/definitions.md, "Names of concepts". The captions of a concept are the $top training captions on which
--          it is most active, and all captions of the $top training images on which it is most active. For each of these
--          captions, the activations of the caption and of its image among these items are added up. The weight of a
--          caption is this sum divided by the largest sum of the concept. The odds of a word are the odds that a
--          caption contains the word. score = (log odds in the captions of the concept - log odds in all captions) /
--          standard deviation of this difference. The prior adds $prior captions with the same share of each word as
--          all captions (Monroe, Colaresi and Quinn 2008, "Fightin' Words", eqs. 15, 16 and 22, with captions in place
--          of tokens). Words that occur in only one caption of the concept, and words with a score below $least, are
--          left out.
WITH strongest AS (
    SELECT is_image, concept_id, item_id, activation
    FROM codes
    WHERE training
    QUALIFY row_number() OVER (PARTITION BY is_image, concept_id ORDER BY activation DESC, item_id) <= $top
),
caption_activations AS (
    SELECT concept_id, item_id AS pair_id, activation FROM strongest WHERE NOT is_image
    UNION ALL
    SELECT t.concept_id, pairs.pair_id, t.activation
    FROM strongest AS t
    JOIN pairs ON pairs.image_id = t.item_id
    WHERE t.is_image
),
summed AS (
    SELECT concept_id, pair_id, sum(activation::DOUBLE) AS activation FROM caption_activations GROUP BY concept_id, pair_id
),
weighted AS (
    SELECT concept_id, pair_id, activation / max(activation) OVER (PARTITION BY concept_id) AS weight FROM summed
),
sizes AS (
    SELECT concept_id, sum(weight) AS n FROM weighted GROUP BY concept_id
),
word_weights AS (
    SELECT concept_id, word, sum(weight) AS y
    FROM weighted
    JOIN caption_words USING (pair_id)
    GROUP BY concept_id, word
    HAVING count(*) > 1
),
whole AS (
    SELECT count(*)::DOUBLE AS n FROM pairs WHERE split = 'train'
),
counted AS (
    SELECT
        word_weights.concept_id, word_weights.word, word_weights.y, sizes.n,
        caption_counts.captions AS y_all, whole.n AS n_all,
        $prior * caption_counts.captions / whole.n AS prior
    FROM word_weights
    JOIN sizes USING (concept_id)
    JOIN caption_counts USING (word)
    CROSS JOIN whole
),
scored AS (
    SELECT
        concept_id, word,
        (
            ln((y + prior) / (n + $prior - y - prior)) - ln((y_all + prior) / (n_all + $prior - y_all - prior))
        ) / sqrt(1 / (y + prior) + 1 / (y_all + prior)) AS score
    FROM counted
    WHERE y_all < n_all
)
SELECT $model AS model, $sae AS sae, $seed::INTEGER AS seed, concept_id, word, score
FROM scored
WHERE score >= $least
QUALIFY row_number() OVER (PARTITION BY concept_id ORDER BY score DESC, word) <= $n
ORDER BY concept_id, score DESC, word
