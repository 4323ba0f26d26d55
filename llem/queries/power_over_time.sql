-- Mean power of every device in each second of the newest experiment.
SELECT experiment_id, host, device_uuid, second, power_w
FROM power_over_time
WHERE experiment_id = (SELECT arg_max(experiment_id, start_ns) FROM experiment_results)
ORDER BY host, device_uuid, second;
