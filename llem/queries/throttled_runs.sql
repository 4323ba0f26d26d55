-- Experiments in which a device slowed itself down, and for how much of the time.
SELECT experiment_id, model_name, engine, duration_sec, throttle_sec, 100 * throttle_sec / nullif(duration_sec, 0) AS throttled_pct,
       max_temperature_c, valid, invalid_reasons
FROM experiment_results
WHERE throttle_detected
ORDER BY throttled_pct DESC NULLS LAST, experiment_id;
