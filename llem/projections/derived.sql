-- What the log means: derived from the tables of the log (log.sql), and again when a formula or a column changes. The tables of results are made
-- of the list of figures, llem/results/figures.py.

CREATE TABLE experiments ( -- one row per experiment
    experiment_id VARCHAR, -- unique id, sorts by time
    name VARCHAR, -- name in the plan; NULL where it has none
    status VARCHAR, -- running, completed, interrupted, incomplete, failed, damaged or newer (of a later llem)
    problem VARCHAR, -- why it is damaged, newer, interrupted or failed; NULL where it is not
    salvaged BOOLEAN, -- whether damaged parts of its log were left out
    expected_processes BIGINT, -- workers in the plan; NULL where the supervisor's segment is missing
    labels MAP(VARCHAR, VARCHAR), -- labels in the plan, as llem label has changed them since
    plan JSON, -- the plan as resolved; NULL where the supervisor's segment is missing
    command VARCHAR[], -- wrapped program; NULL for a built-in engine
    measurement_config_hash VARCHAR, -- digest of everything in the plan that can change a figure
    llem_version VARCHAR, -- program that measured
    started_ns BIGINT, -- [ns since 1970, UTC] when the supervisor started
    started_time TIMESTAMP -- the same, to the microsecond
);

CREATE TABLE hosts ( -- one row per rank of a launcher: every `llem measure` that took part
    experiment_id VARCHAR, -- experiment
    rank INTEGER, -- of `ranks`, from 0, which opens and closes the experiment
    ranks INTEGER, -- how many the launcher started
    host VARCHAR, -- machine that it ran on
    launcher VARCHAR, -- whose variables told the rank: llem, torchrun, openmpi, pmi, slurm or kubernetes
    local_rank INTEGER, -- among the ranks of its machine; NULL where the launcher does not say it
    local_size INTEGER, -- ranks of its machine; NULL where the launcher does not say it
    node_rank INTEGER, -- number of its machine; NULL where the launcher does not say it
    restarts INTEGER, -- how often the launcher had started all ranks anew
    clock_offset_ns BIGINT, -- [ns] its wall clock minus that of rank 0 before the measurement; NULL where they were not compared, as of rank 0
    clock_offset_after_ns BIGINT, -- [ns] the same after it
    monotonic_offset_ns BIGINT, -- [ns] its monotonic clock minus that of rank 0 before the measurement
    monotonic_offset_after_ns BIGINT, -- [ns] the same after it
    clock_error_ns BIGINT, -- [ns] the truth is so close to the offsets before
    clock_error_after_ns BIGINT, -- [ns] and so close to those after
    placement_error_ns BIGINT -- [ns] bound of where its host's windows are placed on rank 0's clock, drift included; 0 of rank 0's host
);

CREATE TABLE processes ( -- one row per worker of an experiment
    experiment_id VARCHAR, -- experiment
    process_index INTEGER, -- worker, from 0
    segment_id VARCHAR, -- its segment
    host VARCHAR, -- machine that it ran on
    group_id VARCHAR, -- processes that run one copy of the model together; NULL where each has its own
    group_rank INTEGER, -- within the group; tokens and requests are those of rank 0; NULL without a group
    pid BIGINT, -- its process id
    status VARCHAR, -- completed, interrupted, incomplete or failed
    problem VARCHAR, -- why it failed; NULL where it did not
    engine VARCHAR, -- what ran the model
    model_name VARCHAR, -- model; NULL where it was never loaded
    weights VARCHAR, -- pretrained, random or simulated
    dtype VARCHAR, -- type of the weights
    device VARCHAR, -- device that the engine used
    attention VARCHAR, -- implementation of attention that the model used; NULL where unknown
    cache VARCHAR, -- what generate kept between steps; none where every step computes all tokens again
    compiled BOOLEAN, -- whether generate compiled the model; NULL where unknown
    quantization VARCHAR, -- method; none for weights in a plain type, NULL where unknown
    adapter VARCHAR, -- adapter on the model; NULL without one
    generation JSON, -- what generate was told otherwise than by default: by the model's own configuration, then the plan
    unknown MAP(VARCHAR, VARCHAR), -- facts of the model that could not be read, each with the reason
    parameters BIGINT, -- all parameters of the model; NULL where unknown
    load_sec DOUBLE, -- [s] time to load the model
    warmup_batches BIGINT, -- batches run before the measurement; NULL without a warm-up
    warmup_converged BOOLEAN, -- whether latency settled
    prompt_set_sha256 VARCHAR, -- digest of the token ids given to the engine
    meter VARCHAR, -- what read its power; NULL where no sampler started
    sample_hz DOUBLE, -- [1/s] planned samples per second
    samples_dropped BIGINT, -- samples lost before the disk; NULL where the sampler did not end in order
    deadlines_missed BIGINT, -- samples taken late or not at all
    versions MAP(VARCHAR, VARCHAR), -- packages that ran the model
    environment JSON -- snapshot of hardware, driver and settings
);

CREATE TABLE devices ( -- one row per device of each worker
    experiment_id VARCHAR, -- experiment
    process_index INTEGER, -- worker
    host VARCHAR, -- machine that it is in
    device_uuid VARCHAR, -- with host, the device's identity
    device_index BIGINT, -- the driver's order on that host
    device_name VARCHAR, -- product name
    kind VARCHAR, -- gpu, mig, cpu_package, dram, process, simulated, or wall: a whole machine at its plug
    mig_profile VARCHAR, -- NULL where it is no MIG instance
    parent_uuid VARCHAR, -- GPU whose power a MIG instance's figure really is
    pci_id VARCHAR, -- place on the bus
    memory_bytes BIGINT, -- [B] memory on the device
    power_limit_w DOUBLE, -- [W] limit when the meter started
    meter VARCHAR, -- what read it; NULL where no sampler started
    energy_source VARCHAR, -- counter, integrated, estimated or simulated; NULL where it cannot be read
    power_kind VARCHAR, -- instant, average or derived
    counter_tick_sec DOUBLE, -- [s] measured time between changes of the energy counter: when the meter started, or as calibrated
    baseline_power_w DOUBLE, -- [W] mean idle power before loading; NULL where not measured
    baseline_std_w DOUBLE, -- [W] its standard deviation
    baseline_age_sec DOUBLE, -- [s] age of a reused baseline, else 0
    baseline_after_w DOUBLE, -- [W] mean idle power after the measurement
    calibrated_by VARCHAR, -- experiment that calibrated its power sensor, which the figures rely on; NULL: documented values stand
    calibration_age_sec DOUBLE, -- [s] how long before this experiment
    counter_over_power DOUBLE, -- [1] energy counter over integrated power at constant load, as calibrated
    missing MAP(VARCHAR, VARCHAR) -- sample column -> why it is not measured
);

