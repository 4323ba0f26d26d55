-- The twenty slowest requests, with the median of their experiment.
SELECT experiment_id, request_id, e2e_ms, median(e2e_ms) OVER (PARTITION BY experiment_id) AS median_e2e_ms,
       ttft_ms, input_tokens, output_tokens, batch_size, finish_reason, process_index
FROM timed_requests
WHERE window_kind = 'measurement'
ORDER BY e2e_ms DESC
LIMIT 20;
