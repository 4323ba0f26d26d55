-- Energy per token by model and batch size, with the lowest and highest of its experiments.
SELECT model_name, batch_size, energy_source,
       sum(total_energy_j) FILTER (output_tokens IS NOT NULL) / nullif(sum(output_tokens), 0) AS energy_per_output_token_j,
       count(*) AS experiments, count(*) FILTER (valid) AS valid_experiments,
       sum(total_energy_j) / sum(total_tokens) AS energy_per_token_j,
       min(energy_per_output_token_j) AS lowest_j, max(energy_per_output_token_j) AS highest_j, weights, engine, dtype
FROM experiment_results
WHERE total_energy_j IS NOT NULL AND total_tokens > 0
GROUP BY ALL
ORDER BY model_name, batch_size, energy_source;
