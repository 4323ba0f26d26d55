"""One example of every event but samples, with every field set at least once."""

from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    ClockRead,
    ClocksCompared,
    Device,
    DeviceSettingChanged,
    EnergyEdge,
    Estimated,
    Event,
    ExperimentCompleted,
    ExperimentInterrupted,
    ExperimentLabelled,
    ExperimentStarted,
    FactorsStated,
    HostJoined,
    LoadCompleted,
    LoadPlanned,
    LogFailed,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    PromptsEncoded,
    Region,
    RegionsReported,
    Request,
    RequestProgressed,
    RequestsCompleted,
    ResultImported,
    SamplesDropped,
    SamplingCompleted,
    SensorCalibrated,
    ServerMetricsRead,
    ServerStarted,
    ServerStopped,
    StatedFactor,
    StatedIntensity,
    StudyCompleted,
    StudyInterrupted,
    StudyPlace,
    StudyResumed,
    StudyStarted,
    WarmupCompleted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
    WorkReported,
)

DEVICE = Device(
    host="node-a",
    uuid="MIG-1",
    index=3,
    name="NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    kind="mig",
    mig_profile="1g.10gb",
    parent_uuid="GPU-1",
    pci_id="00000000:1B:00.0",
    memory_bytes=10 * 2**30,
    power_limit_mw=700_000,
)
REQUEST = Request(
    request_id=1,
    batch_index=0,
    batch_size=2,
    arrival_ns=5_000_000_000,
    start_ns=5_000_000_100,
    first_token_ns=5_020_000_000,
    end_ns=5_040_000_000,
    input_tokens=7,
    output_tokens=2,
    token_times_ns=[5_020_000_000, 5_040_000_000],
    finish_reason="eos",
    prompt="¿Qué? \u001b[31m日本語 🙂",
    output="",
)
FAILED_REQUEST = Request(
    request_id=2,
    batch_index=0,
    batch_size=2,
    arrival_ns=5_000_000_000,
    start_ns=5_000_000_100,
    end_ns=5_000_000_200,
    input_tokens=0,
    output_tokens=0,
    finish_reason="error",
    error="out of memory",
)

EXAMPLES: tuple[Event, ...] = (
    ExperimentStarted(
        experiment_id="20260101-000000-abcdef",
        plan={"model": {"name": "gpt2", "layers": [1, 2.5, None, True]}, "seed": -(2**40)},
        measurement_config_hash="0" * 64,
        expected_processes=2,
        labels={"team": "a"},
        llem_version="0.0.0",
        command=["python", "-c", "pass"],
    ),
    ProcessStarted(
        process_index=0,
        devices=[DEVICE],
        engine="transformers",
        versions={"torch": "2.4"},
        environment={"CUDA": {"n": 1}},
    ),
    MeterStarted(
        meter="nvml",
        process_index=0,
        sample_hz=100.0,
        devices=[
            MeteredDevice(
                device=DEVICE,
                energy_source="counter",
                power_kind="instant",
                power_window_ns=1_000_000,
                counter_tick_ns=100_000_000,
                missing={"power_average_mw": "not supported"},
            )
        ],
    ),
    WindowOpened(
        kind="measurement", window_index=1, edges=[EnergyEdge(device_uuid="GPU-1", at_ns=1, energy_mj=2**40)]
    ),
    WindowClosed(
        kind="measurement", window_index=1, edges=[EnergyEdge(device_uuid="GPU-1", at_ns=2, reason="lost")]
    ),
    SamplesDropped(count=100, reason="the disk was slower than the sampler"),
    BaselineMeasured(
        position="before",
        duration_s=5.0,
        devices=[
            BaselinePower(device_uuid="GPU-1", mean_power_w=70.5, std_power_w=0.25, samples=500),
            BaselinePower(
                device_uuid="GPU-2", mean_power_w=None, std_power_w=None, samples=0, reason="no power"
            ),
        ],
        age_s=1.5,
        reused_from="20251231-000000-abcdef",
    ),
    ModelLoaded(
        model_name="gpt2",
        weights="random",
        source="preset",
        revision="0123abc",
        trust_remote_code=True,
        dtype="float16",
        device="cuda:0",
        tokenizer="gpt2",
        parameters=124_439_808,
        non_embedding_parameters=123_653_376,
        layers=12,
        attention_heads=12,
        head_size=64,
        sliding_window=128,
        sliding_window_layers=6,
        output_head_parameters=38_597_376,
        weights_bytes=248_879_616,
        load_time_ns=1_234_567_890,
    ),
    PromptsEncoded(prompts=2, input_tokens=7, prompt_set_sha256="f" * 64),
    WarmupCompleted(
        latencies_ms=[10.5, 10.25],
        coefficient_of_variation=0.01,
        converged=True,
        reason="converged",
        cooldown_s=1.0,
        temperature_start_c=40.0,
        temperature_end_c=41.0,
    ),
    RequestsCompleted(window="measurement", requests=[REQUEST, FAILED_REQUEST]),
    WarningRaised(code="sample_gap", text="a gap", value=0.3, threshold=0.1, device_uuid="GPU-1"),
    ProcessCompleted(
        process_index=0,
        requests=2,
        failed_requests=1,
        input_tokens=7,
        output_tokens=2,
        batches=1,
        peak_memory_bytes=2**30,
        stopped_early=True,
        exit_status=0,
    ),
    ProcessFailed(process_index=1, error_type="RuntimeError", message="out of memory", stage="measurement"),
    SamplingCompleted(
        samples=500,
        samples_dropped=100,
        deadlines_missed=3,
        max_gap_ns=20_000_000,
        jitter_p99_ns=90_000,
        cpu_time_ns=10**9,
    ),
    ClockRead(monotonic_ns=15_000_000_000, wall_ns=1_767_225_610_000_000_000),
    LogFailed(error="No space left on device", events_lost=4),
    ResultImported(
        format="llenergymeasure-2.0",
        file_name="result.json",
        file_sha256="a" * 64,
        original=bytes(range(256)),
    ),
    ExperimentCompleted(processes_completed=1, processes_failed=1),
    ExperimentInterrupted(reason="SIGINT", processes_completed=0, processes_failed=0),
)

