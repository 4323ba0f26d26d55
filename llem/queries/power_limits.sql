-- Joules per output token under each power limit and clock of a study, with 95 % intervals, and the share of the fastest one's speed; rounded.
WITH set AS (
    SELECT study_id, cell_hash, any_value(power_limit_set_w) AS power_limit_w, any_value(clocks_locked_mhz) AS clocks_mhz, count(*) AS runs,
           avg(energy_per_output_token_j) AS mean_j, stddev_samp(energy_per_output_token_j) / sqrt(count(*)) AS deviation_j,
           avg(output_tokens_per_second) AS tokens_per_second, avg(kwh_per_million_output_tokens) AS kwh_per_million, any_value(model_name) AS model_name
    FROM experiment_results JOIN (SELECT experiment_id FROM study_runs WHERE counted) USING (experiment_id)
    WHERE energy_per_output_token_j > 0
    GROUP BY ALL)
SELECT power_limit_w, clocks_mhz, round(mean_j, 6) AS mean_j, round(mean_j - q95 * deviation_j, 6) AS low_j, round(mean_j + q95 * deviation_j, 6) AS high_j,
       round(100 * tokens_per_second / max(tokens_per_second) OVER of_study, 2) AS speed_pct, runs, round(tokens_per_second, 2) AS tokens_per_second,
       round(kwh_per_million, 6) AS kwh_per_million, model_name, study_id
FROM set LEFT JOIN student_t ON df = runs - 1
WHERE power_limit_w IS NOT NULL OR clocks_mhz IS NOT NULL
WINDOW of_study AS (PARTITION BY study_id)
ORDER BY study_id DESC, set.mean_j;