CREATE TABLE calibrations ( -- one row per power sensor of each device of an experiment by `llem calibrate`
    experiment_id VARCHAR, -- experiment
    host VARCHAR, -- machine that it is in
    device_uuid VARCHAR, -- with host, the device's identity
    device_name VARCHAR, -- product name
    driver VARCHAR, -- version of the driver; NULL without one
    sensor VARCHAR, -- column of samples that was calibrated: power_w or power_average_w
    calibrated_ns BIGINT, -- [ns since 1970, UTC] when
    calibrated_time TIMESTAMP, -- the same, to the microsecond
    reason VARCHAR, -- why nothing of it is relied on; NULL where it is
    averages VARCHAR, -- what a reading is: boxcar (mean over a window), none (power of a moment, as far as can be told) or other (no such mean)
    explained DOUBLE, -- [1] share of the readings' variance that the load explains
    power_refresh_sec DOUBLE, -- [s] time between two readings of the sensor; NULL with a reason in `reasons`
    power_refresh_sec_low DOUBLE, -- [s] the same, low end of its 95 % interval; NULL where unknown
    power_refresh_sec_high DOUBLE, -- [s] the same, high end of its 95 % interval; NULL where unknown
    energy_refresh_sec DOUBLE, -- [s] time between two changes of the energy counter; NULL with a reason in `reasons`
    energy_refresh_sec_low DOUBLE, -- [s] the same, low end of its 95 % interval; NULL where unknown
    energy_refresh_sec_high DOUBLE, -- [s] the same, high end of its 95 % interval; NULL where unknown
    averaging_window_sec DOUBLE, -- [s] over which a reading averages; NULL with a reason in `reasons`
    averaging_window_sec_low DOUBLE, -- [s] the same, low end of its 95 % interval; NULL where unknown
    averaging_window_sec_high DOUBLE, -- [s] the same, high end of its 95 % interval; NULL where unknown
    delay_sec DOUBLE, -- [s] of the averaging window's end behind the reading; NULL with a reason in `reasons`
    delay_sec_low DOUBLE, -- [s] the same, low end of its 95 % interval; NULL where unknown
    delay_sec_high DOUBLE, -- [s] the same, high end of its 95 % interval; NULL where unknown
    seen_share DOUBLE, -- [1] of the time, what the sensor sees; NULL with a reason in `reasons`
    seen_share_low DOUBLE, -- [1] the same, low end of its 95 % interval; NULL where unknown
    seen_share_high DOUBLE, -- [1] the same, high end of its 95 % interval; NULL where unknown
    counter_over_power DOUBLE, -- [1] energy counter over integrated power at constant load; NULL with a reason in `reasons`
    counter_over_power_low DOUBLE, -- [1] the same, low end of its 95 % interval; NULL where unknown
    counter_over_power_high DOUBLE, -- [1] the same, high end of its 95 % interval; NULL where unknown
    idle_w DOUBLE, -- [W] idle power; NULL with a reason in `reasons`
    idle_w_low DOUBLE, -- [W] the same, low end of its 95 % interval; NULL where unknown
    idle_w_high DOUBLE, -- [W] the same, high end of its 95 % interval; NULL where unknown
    idle_spread_w DOUBLE, -- [W] standard deviation of the idle power; NULL with a reason in `reasons`
    idle_spread_w_low DOUBLE, -- [W] the same, low end of its 95 % interval; NULL where unknown
    idle_spread_w_high DOUBLE, -- [W] the same, high end of its 95 % interval; NULL where unknown
    load_w DOUBLE, -- [W] power at full load; NULL with a reason in `reasons`
    load_w_low DOUBLE, -- [W] the same, low end of its 95 % interval; NULL where unknown
    load_w_high DOUBLE, -- [W] the same, high end of its 95 % interval; NULL where unknown
    settling_sec DOUBLE, -- [s] of constant load, until the temperature stands still; NULL with a reason in `reasons`
    settling_sec_low DOUBLE, -- [s] the same, low end of its 95 % interval; NULL where unknown
    settling_sec_high DOUBLE, -- [s] the same, high end of its 95 % interval; NULL where unknown
    reasons MAP(VARCHAR, VARCHAR) -- column -> why it is NULL
);

CREATE TABLE windows ( -- one row per window and device
    experiment_id VARCHAR, -- experiment
    process_index INTEGER, -- worker
    kind VARCHAR, -- baseline, warmup, measurement, guard (idle after it), region of a wrapped program, or drain: what was in flight at the end of a server's measurement
    window_index BIGINT, -- counts the windows of a kind within a worker
    opened_ns BIGINT, -- [ns, monotonic] when it opened
    closed_ns BIGINT, -- [ns, monotonic] when it closed, or the last thing known of a worker that was killed
    closed BOOLEAN, -- whether its end was recorded
    start_time TIMESTAMP, -- when it opened, UTC
    end_time TIMESTAMP, -- when it closed, UTC
    duration_sec DOUBLE, -- [s] length
    device_uuid VARCHAR, -- device; NULL where the worker has none
    energy_j DOUBLE, -- [J] energy of the device in the window; NULL where not measured
    energy_source VARCHAR, -- counter, integrated, estimated or simulated
    counter_energy_j DOUBLE, -- [J] energy counter at close minus at open; NULL without a counter
    integrated_energy_j DOUBLE, -- [J] power integrated as `integration` says; NULL without two samples
    integration VARCHAR, -- trapezoid; or telescoped, from averages that end in idle: closer to the truth
    trapezoid_energy_j DOUBLE, -- [J] the same by trapezoids, whatever integrated_energy_j is by
    energy_disagreement DOUBLE, -- [1] distance of the two as a fraction of the larger; NULL where both are views of one estimate
    energy_uncertainty_j DOUBLE, -- [J] the truth lies within this of energy_j, as far as the sensor sees it; NULL where unknown
    mean_power_w DOUBLE, -- [W] energy over duration
    samples BIGINT, -- samples of the device in the window
    reason VARCHAR, -- why energy_j is NULL
    name VARCHAR, -- of a region, as the program calls it; NULL for other windows
    parent_index BIGINT, -- window_index of the region around it; NULL where there is none
    program_process VARCHAR, -- process of the program that it ran in: its id and when it started; NULL for other windows
    tokens BIGINT, -- tokens that the program reported in the region; NULL where it reported none
    requests BIGINT -- requests that the program reported in the region; NULL where it reported none
);