# Fields that were added to events of a version that stays, in the order in which that happened.
ADDED_FIELDS: tuple[Event, ...] = (
    ExperimentStarted(
        experiment_id="20260101-000000-abcdefabcdef",
        plan={},
        measurement_config_hash="0" * 64,
        expected_processes=4,
        llem_version="0.0.0",
        study=StudyPlace(
            study_id="20260101-000000-fedcbafedcba",
            cell_index=2,
            cell={"engine.batch_size": 8, "model.dtype": "float16"},
            block=3,
            position=1,
            attempt=1,
        ),
        cell_hash="1" * 64,
        rank_count=2,
    ),
    ProcessStarted(process_index=1, devices=[], engine="transformers", group_id="g0", group_rank=1),
    BaselineMeasured(position="server_idle", duration_s=1.0, devices=[]),
    RequestsCompleted(
        window="measurement",
        requests=[
            Request(
                request_id=3,
                batch_index=0,
                batch_size=1,
                arrival_ns=5_000_000_000,
                start_ns=5_000_000_100,
                first_token_ns=5_020_000_000,
                end_ns=5_060_000_000,
                input_tokens=7,
                output_tokens=5,
                finish_reason="length",
                headers_ns=5_010_000_000,
                chunk_times_ns=[5_020_000_000, 5_060_000_000],
                chunk_tokens=[1, 4],
                tokens_computed=9,
                cached_input_tokens=4,
                usage_input_tokens=7,
                usage_output_tokens=5,
                reasoning_tokens=2,
                http_status=200,
                connection_reused=True,
                session_id="s1",
                turn=0,
            ),
            Request(
                request_id=4,
                batch_index=0,
                batch_size=1,
                arrival_ns=5_000_000_000,
                start_ns=5_000_000_100,
                end_ns=5_060_000_000,
                input_tokens=7,
                output_tokens=5,
                finish_reason="stopped",
                chunk_times_ns=[5_020_000_000],
                chunk_tokens=[None],
            ),
            Request(
                request_id=5,
                batch_index=0,
                batch_size=1,
                arrival_ns=5_000_000_000,
                start_ns=5_000_000_100,
                end_ns=5_060_000_000,
                input_tokens=7,
                output_tokens=5,
                finish_reason="eos",
                times_reason="not streamed",
            ),
        ],
    ),
    ResultImported(format="f", file_name="r.json", file_sha256="2" * 64, original=b"{}", bytes_kept=False),
)

