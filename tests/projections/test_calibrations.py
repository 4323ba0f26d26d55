"""What a calibration found has rows of its own; what a run relies on stands in its figures, their bounds and its warnings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llem.plan import Plan, WorkloadPlan
from llem.projections import catch_up
from llem.projections.derive import calibrations
from llem.projections.derive.held import Held
from llem.results.calibration import ESTIMATES, REGION, LoadTrace, SensorCalibration
from llem.results.student_t import Estimate
from llem.store import Store
from llem_events.events import (
    Estimated,
    MeteredDevice,
    MeterStarted,
    Region,
    RegionsReported,
    SensorCalibrated,
)
from tests import calibration_run
from tests.projections import in_memory
from tests.projections.tables import rows
from tests.world import HOST, at, device, experiment, sampler_events, supervisor_events, worker_events

pytestmark = pytest.mark.usefixtures("tables")

EARLIER = "20251231-000000-0123456789ab"
MEASURED = (
    "SELECT energy_j, energy_uncertainty_j FROM windows WHERE kind = 'measurement' ORDER BY experiment_id"
)


def calibrated(**about: Any) -> SensorCalibrated:
    plain = {"host": HOST, "device_uuid": "GPU-0", "driver": "580.1", "sensor": "power_mw"}
    return SensorCalibrated(**{**plain, **about})


def relied_on(**about: Any) -> SensorCalibrated:
    return calibrated(experiment_id=EARLIER, age_s=60.0, **about)


def sampled(**metered: Any) -> Any:
    """Of a GPU of 400 W without a counter, with what its meter says of it."""
    known = MeteredDevice(
        device=device(power_limit_mw=400_000), energy_source="integrated", power_kind="instant", **metered
    )
    started = MeterStarted(meter="nvml", process_index=0, sample_hz=10.0, devices=[known])
    return [(0.2, started), *sampler_events(source="integrated")[1:]]


def measured(log: Store, *runs: Sequence[SensorCalibrated], **metered: Any) -> list[dict[str, Any]]:
    """The measurement window of each of some runs that rely on these."""
    for number, found in enumerate(runs, start=1):
        worker = [*worker_events(counter_j=None), *((0.6, each) for each in found)]
        experiment(log, experiment_id=f"run-{number:02}", worker=worker, sampler=sampled(**metered))
    catch_up(log)
    return rows(log, MEASURED)


def calibrate(log: Store, *found: SensorCalibrated) -> list[dict[str, Any]]:
    """The rows of a calibration that told these at its end, the instant power's first."""
    experiment(log, worker=calibration_run.worker(), sampler=calibration_run.sampler(), found=found)
    catch_up(log)
    return rows(log, "FROM calibrations ORDER BY sensor DESC")


@pytest.mark.slow
def test_a_calibration_has_a_row_for_each_sensor(log: Store) -> None:
    """Estimated from its samples, whatever was told at its end, which is when it was: a better formula needs no other run."""
    told = calibrated(averages="other", power_refresh_s=Estimated(value=7.0), reason="wrong")
    instant, average = calibrate(log, told, calibrated(sensor="power_average_mw", averages="boxcar"))
    names = ("host", "device_uuid", "device_name", "driver", "sensor", "reason", "averages")
    assert [instant[name] for name in names] == [
        HOST,
        "GPU-0",
        "Test GPU",
        "580.1",
        "power_w",
        None,
        "boxcar",
    ]
    low, window, high = (instant[f"averaging_window_sec{end}"] for end in ("_low", "", "_high"))
    assert low < window < high and window == pytest.approx(calibration_run.LOOKS_S, rel=0.1)
    assert instant["power_refresh_sec"] == pytest.approx(calibration_run.REFRESH_S, rel=0.01)
    assert instant["counter_over_power"] == pytest.approx(calibration_run.COUNTS, rel=0.01)
    assert average["sensor"] == "power_average_w" and "does not show" in average["reason"]
    assert average["idle_w"] is None and average["reasons"]["idle_w"] == average["reason"]
    (ended,) = rows(log, "SELECT max(at_ns) AS at_ns FROM events WHERE type = 'sensor_calibrated'")
    offset = rows(log, "SELECT clock_offset_ns AS offset_ns FROM segments WHERE role = 'supervisor'")[0][
        "offset_ns"
    ]
    assert instant["calibrated_ns"] == ended["at_ns"] + offset


