"""What a real NVIDIA GPU says: NVML's answers, the counter's tick, counter against power, the sampler's cost, what measuring costs a bare `generate`, a served model, its sensors.

Measures random weights in the shape of a 1 B and an 8 B Llama on the first visible GPU for a minute each, then a small llama behind `transformers serve`, and calibrates the sensors;
needs torch, `transformers[serving]` and this repository, and no network. The findings are printed as JSON and kept as
docs/validation/<device>-<date>.json. `--engine simulated` tries the procedure itself, under simulated GPUs too, and `--server transformers --device cpu`
with it the served model on a CPU: they are marked as such and never kept. Without a GPU: one line, and exit status 2.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llem.errors import LlemError
from llem.meters.nvml import ask, driver, driver_state, reason_of, resolve_gpus
from llem.versions import __version__
from llem_events import SegmentReader, unpack
from llem_events.events import Device, MeterStarted, SamplingCompleted

FOLDER = Path(__file__).parents[1] / "docs" / "validation"
MODELS = ("llama-1b", "llama-8b")
COMMAND_LIMIT_S = 1800
SERVED_SHAPE = ("1024", "16")  # hidden size and layers: 170 M parameters


def nvml_answers(uuid: str) -> dict[str, Any]:
    """Every NVML function that llem asks a device, and the answer or why there was none."""
    import pynvml

    from benchmarks.nvml_functions import FIELD_VALUES, FUNCTIONS

    with driver():
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        found = {
            name: _answer(ask(getattr(pynvml, name), handle, *arguments))
            for name, arguments in FUNCTIONS.items()
        }
        fields = ask(pynvml.nvmlDeviceGetFieldValues, handle, list(FIELD_VALUES.values())).value or []
        for name, field in zip(FIELD_VALUES, fields, strict=False):
            code = field.nvmlReturn
            found[name] = {"reason": reason_of(code)} if code else {"value": field.value.ullVal}
    return found


def _answer(answer: Any) -> dict[str, Any]:
    if answer.reason:
        return {"reason": answer.reason}
    plain = isinstance(answer.value, int | float | str | list | tuple)
    return {"value": answer.value if plain else str(answer.value)}


def measure(options: argparse.Namespace, model: str) -> dict[str, Any]:
    """One measurement by the real program: its result's figures, its counter, and its sampler's cost."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            *("--engine", options.engine, "--meter", "nvml", "--store", folder, "--json"),
            *("--model", model, "--weights", "random"),
            *("--set", f"workload.min_duration_s={options.seconds}", "--set", "generation.ignore_eos=true"),
        ]
        return _measured(Path(folder), arguments)


def serve(options: argparse.Namespace) -> dict[str, Any]:
    """The same of a server under eight requests at a time, with what it and its load say."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            *("--server", options.server, "--concurrency", "8", "--meter", "nvml"),
            *("--store", f"{folder}/store", "--json", "--set", f"workload.min_duration_s={options.seconds}"),
            *("--set", "workload.output_tokens.mean=64", "--set", "workload.input_tokens.mean=128"),
        ]
        if options.server == "transformers":
            model = f"{folder}/model"
            written = _python("-m", "tests.servers.tiny_llama", model, *options.served_shape)
            if written.returncode:
                return _failed(written)
            arguments += ["--model", model, "--", "--device", options.device]
        return _measured(Path(folder) / "store", arguments)


def _measured(store: Path, arguments: Sequence[str]) -> dict[str, Any]:
    done = _llem("measure", *arguments)
    if done.returncode:
        return _failed(done)
    return _figures(json.loads(done.stdout)) | {"sampler": _sampler(store)}


def _failed(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}


def _llem(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return _python("-c", "import llem.cli; llem.cli.main()", *arguments)


def _python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False
    )


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of a result that say whether it can be trusted, and the few that one would compare."""
    names = (
        *("model_name", "dtype", "batch_size", "total_output_tokens", "tokens_per_second", "total_energy_j"),
        *("energy_source", "energy_disagreement", "energy_per_output_token_j", "baseline_power_w", "valid"),
        *("invalid_reasons", "measurement_warnings", "steady_state_window", "phases", "serving"),
    )
    (device,) = result["process_results"][0]["devices"]
    energies = {name: device[name] for name in ("counter_energy_j", "integrated_energy_j")}
    return {name: result[name] for name in names} | energies


