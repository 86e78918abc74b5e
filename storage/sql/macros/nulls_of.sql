-- Purpose: the values that chance gives to the statistics of one setting.
-- Inputs:  m (model), s (sae); nulls.
-- Columns: seed; statistic; "null"; mean, sd, q025, q975 (over draws); draws (number of draws).
CREATE MACRO nulls_of(m, s) AS TABLE
SELECT nulls.seed, nulls.statistic, nulls."null", nulls.mean, nulls.sd, nulls.q025, nulls.q975, nulls.draws
FROM nulls
WHERE nulls.model = m AND nulls.sae = s
ORDER BY nulls.seed, nulls.statistic, nulls."null";
