"""Doubts about a process's figures: what it raised itself, and what its events and devices give away."""

from collections.abc import Iterator, Sequence

from llem.projections.derive.history import ProcessFacts
from llem.results import DeviceEnergy, ResultWarning
from llem_events.events import LogFailed, SamplesDropped


def process_doubts(
    process: ProcessFacts, devices: Sequence[DeviceEnergy], *, max_disagreement: float
) -> list[ResultWarning]:
    """Every doubt, those of the process itself first."""
    return [*_raised(process), *_warmup(process), *_recording(process), *_energy(devices, max_disagreement)]


def _raised(process: ProcessFacts) -> Iterator[ResultWarning]:
    for warning in process.warnings:
        yield ResultWarning(
            code=warning.code,
            text=warning.text,
            value=warning.value,
            threshold=warning.threshold,
            device_uuid=warning.device_uuid,
        )


def _warmup(process: ProcessFacts) -> Iterator[ResultWarning]:
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
    if process.meter is not None and process.completed is not None and process.sampling is None:
        text = f"the sampler of {who} did not end in order, so samples may be missing"
        yield ResultWarning(code="sampler_ended_early", text=text)


def _energy(devices: Sequence[DeviceEnergy], max_disagreement: float) -> Iterator[ResultWarning]:
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