# Of a load process, written to role `load`.
LOAD_EVENTS: tuple[Event, ...] = (
    LoadPlanned(
        process_index=0,
        window="measurement",
        kind="open",
        arrival="gamma",
        rate_per_s=12.5,
        burstiness=0.25,
        concurrency=8,
        max_concurrency=64,
        ramp_s=2.0,
        time_scale=0.5,
        seed=42,
        requests=1000,
        schedule_sha256="3" * 64,
        starts_ns=5_000_000_000,
    ),
    RequestProgressed(
        window="measurement",
        request_id=3,
        arrival_ns=5_000_000_000,
        start_ns=5_000_000_100,
        chunk_times_ns=[5_020_000_000, 5_060_000_000],
        chunk_tokens=[4, None],
    ),
    LoadCompleted(
        process_index=0,
        window="measurement",
        requests=1000,
        failed_requests=1,
        input_tokens=32_000,
        output_tokens=31_968,
        starts_ns=5_000_000_000,
        offered_ns=85_000_000_000,
        ended_ns=86_000_000_000,
        connections=12,
        stale_connections=1,
        send_lag_p50_ns=400_000,
        send_lag_p99_ns=2_000_000,
        send_lag_max_ns=9_000_000,
        loop_lag_p99_ns=1_000_000,
        loop_lag_max_ns=8_000_000,
        cpu_time_ns=600_000_000,
        peak_memory_bytes=40 * 2**20,
        max_in_flight=64,
        max_waiting=3,
        gave_up="50 requests in a row failed",
    ),
)

# Of a server, written to its worker's segment.
SERVER_EVENTS: tuple[Event, ...] = (
    ServerStarted(
        kind="llamacpp",
        managed=True,
        adopted_from="20250101-000000-abcdef012345",
        url="http://127.0.0.1:8131",
        model="tiny.gguf",
        pid=4243,
        version="2026.1",
        argv=["llama-server", "--model", "tiny.gguf"],
        started_ns=5_000_000_000,
        port_open_ns=5_100_000_000,
        healthy_ns=5_110_000_000,
        first_answer_ns=5_150_000_000,
        input_tokens_metric="prompt_tokens_total",
        output_tokens_metric="tokens_total",
    ),
    ServerMetricsRead(
        names=['requests{kind="chat"}', "tokens_total"],
        times_ns=[6_000_000_000, 7_000_000_000],
        values=[[None, 1.0], [5.0, 6.5]],
    ),
    ServerStopped(
        exit_status=143,
        signal="SIGTERM",
        stop_ns=1_800_000_000,
        memory_returned=True,
        last_lines=["loading", "terminate called"],
    ),
)

# A run of a study that failed, in a block that was begun anew.
FAILED_RUN: tuple[Event, ...] = (
    ExperimentStarted(
        experiment_id="20250101-000001-abcdef012345",
        plan={"engine": {"name": "simulated"}},
        measurement_config_hash="cd" * 32,
        expected_processes=1,
        llem_version="0.1.0",
        study=StudyPlace(
            study_id="20250101-000000-abcdef012345",
            cell_index=1,
            cell={"engine.batch_size": 16},
            block=1,
            position=0,
            attempt=2,
            block_restarts=1,
            name="batch size",
            cells=2,
            blocks=5,
        ),
        cell_hash="ef" * 32,
    ),
    ExperimentCompleted(
        processes_completed=1, processes_failed=0, failure="the program ended with exit status 3"
    ),
)

# Of a wrapped program, in its worker's segment.
REGION_EVENTS: tuple[Event, ...] = (
    RegionsReported(
        regions=[
            Region(
                index=1,
                name="step \\x1b[31m",
                parent_index=0,
                process="4244.5000000000",
                began_ns=5_100_000_000,
                ended_ns=5_900_000_000,
                tokens=4096,
                requests=8,
            ),
            Region(index=0, name="epoch", process="4244.5000000000", began_ns=5_000_000_000),
        ]
    ),
    WorkReported(tokens=4096, input_tokens=4000, output_tokens=96, requests=8),
)

# Of a study, in a segment of its own.
STUDY_EVENTS: tuple[Event, ...] = (
    StudyStarted(
        study_id="20250101-000000-abcdef012345",
        name="batch size",
        plan={"engine": {"name": "simulated"}, "study": {"repeats": 2}},
        command=["python3", "train.py"],
        cells=[{"engine.batch_size": 4}, {"engine.batch_size": 16}],
        schedule=[[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]],
        order="random",
        seed=7,
        reference_cell=1,
        llem_version="0.1.0",
    ),
    StudyInterrupted(
        study_id="20250101-000000-abcdef012345", reason="stopped by SIGTERM", runs=1, runs_left=3
    ),
    StudyResumed(
        study_id="20250101-000000-abcdef012345",
        runs_left=3,
        reason="interrupted",
        schedule=[[0, 0, 1], [0, 1, 0], [1, 0, 0], [1, 1, 1]],
    ),
    StudyCompleted(study_id="20250101-000000-abcdef012345", runs=3, failed_runs=1),
)

