-- Regions of wrapped programs by name: their energy, what a token costs in them, how often and how long; rounded, the view `regions` has all digits.
SELECT experiment_id, name, round(energy_j, 3) AS energy_j, round(energy_per_token_j, 6) AS energy_per_token_j, tokens, regions, measured,
       round(total_sec, 3) AS total_sec, round(mean_power_w, 2) AS mean_power_w, energy_source, reason, round(measured_energy_j, 3) AS measured_energy_j
FROM regions
ORDER BY experiment_id, regions.total_sec DESC, name;
