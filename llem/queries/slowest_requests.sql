-- The twenty slowest requests, with the median of their experiment.
SELECT experiment_id, process_index, request_id, batch_size, input_tokens, output_tokens, ttft_ms, e2e_ms,
       median(e2e_ms) OVER (PARTITION BY experiment_id) AS median_e2e_ms, finish_reason
FROM timed_requests
WHERE window_kind = 'measurement'
ORDER BY e2e_ms DESC
LIMIT 20;