# Of a supervisor whose plan sets a device.
RANK_EVENTS: tuple[Event, ...] = (
    HostJoined(
        rank=1,
        size=2,
        host="node-b",
        launcher="slurm",
        local_rank=0,
        local_size=1,
        node_rank=1,
        restart=1,
    ),
    HostJoined(rank=0, size=2, host="node-a", launcher="llem"),
    ClocksCompared(
        position="before",
        rank=1,
        host="node-b",
        reference_host="node-a",
        offset_ns=2_000_000_000,
        monotonic_offset_ns=-(2**50),
        error_ns=41_000,
        exchanges=32,
    ),
)

SETTING_EVENTS: tuple[Event, ...] = (
    DeviceSettingChanged(
        device_uuid="GPU-1", setting="power_limit_w", before=700.0, asked=350.0, read_back=350.0
    ),
    DeviceSettingChanged(
        device_uuid="GPU-1",
        setting="lock_clocks_mhz",
        before=None,
        asked=1200.0,
        reason="the driver does not tell",
    ),
    DeviceSettingChanged(
        device_uuid="GPU-1",
        setting="power_limit_w",
        before=350.0,
        asked=700.0,
        read_back=700.0,
        restored=True,
    ),
)

# What was noted of an experiment after it had ended.
NOTES: tuple[Event, ...] = (ExperimentLabelled(labels={"site": "lab", "wrong": None}),)

# Of a report that was written with factors, to role `note` as well.
FACTORS: tuple[Event, ...] = (
    FactorsStated(
        report="report.html",
        report_sha256="4" * 64,
        factors=[
            StatedFactor(
                factor="pue",
                value=1.2,
                low=1.1,
                high=1.4,
                unit="",
                basis="annual, whole site",
                source="the operator",
                date="2024",
            ),
            StatedFactor(factor="g_per_kwh", unit="g/kWh", source="who says so", date="2026"),
        ],
        hourly=[
            StatedIntensity(
                from_ns=1_767_225_600_000_000_000, to_ns=1_767_229_200_000_000_000, g_per_kwh=312.0
            ),
            StatedIntensity(
                from_ns=1_767_229_200_000_000_000,
                to_ns=1_767_232_800_000_000_000,
                g_per_kwh=305.5,
                low=290.0,
                high=320.0,
            ),
        ],
    ),
)

# Of a run that calibrates, of a sensor of which nothing can be said, and of a run that relies on an earlier one.
CALIBRATION_EVENTS: tuple[Event, ...] = (
    SensorCalibrated(
        host="node-1",
        device_uuid="GPU-1",
        driver="580.159.04",
        sensor="power_mw",
        averages="none",
        explained=0.84,
        power_refresh_s=Estimated(value=0.101, low=0.1, high=0.102),
        energy_refresh_s=Estimated(value=0.1, low=0.0995, high=0.1005),
        averaging_window_s=Estimated(value=0.043, low=0.035, high=0.051),
        delay_s=Estimated(value=0.02, low=0.0, high=0.04),
        seen_share=Estimated(value=0.42, low=0.35, high=0.5),
        counter_over_power=Estimated(value=1.004, low=0.999, high=1.009),
        idle_w=Estimated(value=76.5, low=76.0, high=77.0),
        idle_spread_w=Estimated(value=0.4),
        load_w=Estimated(value=691.0, low=689.0, high=693.0),
        settling_s=Estimated(reason="the temperature still rose"),
    ),
    SensorCalibrated(
        host="node-1",
        device_uuid="GPU-2",
        sensor="power_average_mw",
        reason="another process had the device open",
    ),
    SensorCalibrated(
        host="node-1",
        device_uuid="GPU-1",
        driver="580.159.04",
        sensor="power_average_mw",
        averages="boxcar",
        averaging_window_s=Estimated(value=1.0, low=0.99, high=1.01),
        experiment_id="20251231-000000-abcdef",
        age_s=3600.0,
    ),
)