def test_a_calibration_is_estimated_from_its_samples_and_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each sensor its own column, beside the regions of the load alone, those that ended."""
    traces: list[LoadTrace] = []
    found = SensorCalibration(
        averages="boxcar",
        explained=0.5,
        **{name: Estimate(value=float(place), low=-1.0, high=99.0) for place, name in enumerate(ESTIMATES)},
    )
    monkeypatch.setattr(calibrations, "estimate", lambda trace: traces.append(trace) or found)
    others = [Region(index=1007, name="other", process="1-1", began_ns=at(12.0), ended_ns=at(13.0))]
    others += [Region(index=1008, name=REGION, process="1-1", began_ns=at(25.5), ended_ns=None)]
    told = [calibrated(others_busy=True), calibrated(sensor="power_average_mw"), calibrated(sensor="other")]
    derived = in_memory.usual(
        worker=[*calibration_run.worker(), (24.0, RegionsReported(regions=others))],
        sampler=calibration_run.sampler(),
        supervisor=[*supervisor_events()[:1], *((39.0, each) for each in told), *supervisor_events()[1:]],
    )
    held = in_memory._held(in_memory.segment("sampler", index=0), calibration_run.sampler())
    instant, average, other = calibrations.calibrations(Held([], held, {}), derived)
    assert [row["sensor"] for row in (instant, average, other)] == ["power_w", "power_average_w", "other"]
    assert other["reason"] == "the log holds no samples of it" and other["idle_w"] is None
    assert other["reasons"] == dict.fromkeys(calibrations.COLUMNS.values(), other["reason"])
    for row in (instant, average):
        assert (row["device_name"], row["averages"], row["explained"]) == ("Test GPU", "boxcar", 0.5)
        assert [row[column] for column in calibrations.COLUMNS.values()] == [
            *map(float, range(len(ESTIMATES)))
        ]
        assert row["reasons"] == {} and (row["idle_w_low"], row["idle_w_high"]) == (-1.0, 99.0)
    loads = np.array(calibration_run.loads())
    for trace in traces:
        assert trace.busy_s.shape == loads.shape
        np.testing.assert_allclose(np.diff(trace.busy_s), np.diff(loads), atol=1e-6)
    assert [trace.others_busy for trace in traces] == [True, False]
    assert abs(traces[0].power_w - traces[1].power_w).max() > 100
    assert (
        traces[0].energy_j[-1] > 1_000
        and traces[0].temperature_c is not None
        and traces[0].temperature_c.max() == 49
    )


def test_a_row_tells_later_runs_what_was_found() -> None:
    """Each estimate with its bounds or its reason, by the log's name of the sensor."""
    estimates = {
        name: Estimate(value=place + 0.5, low=place, high=place + 1.0)
        if place % 2
        else Estimate(reason=f"no {name}")
        for place, name in enumerate(ESTIMATES)
    }
    found = SensorCalibration(averages="other", explained=0.25, **estimates)
    named = {"host": HOST, "device_uuid": "GPU-0", "driver": "580.1"}
    for sensor, column in (*calibrations.SENSORS.items(), ("another", "another")):
        told = calibrations.told_anew({**named, "sensor": column, **calibrations._columns(found)})
        assert (told.sensor, told.averages, told.explained, told.reason) == (sensor, "other", 0.25, None)
        assert (told.host, told.device_uuid, told.driver) == tuple(named.values())
        for name, each in estimates.items():
            again = getattr(told, name)
            assert (again.value, again.low, again.high, again.reason) == (
                each.value,
                each.low,
                each.high,
                each.reason,
            )


def test_who_else_had_the_device_open_stands_in_the_event(log: Store) -> None:
    """No sample tells of them."""
    (row,) = calibrate(log, calibrated(others_busy=True))
    assert "another process" in row["reason"] and row["power_refresh_sec"] is None


@pytest.mark.parametrize(
    ("device_uuid", "reason"), [("GPU-0", "no load"), ("GPU-9", "no samples")], ids=["no load", "no samples"]
)
def test_a_log_that_lacks_something_has_a_reason(log: Store, device_uuid: str, reason: str) -> None:
    """In the place of what was told: nobody can tell any more how it was found."""
    experiment(log, found=[calibrated(device_uuid=device_uuid, power_refresh_s=Estimated(value=0.1))])
    catch_up(log)
    (row,) = rows(log, "FROM calibrations")
    assert reason in row["reason"] and row["power_refresh_sec"] is None


def test_a_run_says_what_it_relies_on(log: Store) -> None:
    """Beside the device and in its result; the calibration itself has its row in its own experiment only."""
    measured(log, [relied_on()])
    assert rows(log, "SELECT calibrated_by, calibration_age_sec FROM devices") == [
        {"calibrated_by": EARLIER, "calibration_age_sec": 60.0}
    ]
    assert rows(log, "FROM calibrations") == []


def test_without_one_the_documented_values_stand(log: Store) -> None:
    """And no column says otherwise."""
    measured(log, [])
    assert rows(log, "SELECT calibrated_by, calibration_age_sec, counter_over_power FROM devices") == [
        {"calibrated_by": None, "calibration_age_sec": None, "counter_over_power": None}
    ]


