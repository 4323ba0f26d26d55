-- Regions of wrapped programs by name: how often, how long, their energy and what a token costs in them.
SELECT experiment_id, name, regions, measured, total_sec, energy_j, measured_energy_j, mean_power_w, tokens, energy_per_token_j, energy_source, reason
FROM regions
ORDER BY experiment_id, total_sec DESC, name;
