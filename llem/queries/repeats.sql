-- Repeats of one configuration, with mean, standard deviation and relative spread of energy and throughput.
SELECT any_value(model_name) AS model_name, any_value(batch_size) AS batch_size, count(*) AS repeats,
       avg(energy_per_output_token_j) AS mean_j, stddev_samp(energy_per_output_token_j) AS std_j,
       100 * stddev_samp(energy_per_output_token_j) / nullif(avg(energy_per_output_token_j), 0) AS spread_pct,
       avg(tokens_per_second) AS mean_tokens_per_second, stddev_samp(tokens_per_second) AS std_tokens_per_second,
       any_value(engine) AS engine, list(experiment_id ORDER BY experiment_id) AS experiments,
       coalesce(cell_hash, measurement_config_hash) AS configuration
FROM experiment_results
WHERE total_tokens > 0
GROUP BY configuration
ORDER BY repeats DESC, model_name, batch_size;
