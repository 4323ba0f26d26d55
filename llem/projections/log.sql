-- What the log says: decoded once, and kept until the decoding changes or the log does. The table of requests is made of the Struct `Request`.
-- The text after `--` in a column's line becomes the column's comment: [unit] meaning; what NULL says.
-- Columns named *_at_ns, opened_ns, arrival_ns and the like are on the monotonic clock of the host that wrote them;
-- wall clock = monotonic clock + segments.clock_offset_ns. Columns named *_time are UTC.

CREATE TABLE projection ( -- which code made these tables; other code makes them anew
    log_digest VARCHAR, -- digest of the code that decodes: another one decodes the whole log again
    derived_digest VARCHAR, -- digest of formulas and columns: another one derives again from the tables of the log
    definitions_digest VARCHAR -- digest of the definitions of tables, views and macros: where it is the same, views and macros stay
);

CREATE TABLE segments ( -- log files, and how far each has been applied
    experiment_id VARCHAR, -- folder that the file lies in
    file VARCHAR, -- name within the experiment's folder; the folder's own where it cannot be listed
    segment_id VARCHAR, -- random id in the header, hexadecimal; NULL where the file ends inside its header
    role VARCHAR, -- who wrote it: supervisor, rank (the supervisor of a rank other than 0), worker, sampler, load, server, import or note
    process_index INTEGER, -- worker that it belongs to; NULL for the supervisor
    host VARCHAR, -- name of the machine that wrote it
    boot_id VARCHAR, -- boot of that machine; monotonic clocks compare only within one
    pid BIGINT, -- process id of the writer
    llem_version VARCHAR, -- program that wrote it
    schema_version INTEGER, -- version of the event vocabulary that it was written with
    monotonic_ns BIGINT, -- [ns] monotonic clock when the file was created
    wall_ns BIGINT, -- [ns since 1970, UTC] wall clock at the same moment
    recovered_from VARCHAR, -- id of the damaged segment whose blocks these are, hexadecimal; NULL where it is an original
    lost_bytes BIGINT, -- [B] damaged bytes of that segment which its recovery left out; NULL where the header is not known
    clock_offset_ns BIGINT, -- [ns] wall clock minus monotonic clock, one for all segments of a host and boot; NULL until results are derived
    verdict VARCHAR, -- clean, unclosed, torn, corrupt, newer (of a later llem), unreadable, unusable (verifies, but no tables can be made of it) or left_out (stands in another file)
    problem VARCHAR, -- what is damaged, and where; NULL where nothing is
    being_written BOOLEAN, -- whether its writer lived when it was last read
    file_bytes BIGINT, -- [B] size of the file when it was last read
    modified_ns BIGINT, -- [ns since 1970, UTC] time of its last change when it was last read
    applied_bytes BIGINT, -- [B] offset after the last block applied
    blocks BIGINT, -- blocks applied
    events BIGINT, -- events applied
    samples BIGINT, -- samples applied
    requests BIGINT, -- requests applied
    digest VARCHAR, -- SHA-256 chain digest of the last block applied, hexadecimal
    skipped_bytes BIGINT, -- [B] damaged bytes left out by --salvage; 0 where nothing was
    derived_blocks BIGINT -- blocks that the results include; NULL until results are derived
);

CREATE TABLE folders ( -- what need not be looked into: where all segments of an experiment are sealed, its folder changes before they do
    experiment_id VARCHAR, -- experiment
    changed_ns BIGINT -- [ns since 1970, UTC] last change of its folder before its files were read
);

CREATE TABLE events ( -- every event but samples and requests, as it stands in the log
    experiment_id VARCHAR, -- experiment that it belongs to
    segment_id VARCHAR, -- segment that it stands in
    process_index INTEGER, -- worker that it belongs to; NULL for the supervisor
    block_number BIGINT, -- block within the segment, from 0
    event_number BIGINT, -- event within the segment, from 0
    type VARCHAR, -- what happened
    version BIGINT, -- version of that event type
    at_ns BIGINT, -- [ns, monotonic] when
    body JSON -- fields of the event, those at their default left out; NULL where it cannot be shown as JSON
);

CREATE TABLE samples ( -- one row per sample of a device
    experiment_id VARCHAR, -- experiment
    process_index INTEGER, -- worker whose sampler took it
    segment_id VARCHAR, -- segment that it stands in
    device_uuid VARCHAR, -- device
    meter VARCHAR, -- what read it
    at_ns BIGINT, -- [ns, monotonic] when
    power_w DOUBLE, -- [W] power
    power_average_w DOUBLE, -- [W] the driver's average over about a second; NULL where it has none
    energy_j DOUBLE, -- [J] energy counter since the driver was loaded; NULL without a counter
    temperature_c SMALLINT, -- [C] temperature
    gpu_utilisation_pct SMALLINT, -- [%] share of time with work on the device
    memory_utilisation_pct SMALLINT, -- [%] share of time with memory traffic
    memory_used_bytes BIGINT, -- [B] memory in use
    sm_clock_mhz INTEGER, -- [MHz] clock of the processors
    memory_clock_mhz INTEGER, -- [MHz] clock of the memory
    throttle_reasons BIGINT, -- NVML's clocks-event-reasons bit mask; throttle_names() tells them
    power_limit_w DOUBLE -- [W] limit in force
);