WINDOW = {"averages": "boxcar", "averaging_window_s": Estimated(value=1.0, low=0.9, high=1.1)}
MORE_J: list[tuple[dict[str, Any], float]] = [
    ({}, 0.0),
    (WINDOW, 200.0),
    (WINDOW | {"averages": "other"}, 0.0),
    (WINDOW | {"averages": "none", "power_refresh_s": Estimated(value=2.0)}, 400.0),
    ({"delay_s": Estimated(value=0.1, low=0.05, high=0.15), "idle_w": Estimated(value=50.0)}, 0.15 * 350),
    (
        {"seen_share": Estimated(value=0.25, low=0.2, high=0.3), "idle_w": Estimated(value=50.0)},
        0.8 * (20 * 400 - 4000),
    ),
    ({"seen_share": Estimated(value=1.0, low=0.9, high=1.0)}, 0.0),
    ({"sensor": "power_average_mw", "seen_share": Estimated(value=0.25)}, 0.0),
    ({"device_uuid": "GPU-9", "seen_share": Estimated(value=0.25)}, 0.0),
]


def test_the_bound_follows_from_what_was_found(log: Store) -> None:
    """Half of the averaging window at the 400 W limit; what is late or unseen between 50 W and the limit; of 4 kJ over 20 s."""
    runs = [[], *([relied_on(**about)] for about, _ in MORE_J)]
    found = measured(log, *runs)
    plain, *relying = (row["energy_uncertainty_j"] for row in found)
    assert len({row["energy_j"] for row in found}) == 1
    assert [bound - plain for bound in relying] == pytest.approx([more_j for _, more_j in MORE_J])


def test_a_documented_window_stands_where_it_was_found_again(log: Store) -> None:
    """An estimate is no better than what is known."""
    window = {"averages": "boxcar", "averaging_window_s": Estimated(value=0.98, low=0.95, high=1.01)}
    plain, relying = measured(log, [], [relied_on(**window)], power_window_ns=10**9)
    assert plain == relying


QUARTER = {"seen_share": Estimated(value=0.25, low=0.2, high=0.3), "power_refresh_s": Estimated(value=0.1)}


def reasons(log: Store) -> list[str]:
    (row,) = rows(log, "SELECT invalid_reasons FROM experiment_results")
    return [reason for reason in row["invalid_reasons"] if "sensor sees" in reason or "is known to" in reason]


def test_a_part_time_sensor_without_a_counter_makes_a_result_invalid(log: Store) -> None:
    """Nobody knows what a load in step with it did."""
    measured(log, [relied_on(**QUARTER)])
    assert reasons(log) == [
        "the energy is known to 80.3% only, more than 10.0%",
        "the power sensor sees 20% of the time, and the load may have kept step with it",
    ]


def test_a_load_that_was_shifted_keeps_no_step(log: Store) -> None:
    """Pauses of up to a refresh between the batches leave what chance leaves, and shorter ones leave all."""
    run = {"worker": [*worker_events(counter_j=None), (0.6, relied_on(**QUARTER))], "sampler": sampled()}
    for number, pauses_s in enumerate((0.05, 0.1)):
        experiment(
            log,
            experiment_id=f"run-{number}",
            plan=Plan(workload=WorkloadPlan(shift_pauses_s=pauses_s)),
            **run,
        )
    catch_up(log)
    in_step, shifted = rows(log, "SELECT invalid_reasons FROM experiment_results ORDER BY experiment_id")
    assert any("sensor sees 20%" in reason for reason in in_step["invalid_reasons"])
    assert not any("sensor sees" in reason for reason in shifted["invalid_reasons"])


def test_a_part_time_sensor_beside_a_counter_is_no_reason(log: Store) -> None:
    """The counter is the figure."""
    experiment(log, worker=[*worker_events(), (0.6, relied_on(**QUARTER))])
    catch_up(log)
    assert reasons(log) == []


def test_a_counter_that_counts_otherwise_is_told_with_every_result(log: Store) -> None:
    """From 2 % on, as a warning and beside the device."""
    counts = (1.03, 0.97, 1.01)
    for number, times in enumerate(counts):
        relied = relied_on(counter_over_power=Estimated(value=times))
        experiment(log, experiment_id=f"run-{number}", worker=[*worker_events(), (0.6, relied)])
    catch_up(log)
    told = rows(log, "SELECT code, value FROM warnings ORDER BY experiment_id")
    assert [(row["code"], row["value"]) for row in told] == [
        ("counter_against_power", times) for times in counts[:2]
    ]
    beside = rows(log, "SELECT counter_over_power FROM devices ORDER BY experiment_id")
    assert [row["counter_over_power"] for row in beside] == list(counts)


def test_the_counters_tick_is_the_calibrated_one(log: Store) -> None:
    """Whatever the half second told in which the meter looked for it."""
    worker = [*worker_events(), (0.6, relied_on(energy_refresh_s=Estimated(value=0.02)))]
    experiment(log, worker=worker)
    catch_up(log)
    assert rows(log, "SELECT counter_tick_sec FROM devices") == [{"counter_tick_sec": 0.02}]