def _sampler(store: Path) -> dict[str, Any]:
    """Tick and rate, deadlines missed, CPU time: from the sampler's own segment."""
    account: dict[str, Any] = {}
    for path in store.glob("log/*/sampler-*.events.zst"):
        with SegmentReader(path) as reader:
            for envelope in (envelope for block in reader.blocks() for envelope in reader.events(block)):
                match unpack(envelope):
                    case MeterStarted(sample_hz=hz, devices=[metered, *_]):
                        account |= {"sample_hz": hz, "counter_tick_ns": metered.counter_tick_ns}
                        account |= {"power_kind": metered.power_kind, "missing": metered.missing}
                        account["started_ns"] = envelope.at_ns
                    case SamplingCompleted() as completed:
                        account |= msgspec.to_builtins(completed)
                        watched_ns = envelope.at_ns - account.pop("started_ns")
                        account["cores"] = (completed.cpu_time_ns or 0) / watched_ns
    return account


def calibrate(options: argparse.Namespace) -> list[dict[str, Any]] | dict[str, Any]:
    """What a known load says of the power sensors, a row for each."""
    load = "torch" if options.engine == "transformers" else "simulated"
    with tempfile.TemporaryDirectory() as folder:
        asked = ("--load", load, "--seconds", str(options.calibration_seconds), "--store", folder)
        done = _llem("calibrate", "--meter", "nvml", *asked)
        found = _llem("query", "from calibrations order by sensor", "-f", "json", "--store", folder)
    rows: list[dict[str, Any]] = json.loads(found.stdout) if found.returncode == 0 else []
    # Where nothing can be relied on, the rows say why.
    return rows or _failed(done)


def harness(model: str, *, rounds: int, pairs: int) -> dict[str, Any]:
    """Tokens/s inside a measurement against a bare `generate`, as benchmarks.harness compares them."""
    done = _python(
        "-m", "benchmarks.harness", "--model", model, "--rounds", str(rounds), "--pairs", str(pairs)
    )
    if done.returncode:
        return _failed(done)
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def check(device: Device, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, in the order of the file."""
    real = options.engine == "transformers"
    findings: dict[str, Any] = {
        "device": device.name,
        "date": datetime.now(UTC).date().isoformat(),
        "llem_version": __version__,
        "engine": options.engine,
        "seconds": options.seconds,
        "driver": msgspec.to_builtins(driver_state()),
        "nvml": nvml_answers(device.uuid),
        "measurements": {},
        "harness": {},
    }
    for model in options.models:
        print(f"measuring {model} for {options.seconds:g} s", file=sys.stderr)
        findings["measurements"][model] = measure(options, model)
        if real:
            findings["harness"][model] = harness(model, rounds=options.rounds, pairs=options.pairs)
    print(f"measuring a server, {options.server}, for {options.seconds:g} s", file=sys.stderr)
    findings["served"] = {options.server: serve(options)}
    print(f"calibrating its sensors for {options.calibration_seconds:g} s", file=sys.stderr)
    findings["calibration"] = calibrate(options)
    return findings


def keep(findings: dict[str, Any]) -> Path:
    """Write the findings beside the others; a file of the same device and day is replaced."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{findings['device'].replace(' ', '-').lower()}-{findings['date']}.json"
    path.write_text(json.dumps(findings, indent=1) + "\n")
    return path


def main() -> int:
    """Check the first visible GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calibration-seconds", type=float, default=60.0)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--engine", choices=("transformers", "simulated"), default="transformers")
    parser.add_argument(
        "--server", choices=("transformers", "simulated"), help="not set: the engine's namesake"
    )
    parser.add_argument("--device", default="cuda:0", help="of the served model")
    parser.add_argument("--served-shape", nargs=2, default=SERVED_SHAPE, metavar=("HIDDEN", "LAYERS"))
    parser.add_argument("--rounds", type=int, default=3, help="of benchmarks.harness")
    parser.add_argument("--pairs", type=int, default=15, help="of benchmarks.harness, in a round")
    options = parser.parse_args()
    options.server = options.server or options.engine
    try:
        device = resolve_gpus(None)[0]
    except LlemError as error:
        print(f"gpu_check: no GPU to check: {error}", file=sys.stderr)
        return 2
    os.environ["CUDA_VISIBLE_DEVICES"] = device.uuid  # for every program started here: one GPU, and this one
    findings = check(device, options)
    print(json.dumps(findings))
    if options.engine == "transformers":
        print(f"kept as {keep(findings)}", file=sys.stderr)
    measured = [*findings["measurements"].values(), *findings["served"].values(), findings["calibration"]]
    failed = any("error" in found for found in measured)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
