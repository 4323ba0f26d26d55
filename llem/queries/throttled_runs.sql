-- Experiments in which a device slowed itself down, for how much of the time, and by which reasons.
SELECT experiment_id, model_name, 100 * throttle_sec / nullif(duration_sec, 0) AS throttled_pct,
       (SELECT throttle_names(bit_or(throttle_reasons) & 236) FROM samples s WHERE s.experiment_id = r.experiment_id) AS throttled_by,
       throttle_sec, duration_sec, max_temperature_c, engine, valid, invalid_reasons
FROM experiment_results r
WHERE throttle_detected
ORDER BY throttled_pct DESC NULLS LAST, experiment_id;