CREATE TABLE batches ( -- one row per batch of the measurement, with the energy of its worker's devices while it ran
    experiment_id VARCHAR, -- experiment
    process_index INTEGER, -- worker
    batch_index BIGINT, -- counts the batches of a worker
    requests BIGINT, -- requests in it
    input_tokens BIGINT, -- tokens of its prompts
    output_tokens BIGINT, -- tokens that it generated
    start_ns BIGINT, -- [ns, monotonic] when work on it began
    first_token_ns BIGINT, -- [ns, monotonic] end of its prefill; NULL where no token came
    end_ns BIGINT, -- [ns, monotonic] when it was done
    energy_j DOUBLE, -- [J] from start to end; NULL where it is too short for the sensors
    prefill_energy_j DOUBLE, -- [J] from start to first token; NULL where that is too short for the sensors
    decode_energy_j DOUBLE, -- [J] from first token to end; NULL where that is too short for the sensors
    energy_source VARCHAR, -- counter, integrated, estimated or simulated; mixed where devices differ
    prefill_source VARCHAR, -- the same of prefill_energy_j; where all three are counter, or all integrated, the phases add up to the whole
    decode_source VARCHAR, -- the same of decode_energy_j
    resolution_sec DOUBLE, -- [s] how well an edge can be seen; a phase of less than five of these is NULL
    reason VARCHAR, -- why energy_j is NULL
    prefill_reason VARCHAR, -- why prefill_energy_j is NULL
    decode_reason VARCHAR -- why decode_energy_j is NULL
);

CREATE TABLE request_shares ( -- one row per request of a server: requests run at the same time there, and share its energy by what each got
    experiment_id VARCHAR, -- experiment
    process_index INTEGER, -- worker
    request_id BIGINT, -- unique within the experiment's measurement
    energy_attributed_j DOUBLE, -- [J] its part, over time, of the measurement's energy while it was in flight; these and idle_energy_j add up to the whole
    reason VARCHAR -- why this is not all that it used: what it got in the drain, after the measurement, is no part of it; NULL where it is all
);

CREATE TABLE warnings ( -- doubts about an experiment's figures
    experiment_id VARCHAR, -- experiment
    code VARCHAR, -- for programs
    text VARCHAR, -- for people
    process_index INTEGER, -- worker; NULL for the whole experiment
    value DOUBLE, -- what was found; NULL where it is no number
    threshold DOUBLE, -- what was expected; NULL where there is none
    device_uuid VARCHAR -- device; NULL where it is about none
);

CREATE VIEW energy_per_token AS -- energy per token by model and batch, valid and invalid results alike
-- experiments: experiments that the figures are of
-- valid_experiments: of these, valid
SELECT model_name, batch_size, energy_source,
       sum(total_energy_j) FILTER (output_tokens IS NOT NULL) / nullif(sum(output_tokens), 0) AS energy_per_output_token_j,
       sum(total_energy_j) / nullif(sum(total_tokens), 0) AS avg_energy_per_token_j,
       count(*) AS experiments, count(*) FILTER (valid) AS valid_experiments, weights, engine, dtype
FROM experiment_results WHERE total_energy_j IS NOT NULL AND total_tokens IS NOT NULL GROUP BY ALL;

CREATE VIEW regions AS -- regions of wrapped programs by name: how often and how long, their energy on all devices of the run, and their work
-- regions: how often it ran
-- measured: of these, with an energy; others are too short for the sensors, or samples are missing
-- total_sec: [s] time in it; parts that ran at once count more than once
-- energy_j: [J] energy of all; NULL where any was not measured. What else ran at the time is in it
-- measured_sec: [s] time in those that have an energy
-- measured_energy_j: [J] energy of those
-- mean_power_w: [W] the one over the other
-- energy_per_token_j: [J] energy over tokens of those that have both
-- energy_source: counter, integrated, estimated or simulated; mixed where they differ
-- reason: why an energy is missing; NULL where none is
WITH devices_once AS (
    SELECT d.* FROM devices d JOIN processes p USING (experiment_id, process_index) WHERE d.meter IS NOT DISTINCT FROM p.meter
    QUALIFY row_number() OVER (PARTITION BY experiment_id, process_index, d.host, coalesce(parent_uuid, device_uuid) ORDER BY device_index) = 1),
each_region AS (
    SELECT experiment_id, process_index, name, window_index, any_value(w.duration_sec) AS sec, any_value(w.tokens) AS tokens, any_value(w.requests) AS requests,
           CASE WHEN count(w.energy_j) = count(*) THEN sum(w.energy_j) END AS energy_j, min(w.reason) AS reason,
           CASE WHEN count(DISTINCT w.energy_source) > 1 THEN 'mixed' ELSE any_value(w.energy_source) END AS energy_source
    FROM windows w LEFT JOIN devices_once d USING (experiment_id, process_index, device_uuid)
    WHERE w.kind = 'region' AND (d.device_uuid IS NOT NULL OR w.device_uuid IS NULL) GROUP BY ALL)
SELECT experiment_id, process_index, name, count(*) AS regions, count(energy_j) AS measured, sum(sec) AS total_sec,
       CASE WHEN count(energy_j) = count(*) THEN sum(energy_j) END AS energy_j, sum(sec) FILTER (energy_j IS NOT NULL) AS measured_sec,
       sum(energy_j) AS measured_energy_j, sum(energy_j) / nullif(sum(sec) FILTER (energy_j IS NOT NULL), 0) AS mean_power_w,
       sum(tokens)::BIGINT AS tokens, sum(requests)::BIGINT AS requests,
       sum(energy_j) FILTER (tokens IS NOT NULL) / nullif(sum(tokens) FILTER (energy_j IS NOT NULL), 0) AS energy_per_token_j,
       CASE WHEN count(DISTINCT energy_source) > 1 THEN 'mixed' ELSE any_value(energy_source) END AS energy_source, min(reason) AS reason
FROM each_region GROUP BY experiment_id, process_index, name;

-- The experiment of this id in these tables, or an error, so that a typo is not an empty answer.
CREATE MACRO known_experiment(wanted) AS (
    SELECT CASE WHEN count(*) > 0 THEN wanted
                ELSE error('no experiment ' || wanted || ' in these tables: expected an experiment_id, whole, as llem runs shows it') END
    FROM experiments WHERE experiment_id = wanted);

