"""What is doubtful of one process: what was warned of, how it warmed up, what did not reach the log, and energies that contradict each other."""

from collections.abc import Iterator, Sequence

from llem.projections.derive.history import ProcessFacts
from llem.results import DeviceEnergy, ResultWarning
from llem_events.events import LogFailed, SamplesDropped, WarningRaised

MAX_COUNTER_APART = 0.02  # of a counter from integrated power at constant load


def process_doubts(
    process: ProcessFacts, devices: Sequence[DeviceEnergy], *, max_disagreement: float
) -> list[ResultWarning]:
    """Every doubt, those of the process itself first."""
    return [
        *raised(process.warnings),
        *_warmup_doubts(process),
        *_recording(process),
        *_energy_doubts(devices, max_disagreement),
        *_counter_doubts(process),
    ]


def raised(warnings: Sequence[WarningRaised]) -> Iterator[ResultWarning]:
    """What was warned of while it was measured."""
    for warning in warnings:
        yield ResultWarning(
            code=warning.code,
            text=warning.text,
            value=warning.value,
            threshold=warning.threshold,
            device_uuid=warning.device_uuid,
        )


def _warmup_doubts(process: ProcessFacts) -> Iterator[ResultWarning]:
    """A measurement that began before latencies had settled is believed though it holds some of the warm-up."""
    warmup = process.warmup
    if warmup is not None and not warmup.converged:
        spread = warmup.coefficient_of_variation
        varied = "" if spread is None else f", and the last batches' times varied by {spread:.1%}"
        text = f"the warm-up of process {process.process_index} did not converge: {warmup.reason}{varied}"
        yield ResultWarning(code="warmup_not_converged", text=text, value=spread)


def _recording(process: ProcessFacts) -> Iterator[ResultWarning]:
    """What did not reach the log."""
    who = f"process {process.process_index}"
    for failure in process.every(LogFailed):
        text = f"the log of {who} failed: {failure.error}; {failure.events_lost} events were lost"
        yield ResultWarning(code="log_failed", text=text, value=failure.events_lost)
    dropped = sum(event.count for event in process.every(SamplesDropped))
    if dropped:
        yield ResultWarning(
            code="samples_dropped", text=f"{dropped} samples of {who} were dropped", value=dropped
        )
    if process.started is not None and process.meter is None:
        yield ResultWarning(code="no_sampler", text=f"no sampler of {who} started, so its energy is unknown")
    ended = process.sampling is not None or process.is_imported
    if process.meter is not None and process.completed is not None and not ended:
        text = f"the sampler of {who} did not end in order, so samples may be missing"
        yield ResultWarning(code="sampler_ended_early", text=text)


def _energy_doubts(devices: Sequence[DeviceEnergy], max_disagreement: float) -> Iterator[ResultWarning]:
    for device in devices:
        if device.energy_j is None:
            yield ResultWarning(
                code="energy_not_measured",
                text=f"energy of {device.uuid} was not measured: {device.reason}",
                device_uuid=device.uuid,
            )
        if device.disagreement is not None and device.disagreement > max_disagreement:
            yield ResultWarning(
                code="energy_disagreement",
                text=f"energy counter and integrated power of {device.uuid} differ by {device.disagreement:.1%}",
                value=device.disagreement,
                threshold=max_disagreement,
                device_uuid=device.uuid,
            )


def _counter_doubts(process: ProcessFacts) -> Iterator[ResultWarning]:
    """Counters that a calibration found to count otherwise than their device's own power tells."""
    for _, metered in process.every_device:
        calibrated = process.calibration_of(metered)
        times = None if calibrated is None else calibrated.counter_over_power.value
        if calibrated is not None and times is not None and abs(times - 1) > MAX_COUNTER_APART:
            yield ResultWarning(
                code="counter_against_power",
                text=f"the energy counter of {calibrated.device_uuid} counts {times:.1%} of what its power tells at constant load, as found in {calibrated.experiment_id}",
                value=times,
                threshold=MAX_COUNTER_APART,
                device_uuid=calibrated.device_uuid,
            )
