-- What power sensors see, as calibrated: the newest of each device, driver and sensor.
SELECT device_name, device_uuid, driver, sensor, averages,
       round(power_refresh_sec * 1000, 1) AS refresh_ms, round(averaging_window_sec * 1000, 1) AS window_ms, round(delay_sec * 1000, 1) AS delay_ms,
       round(seen_share, 3) AS seen_share, round(energy_refresh_sec * 1000, 1) AS counter_tick_ms, round(counter_over_power, 4) AS counter_over_power,
       round(idle_w, 1) AS idle_w, calibrated_time, experiment_id
FROM calibrations WHERE reason IS NULL
QUALIFY row_number() OVER (PARTITION BY host, device_uuid, driver, sensor ORDER BY calibrated_ns DESC) = 1
ORDER BY device_name, device_uuid, driver, sensor DESC