-- NVML's clocks-event reasons by name.
CREATE MACRO throttle_names(mask) AS CASE WHEN mask IS NOT NULL THEN list_filter([
    CASE WHEN mask & 1 > 0 THEN 'idle' END, CASE WHEN mask & 2 > 0 THEN 'clocks set by applications' END,
    CASE WHEN mask & 4 > 0 THEN 'software power cap' END, CASE WHEN mask & 8 > 0 THEN 'hardware slowdown' END,
    CASE WHEN mask & 16 > 0 THEN 'sync boost' END, CASE WHEN mask & 32 > 0 THEN 'software thermal slowdown' END,
    CASE WHEN mask & 64 > 0 THEN 'hardware thermal slowdown' END, CASE WHEN mask & 128 > 0 THEN 'hardware power brake' END,
    CASE WHEN mask & 256 > 0 THEN 'display clocks' END], lambda name: name IS NOT NULL) END;

CREATE VIEW samples_1s AS -- samples of each device in one second: enough to ask hours of many devices
-- at_ns: [ns, monotonic] when the second began
-- samples: samples in it
-- mean_power_w: [W] mean of those that read power, averaged power where that is all there is; NULL where none did
-- min_power_w: [W] the least of these
-- max_power_w: [W] the greatest of these
-- energy_j: [J] the highest reading of the energy counter, which only grows; NULL without a counter
-- max_temperature_c: [C] the highest temperature
-- throttle_reasons: NVML's clocks-event-reasons bit mask, every bit that was set; throttle_names() tells them
WITH seconds AS (
    SELECT experiment_id, process_index, segment_id, device_uuid, meter, at_ns // 1000000000 AS second, count(*) AS samples,
           -- whole milliwatts, whose sum does not depend on the order
           sum(CAST(round(1000 * coalesce(power_w, power_average_w)) AS HUGEINT)) AS power_mw, count(coalesce(power_w, power_average_w)) AS powers,
           min(coalesce(power_w, power_average_w)) AS min_power_w, max(coalesce(power_w, power_average_w)) AS max_power_w,
           max(energy_j) AS energy_j, max(temperature_c) AS max_temperature_c, bit_or(throttle_reasons) AS throttle_reasons
    FROM samples GROUP BY ALL)
SELECT experiment_id, process_index, segment_id, device_uuid, meter, second * 1000000000 AS at_ns, samples,
       power_mw::DOUBLE / powers / 1000 AS mean_power_w, min_power_w, max_power_w, energy_j, max_temperature_c, throttle_reasons
FROM seconds;

CREATE VIEW timed_samples AS -- samples with the wall clock and seconds from the experiment's start
-- at_time: when, UTC
-- at_sec: [s] from the start of the experiment's measurement
-- throttled_by: the names of throttle_reasons; NULL where the driver does not tell
SELECT s.*, throttle_names(s.throttle_reasons) AS throttled_by, g.host, make_timestamp((s.at_ns + g.clock_offset_ns) // 1000) AS at_time,
       (s.at_ns + g.clock_offset_ns - e.start_ns) / 1e9 AS at_sec
FROM samples s JOIN segments g USING (experiment_id, segment_id) JOIN experiment_results e USING (experiment_id);

CREATE VIEW timed_requests AS -- requests with the wall clock, seconds from the experiment's start, and latencies
-- arrival_time: when it was handed over, UTC
-- arrival_sec: [s] the same from the start of the experiment's measurement
-- end_sec: [s] when it was done, from the start of the experiment's measurement
-- ttft_ms: [ms] from arrival to the first token
-- e2e_ms: [ms] from arrival to its end
SELECT r.*, g.host, make_timestamp((r.arrival_ns + g.clock_offset_ns) // 1000) AS arrival_time,
       (r.arrival_ns + g.clock_offset_ns - e.start_ns) / 1e9 AS arrival_sec,
       (r.end_ns + g.clock_offset_ns - e.start_ns) / 1e9 AS end_sec,
       (r.first_token_ns - r.arrival_ns) / 1e6 AS ttft_ms, (r.end_ns - r.arrival_ns) / 1e6 AS e2e_ms
FROM requests r JOIN segments g USING (experiment_id, segment_id) JOIN experiment_results e USING (experiment_id);

CREATE VIEW request_energies AS -- energy of each request: its batch's, allocated by tokens, or its share of a server's; no sensor tells requests apart
-- energy_allocated_j: [J] its share of the batch's energy, by tokens; of a server, energy_attributed_j where that is all that it used
-- reason: why energy_allocated_j is NULL
SELECT r.experiment_id, r.request_id,
       b.energy_j * (r.input_tokens + r.output_tokens) / nullif(b.input_tokens + b.output_tokens, 0) AS energy_allocated_j,
       b.energy_source, b.reason, r.input_tokens, r.output_tokens, r.process_index, r.batch_index
FROM requests r JOIN batches b USING (experiment_id, process_index, batch_index) WHERE r.window_kind = 'measurement'
UNION ALL BY NAME
SELECT r.experiment_id, r.request_id, CASE WHEN s.reason IS NULL THEN s.energy_attributed_j END AS energy_allocated_j, e.energy_source, s.reason,
       r.input_tokens, r.output_tokens, r.process_index, r.batch_index
FROM requests r JOIN request_shares s USING (experiment_id, process_index, request_id) JOIN experiment_results e USING (experiment_id)
WHERE r.window_kind = 'measurement';

CREATE VIEW server_metrics AS -- what a server says of itself, about once a second
-- name: of the metric, without its labels
-- value: what it was; NULL where it was not told then
-- labels: as the server writes them; NULL where it has none
-- at_ns: [ns, monotonic] when it was read
WITH told AS (
    SELECT experiment_id, process_index, unnest(TRY_CAST(body -> 'names' AS VARCHAR[])) AS metric, TRY_CAST(body -> 'times_ns' AS BIGINT[]) AS times_ns,
           unnest(TRY_CAST(body -> 'values' AS DOUBLE[][])) AS column_values
    FROM events WHERE type = 'server_metrics_read')
SELECT experiment_id, split_part(metric, '{', 1) AS name, unnest(column_values) AS value,
       nullif(regexp_extract(metric, '\{(.*)\}', 1), '') AS labels, unnest(times_ns) AS at_ns, process_index
FROM told;

CREATE VIEW study_runs AS -- runs of studies: one row per experiment that a study measured
-- study_id: the study
-- cell_index: configuration, from 0
-- cell: key of the plan and what the configuration sets it to, as in experiment_results
-- block: repetition, from 0; runs of one block are compared in pairs
-- position: place within the block
-- attempt: from 0
-- cell_hash: digest of the configuration without the seeds that repeats differ in
-- counted: whether it is the run that counts for its place: the first that succeeded since its block was last begun
-- reason: why it does not count; NULL where it does
WITH ends AS (
    SELECT experiment_id, any_value(body ->> 'failure') AS failure FROM events WHERE type = 'experiment_completed' GROUP BY experiment_id),
runs AS (
    SELECT body -> 'study' ->> 'study_id' AS study_id, v.experiment_id, TRY_CAST(body -> 'study' ->> 'cell_index' AS INTEGER) AS cell_index,
           TRY_CAST(body -> 'study' -> 'cell' AS MAP(VARCHAR, VARCHAR)) AS cell, TRY_CAST(body -> 'study' ->> 'block' AS INTEGER) AS block, TRY_CAST(body -> 'study' ->> 'position' AS INTEGER) AS position,
           coalesce(TRY_CAST(body -> 'study' ->> 'attempt' AS INTEGER), 0) AS attempt, body ->> 'cell_hash' AS cell_hash, e.status,
           coalesce(TRY_CAST(body -> 'study' ->> 'block_restarts' AS INTEGER), 0) AS restarts,
           CASE WHEN e.status <> 'completed' THEN coalesce(e.problem, e.status) ELSE failure END AS failure
    FROM events v JOIN experiments e USING (experiment_id) LEFT JOIN ends USING (experiment_id)
    WHERE v.type = 'experiment_started' AND (body -> 'study' ->> 'study_id') IS NOT NULL),
placed AS (
    SELECT *, restarts = max(restarts) OVER (PARTITION BY study_id, block) AS is_latest,
           row_number() OVER (PARTITION BY study_id, block, cell_index, restarts ORDER BY failure IS NOT NULL, attempt, experiment_id) AS place
    FROM runs)
SELECT * EXCLUDE (restarts, failure, is_latest, place), failure IS NULL AND is_latest AND place = 1 AS counted,
       CASE WHEN NOT is_latest THEN 'superseded: its block was begun anew' WHEN failure IS NOT NULL THEN failure
            WHEN place > 1 THEN 'another run counts for its place' END AS reason
FROM placed;

CREATE VIEW studies AS -- studies of which a run was begun; llem studies lists all
-- study_id: the study
-- name: in its plan; NULL where it has none
-- cells: configurations
-- blocks: repetitions, as last planned
-- runs: experiments, those that do not count too
-- counted_runs: of these, those that count
-- runs_left: places of the schedule without a run that counts
-- started_time: when its first run was started, UTC
SELECT study_id, any_value(body -> 'study' ->> 'name') AS name, max(TRY_CAST(body -> 'study' ->> 'cells' AS INTEGER)) AS cells,
       max(TRY_CAST(body -> 'study' ->> 'blocks' AS INTEGER)) AS blocks, count(*) AS runs, count(*) FILTER (counted) AS counted_runs,
       cells * blocks - counted_runs AS runs_left, min(e.started_time) AS started_time
FROM study_runs s JOIN events v USING (experiment_id) JOIN experiments e USING (experiment_id)
WHERE v.type = 'experiment_started' GROUP BY study_id;

CREATE VIEW power_over_time AS -- mean power of each device and second
-- second: [s] from the start of the experiment's measurement
SELECT experiment_id, host, device_uuid, CAST(floor(at_sec) AS BIGINT) AS second, avg(power_w) AS power_w
FROM timed_samples GROUP BY ALL;

CREATE VIEW factors AS -- what footprint() reckons with, as stated in factors.toml; empty where none was given
-- factor: pue, g_per_kwh, price_per_kwh, l_per_kwh or embodied_g_per_h
-- value: in its unit; NULL where it depends on the time
-- low: the least that it may be instead; NULL where that was not stated
-- high: the most that it may be instead; NULL where that was not stated
-- unit: of the three
-- basis: what the figure is of: basis, method, zone and period of a grid, scope of a site
-- source: who says so
-- date: of the source
SELECT NULL::VARCHAR AS factor, NULL::DOUBLE AS value, NULL::DOUBLE AS low, NULL::DOUBLE AS high, NULL::VARCHAR AS unit,
       NULL::VARCHAR AS basis, NULL::VARCHAR AS source, NULL::VARCHAR AS date
WHERE false;

CREATE VIEW hourly_factors AS -- carbon of a grid by time, as stated with [[grid.hourly]]; empty where none was given
-- from_ns: [ns since 1970, UTC] from when on
-- to_ns: [ns since 1970, UTC] until when
-- g_per_kwh: [g/kWh] in that time
-- low: [g/kWh] the least that it may be instead; NULL where that was not stated
-- high: [g/kWh] the most that it may be instead; NULL where that was not stated
SELECT NULL::BIGINT AS from_ns, NULL::BIGINT AS to_ns, NULL::DOUBLE AS g_per_kwh, NULL::DOUBLE AS low, NULL::DOUBLE AS high
WHERE false;

CREATE VIEW throttled_experiments AS -- experiments in which a device slowed itself down
SELECT experiment_id, model_name, throttle_sec, max_temperature_c, valid FROM experiment_results WHERE throttle_detected;

-- Power of each device as intervals, each from one sample to the next, and what its energy counter gained in it: to be intersected with other intervals.
-- A device that several workers sampled is there once for each of them.
CREATE MACRO power_intervals(experiment) AS TABLE
WITH sampled AS (
    SELECT host, device_uuid, process_index, at_sec, lead(at_sec) OVER course AS next_sec,
           coalesce(power_w, power_average_w) AS power_w, lead(coalesce(power_w, power_average_w)) OVER course AS next_w,
           (lead(round(1000 * energy_j)) OVER course - round(1000 * energy_j)) / 1000 AS counter_j
    FROM timed_samples WHERE experiment_id = known_experiment(experiment) AND coalesce(power_w, power_average_w) IS NOT NULL
    WINDOW course AS (PARTITION BY host, device_uuid, process_index ORDER BY at_sec))
FROM sampled WHERE next_sec > at_sec;

-- Energy of each device between two moments in seconds from the experiment's start: trapezoids, edges interpolated, a device seen
-- by several workers once. `covered_sec` is how much of the span lies between samples.
CREATE MACRO energy_between(experiment, from_sec, to_sec) AS TABLE
WITH clipped AS (
    SELECT *, greatest(at_sec, from_sec) AS from_at, least(next_sec, to_sec) AS to_at, (next_w - power_w) / (next_sec - at_sec) AS slope,
           counter_j / (next_sec - at_sec) AS counter_w
    FROM power_intervals(experiment) WHERE next_sec > greatest(at_sec, from_sec) AND at_sec < to_sec),
by_worker AS (
    SELECT host, device_uuid, process_index, sum(to_at - from_at) AS covered_sec,
           sum((to_at - from_at) * (power_w + slope * ((from_at + to_at) / 2 - at_sec))) AS integrated_energy_j,
           CASE WHEN count(counter_w) = count(*) THEN sum(counter_w * (to_at - from_at)) END AS counter_energy_j
    FROM clipped GROUP BY ALL)
SELECT host, device_uuid, max(covered_sec) AS covered_sec, max_by(integrated_energy_j, covered_sec) AS integrated_energy_j,
       max_by(counter_energy_j, covered_sec) AS counter_energy_j
FROM by_worker GROUP BY host, device_uuid ORDER BY ALL;

-- Where the energy of energy_between() went: by how many requests were waiting for their first token and how many decoded, of the whole experiment
-- (warm-up too; 0 and 0 is idling). It is the device's energy in that time; no sensor tells one kind of work from another that went on beside it.
CREATE MACRO energy_by_activity(experiment, from_sec, to_sec) AS TABLE
WITH pieces AS (
    SELECT *, least(next_sec, to_sec) - greatest(at_sec, from_sec) AS inside_sec
    FROM power_intervals(experiment) WHERE next_sec > greatest(at_sec, from_sec) AND at_sec < to_sec),
by_worker AS (SELECT host, device_uuid, process_index, sum(inside_sec) AS covered_sec FROM pieces GROUP BY ALL),
watchers AS (SELECT host, device_uuid, max_by(process_index, covered_sec) AS process_index FROM by_worker GROUP BY ALL),
watched AS (SELECT p.* FROM pieces p JOIN watchers w ON p.host = w.host AND p.device_uuid = w.device_uuid AND p.process_index IS NOT DISTINCT FROM w.process_index),
asked AS (
    SELECT arrival_sec + (start_ns - arrival_ns) / 1e9 AS start_sec, arrival_sec + (first_token_ns - arrival_ns) / 1e9 AS first_sec, end_sec
    FROM timed_requests WHERE experiment_id = known_experiment(experiment)),
changes AS (
    SELECT unnest([start_sec, coalesce(first_sec, end_sec)]) AS moment, unnest([1, -1]) AS prefilling, 0 AS decoding FROM asked
    UNION ALL SELECT unnest([first_sec, end_sec]), 0, unnest([1, -1]) FROM asked WHERE first_sec IS NOT NULL),
counts AS (
    SELECT moment, sum(sum(prefilling)) OVER (ORDER BY moment)::BIGINT AS prefilling, sum(sum(decoding)) OVER (ORDER BY moment)::BIGINT AS decoding
    FROM changes GROUP BY moment),
moments AS (
    SELECT host, device_uuid, unnest([greatest(at_sec, from_sec), least(next_sec, to_sec)]) AS moment FROM watched
    UNION SELECT host, device_uuid, moment FROM watchers, counts WHERE moment > from_sec AND moment < to_sec),
parts AS (SELECT *, lead(moment) OVER (PARTITION BY host, device_uuid ORDER BY moment) AS until FROM moments),
placed AS (
    SELECT p.host, p.device_uuid, p.moment, until - p.moment AS sec,
           (until - p.moment) * (w.power_w + (w.next_w - w.power_w) / (w.next_sec - w.at_sec) * ((p.moment + until) / 2 - w.at_sec)) AS energy_j
    FROM parts p ASOF JOIN watched w ON p.host = w.host AND p.device_uuid = w.device_uuid AND p.moment >= w.at_sec
    WHERE until <= w.next_sec)
SELECT host, device_uuid, coalesce(prefilling, 0) AS prefilling, coalesce(decoding, 0) AS decoding, sum(p.sec ORDER BY p.moment) AS covered_sec,
       sum(p.energy_j ORDER BY p.moment) AS integrated_energy_j, integrated_energy_j / nullif(covered_sec, 0) AS mean_power_w
FROM placed p ASOF LEFT JOIN counts c ON p.moment >= c.moment GROUP BY ALL ORDER BY host, device_uuid, prefilling, decoding;

-- When each device slowed itself down, and why: the time from the first sample with the same reasons to the first without.
CREATE MACRO throttled_spans(experiment) AS TABLE
WITH told AS (
    SELECT host, device_uuid, process_index, at_sec, coalesce(power_w, power_average_w) AS watts, sm_clock_mhz,
           list_sort(list_filter(throttled_by, lambda name: name <> 'idle')) AS reasons,
           count(*) OVER (PARTITION BY host, device_uuid, process_index) AS samples
    FROM timed_samples WHERE experiment_id = known_experiment(experiment) AND throttled_by IS NOT NULL),
seen AS (
    SELECT *, lag(reasons) OVER course AS before, lead(at_sec, 1, at_sec) OVER course AS next_sec
    FROM (FROM told QUALIFY process_index IS NOT DISTINCT FROM first_value(process_index) OVER (PARTITION BY host, device_uuid ORDER BY samples DESC, process_index))
    WINDOW course AS (PARTITION BY host, device_uuid ORDER BY at_sec)),
numbered AS (SELECT *, count(*) FILTER (reasons IS DISTINCT FROM before) OVER (PARTITION BY host, device_uuid ORDER BY at_sec) AS number FROM seen)
SELECT host, device_uuid, min(at_sec) AS from_sec, max(next_sec) AS to_sec, any_value(reasons) AS reasons, avg(watts) AS mean_power_w,
       avg(sm_clock_mhz) AS mean_sm_clock_mhz
FROM numbered GROUP BY host, device_uuid, number HAVING len(any_value(reasons)) > 0 ORDER BY host, device_uuid, from_sec;

-- Requests of the measurement that ran at some time between two moments in seconds from the experiment's start; `inside` says whether all of it
-- lies between them, `tokens_inside` how many of its output tokens do.
CREATE MACRO requests_between(experiment, from_sec, to_sec) AS TABLE
SELECT r.*, arrival_sec >= from_sec AND end_sec <= to_sec AS inside,
       len(list_filter(token_times_ns, lambda t: arrival_sec + (t - arrival_ns) / 1e9 >= from_sec AND arrival_sec + (t - arrival_ns) / 1e9 <= to_sec)) AS tokens_inside
FROM timed_requests r
WHERE experiment_id = known_experiment(experiment) AND window_kind = 'measurement' AND end_sec > from_sec AND arrival_sec < to_sec
ORDER BY arrival_sec, request_id;

-- Requests that met every objective, from their due times; one that failed met none, one of a single token has no time per token to miss.
-- An objective that is left out, or NULL, is none. `goodput_per_s` is over the time of the measurement.
CREATE MACRO goodput(ttft_ms := NULL, tpot_ms := NULL, e2e_ms := NULL) AS TABLE
WITH timed AS (
    SELECT experiment_id, finish_reason IN ('length', 'eos') AS is_whole, (first_token_ns - arrival_ns) / 1e6 AS until_first,
           (coalesce(token_times_ns[-1], chunk_times_ns[-1]) - first_token_ns) / 1e6 / nullif(output_tokens - 1, 0) AS per_token,
           (end_ns - arrival_ns) / 1e6 AS until_end, output_tokens AS tokens
    FROM requests WHERE window_kind = 'measurement'),
met AS (
    SELECT *, is_whole AND coalesce(until_first <= ttft_ms, ttft_ms IS NULL) AND coalesce(per_token <= tpot_ms, tpot_ms IS NULL OR tokens = 1)
              AND coalesce(until_end <= e2e_ms, e2e_ms IS NULL) AS is_good
    FROM timed)
SELECT experiment_id, count(*) FILTER (is_good) / any_value(r.duration_sec) AS goodput_per_s, count(*) FILTER (is_good) / count(*) AS attainment,
       any_value(r.total_energy_j) / nullif(count(*) FILTER (is_good), 0) AS energy_per_good_request_j,
       count(*) FILTER (is_good) AS good_requests, count(*) AS all_requests
FROM met JOIN experiment_results r USING (experiment_id) GROUP BY experiment_id ORDER BY experiment_id;

-- What each experiment's energy means for a site, by the factors of factors.toml (docs/footprint.md); an argument is used in the place of a factor.
-- `carbon_g` is of the energy of the whole site, without what making the hardware emitted; by the hour where the grid is known so, weighted by the
-- power of the samples. `reason` says why anything is NULL.
CREATE MACRO footprint(pue := NULL, g_per_kwh := NULL, price_per_kwh := NULL, l_per_kwh := NULL) AS TABLE
WITH given AS (
    SELECT map_from_entries(list((factor, {'value': value, 'low': low, 'high': high, 'unit': unit}))) AS factor,
           (SELECT count(*) > 0 FROM hourly_factors) AS has_hours
    FROM factors),
chosen AS (
    SELECT has_hours AND g_per_kwh IS NULL AS is_hourly,
           coalesce(pue, factor['pue'].value)::DOUBLE AS site, CASE WHEN pue IS NULL THEN factor['pue'].low END AS site_low,
           CASE WHEN pue IS NULL THEN factor['pue'].high END AS site_high,
           coalesce(g_per_kwh, factor['g_per_kwh'].value)::DOUBLE AS grid, CASE WHEN g_per_kwh IS NULL THEN factor['g_per_kwh'].low END AS grid_low,
           CASE WHEN g_per_kwh IS NULL THEN factor['g_per_kwh'].high END AS grid_high,
           coalesce(price_per_kwh, factor['price_per_kwh'].value)::DOUBLE AS price,
           CASE WHEN price_per_kwh IS NULL THEN left(factor['price_per_kwh'].unit, 3) END AS currency,
           coalesce(l_per_kwh, factor['l_per_kwh'].value)::DOUBLE AS water, factor['embodied_g_per_h'].value AS embodied
    FROM given),
watched AS (
    SELECT e.experiment_id, e.meter, g.segment_id, g.clock_offset_ns, e.start_ns, e.end_ns
    FROM experiment_results e JOIN segments g USING (experiment_id) CROSS JOIN chosen WHERE is_hourly),
placed AS (
    SELECT experiment_id, avg(coalesce(power_w, power_average_w)) AS watts, max(at_ns + w.clock_offset_ns) AS sampled_ns
    FROM samples s JOIN watched w USING (experiment_id, segment_id, meter)
    WHERE coalesce(power_w, power_average_w) IS NOT NULL AND at_ns + w.clock_offset_ns BETWEEN w.start_ns AND w.end_ns
    GROUP BY experiment_id, segment_id, device_uuid, at_ns // 1000000000),
hours AS (
    SELECT experiment_id, coalesce(bool_and(p.sampled_ns < h.to_ns), false) AND count(h.from_ns) = count(*) AS is_covered,
           sum(watts * h.g_per_kwh) / nullif(sum(watts), 0) AS grid,
           CASE WHEN count(h.low) = count(*) THEN sum(watts * h.low) / nullif(sum(watts), 0) END AS grid_low,
           CASE WHEN count(h.high) = count(*) THEN sum(watts * h.high) / nullif(sum(watts), 0) END AS grid_high
    FROM placed p ASOF LEFT JOIN hourly_factors h ON p.sampled_ns >= h.from_ns GROUP BY experiment_id),
sited AS (
    SELECT r.experiment_id, r.energy_source, r.total_energy_j, r.total_energy_j * c.site AS site_j, c.site, c.site_low, c.site_high,
           CASE WHEN NOT is_hourly THEN c.grid WHEN is_covered THEN h.grid END AS grid,
           CASE WHEN NOT is_hourly THEN c.grid_low WHEN is_covered THEN h.grid_low END AS grid_low,
           CASE WHEN NOT is_hourly THEN c.grid_high WHEN is_covered THEN h.grid_high END AS grid_high,
           CASE WHEN NOT is_hourly THEN 'g_per_kwh' WHEN is_covered IS NULL THEN 'samples of power to find the hour of [[grid.hourly]]'
                ELSE 'all hours of the measurement in [[grid.hourly]]' END AS grid_needs,
           c.price, c.currency, c.water, c.embodied, r.duration_sec, r.output_tokens, r.requests
    FROM experiment_results r CROSS JOIN chosen c LEFT JOIN hours h USING (experiment_id)),
reckoned AS (
    SELECT *, site_j / 3600000 AS kwh, total_energy_j / 3600000 AS device_kwh, coalesce(site_low, grid_low) IS NOT NULL AS has_bounds FROM sited)
SELECT experiment_id, energy_source, total_energy_j, site_j AS facility_energy_j, kwh * grid AS carbon_g,
       CASE WHEN has_bounds THEN device_kwh * coalesce(site_low, site) * coalesce(grid_low, grid) END AS carbon_low_g,
       CASE WHEN has_bounds THEN device_kwh * coalesce(site_high, site) * coalesce(grid_high, grid) END AS carbon_high_g,
       kwh * price AS cost, currency, kwh * water AS water_l, embodied * duration_sec / 3600 AS embodied_carbon_g,
       1000 * site_j / nullif(output_tokens, 0) AS facility_energy_per_1000_tokens_j,
       1000 * kwh * grid / nullif(output_tokens, 0) AS carbon_per_1000_tokens_g, 1000 * kwh * price / nullif(output_tokens, 0) AS cost_per_1000_tokens,
       site_j / nullif(requests, 0) AS facility_energy_per_request_j,
       kwh * grid / nullif(requests, 0) AS carbon_per_request_g, kwh * price / nullif(requests, 0) AS cost_per_request,
       nullif(concat_ws('; ', CASE WHEN total_energy_j IS NULL THEN 'no energy was measured' END,
              'not given: ' || nullif(concat_ws(', ', CASE WHEN site IS NULL THEN 'pue' END, CASE WHEN grid IS NULL THEN grid_needs END,
                                                CASE WHEN price IS NULL THEN 'price_per_kwh' END, CASE WHEN water IS NULL THEN 'l_per_kwh' END,
                                                CASE WHEN embodied IS NULL THEN 'embodied_g_per_h' END), ''),
              CASE WHEN coalesce(output_tokens, 0) = 0 THEN 'no output tokens' END, CASE WHEN coalesce(requests, 0) = 0 THEN 'no requests' END), '') AS reason
FROM reckoned ORDER BY experiment_id;

-- How many requests of the measurement were in flight, from each moment on at which it changed: from the first byte sent to the end.
CREATE MACRO in_flight(experiment) AS TABLE
WITH changes AS (
    SELECT arrival_sec + (unnest([start_ns, end_ns]) - arrival_ns) / 1e9 AS at_sec, unnest([1, -1]) AS change, request_id
    FROM timed_requests WHERE experiment_id = known_experiment(experiment) AND window_kind = 'measurement')
SELECT at_sec, sum(change) OVER (ORDER BY at_sec, change, request_id ROWS UNBOUNDED PRECEDING)::BIGINT AS in_flight FROM changes ORDER BY at_sec, change, request_id;

-- The study of this id in these tables, or an error.
CREATE MACRO known_study(wanted) AS (
    SELECT CASE WHEN count(*) > 0 THEN wanted
                ELSE error('no study ' || wanted || ' with a run in these tables: expected a study_id, whole, as llem studies shows it') END
    FROM study_runs WHERE study_id = wanted);

-- Each configuration of a study over another one, block by block, in one figure of experiment_results: ln(figure / figure of the reference).
CREATE MACRO paired_log_ratios(study, figure := 'energy_per_output_token_j', reference := 0) AS TABLE
WITH results AS (SELECT experiment_id, to_json(r) AS figures FROM (SELECT * EXCLUDE (result) FROM experiment_results) r),
runs AS (
    SELECT s.*, CASE WHEN list_contains(json_keys(figures), figure) THEN TRY_CAST((figures ->> figure) AS DOUBLE)
                     ELSE error('no figure of experiment_results: ' || figure) END AS value
    FROM study_runs s JOIN results USING (experiment_id) WHERE s.counted AND s.study_id = known_study(study))
SELECT b.block, b.cell_index, b.cell, b.experiment_id, a.experiment_id AS reference_id, ln(b.value / a.value) AS log_ratio
FROM runs a JOIN runs b USING (block)
WHERE a.cell_index = reference AND b.cell_index <> reference AND a.value > 0 AND b.value > 0 ORDER BY b.cell_index, b.block;

-- Ratio of each configuration of a study to another one over all blocks, with the interval that holds the true one at this level (0.9, 0.95 or 0.99).
-- By Student's t of the pairs of paired_log_ratios().
CREATE MACRO paired_ratio(study, figure := 'energy_per_output_token_j', reference := 0, level := 0.95) AS TABLE
WITH pairs AS (
    SELECT cell_index, any_value(cell) AS cell, count(*) AS pairs, avg(log_ratio) AS mean, stddev_samp(log_ratio) / sqrt(count(*)) AS deviation
    FROM paired_log_ratios(study, figure, reference) GROUP BY cell_index),
halves AS (
    SELECT *, deviation * CASE level WHEN 0.9 THEN q90 WHEN 0.95 THEN q95 WHEN 0.99 THEN q99
                               ELSE error('level: found ' || level || ', expected 0.9, 0.95 or 0.99') END AS half
    FROM pairs LEFT JOIN student_t ON df = pairs - 1)
SELECT cell_index, cell, pairs, exp(mean) AS ratio, exp(mean - half) AS ratio_low, exp(mean + half) AS ratio_high FROM halves ORDER BY cell_index;

-- One figure of experiment_results in every run that was repeated, and whether it is far from its repeats: a modified z above 14.8, of five or more.
-- All runs are there; none is left out of anything for being far.
CREATE MACRO outliers(figure := 'energy_per_output_token_j') AS TABLE
WITH results AS (SELECT experiment_id, study_id, coalesce(cell_hash, measurement_config_hash) AS configuration, to_json(r) AS figures
                 FROM (SELECT * EXCLUDE (result) FROM experiment_results) r),
runs AS (
    SELECT * EXCLUDE (figures), CASE WHEN list_contains(json_keys(figures), figure) THEN TRY_CAST((figures ->> figure) AS DOUBLE)
                                     ELSE error('no figure of experiment_results: ' || figure) END AS value
    FROM results WHERE configuration IS NOT NULL),
scaled AS (
    SELECT *, count(*) OVER alike AS repeats, median(value) OVER alike AS median_value,
           CASE WHEN repeats >= 5 THEN 0.6745 * abs(value - median_value) / nullif(mad(value) OVER alike, 0) END AS modified_z
    FROM runs WHERE value IS NOT NULL WINDOW alike AS (PARTITION BY study_id, configuration))
SELECT study_id, configuration, experiment_id, value, median_value, repeats, modified_z, coalesce(modified_z > 14.8, false) AS outlier
FROM scaled WHERE repeats > 1 ORDER BY study_id, configuration, experiment_id;

-- Power of each device of an experiment in so many even steps of time, for a picture: nothing is to be integrated from it.
CREATE MACRO power_envelope(experiment, buckets := 600) AS TABLE
WITH sampled AS (
    SELECT host, device_uuid, at_sec, coalesce(power_w, power_average_w) AS watts, temperature_c, throttled_by,
           min(at_sec) OVER (PARTITION BY host, device_uuid) AS first_sec, max(at_sec) OVER (PARTITION BY host, device_uuid) AS last_sec
    FROM timed_samples WHERE experiment_id = known_experiment(experiment) AND coalesce(power_w, power_average_w) IS NOT NULL),
placed AS (
    SELECT *, least(CAST(floor(buckets * (at_sec - first_sec) / nullif(last_sec - first_sec, 0)) AS BIGINT), buckets - 1) AS place FROM sampled)
SELECT host, device_uuid, coalesce(place, 0) AS bucket, min(at_sec) AS from_sec, max(at_sec) AS to_sec, min(watts) AS min_power_w, avg(watts) AS mean_power_w,
       max(watts) AS max_power_w, max(temperature_c) AS max_temperature_c, bool_or(len(list_filter(throttled_by, lambda name: name <> 'idle')) > 0) AS throttled
FROM placed GROUP BY host, device_uuid, place ORDER BY ALL;
