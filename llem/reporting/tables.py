"""The sections of a page that list: figures, costs, sensors, factors, environments, and how it is made again."""

from collections.abc import Iterator, Sequence
from html import escape

from llem.comparing.doubts import ENVIRONMENT
from llem.comparing.findings import said_of_costs
from llem.comparing.groups import OF_A_SITE, Group
from llem.reporting.facts import Sensor
from llem.reporting.markup import bounds, mean, table, table_of_html
from llem.reporting.report import FIGURES, Part, Report
from llem.units import MS_PER_S, duration_in_words
from llem_events.events import StatedFactor

REPORTED = (
    *(
        "energy_per_output_token_j",
        "total_energy_j",
        "output_tokens_per_second",
        "tokens_per_second",
        "mean_power_w",
        "duration_sec",
    ),
    *(
        f"{series}_{statistic}_ms"
        for series in ("ttft", "itl", "e2e")
        for statistic in ("median", "p95", "p99")
    ),
    *(
        "energy_adjusted_j",
        "energy_uncertainty_j",
        "peak_memory_mb",
        "max_temperature_c",
        "throttle_sec",
        "model_flops_utilisation",
    ),
)
SENSOR_HEADS = (
    "device",
    "sensor",
    "calibrated",
    "reads every, ms",
    "averages over, ms",
    "late by, ms",
    "sees, %",
    "counter over power, %",
)
FACTOR_HEADS = ("factor", "value", "low", "high", "unit", "of", "source", "date")


def costs(report: Report) -> Iterator[Part]:
    """Of tokens and of idling, where only lengths differ."""
    if report.findings.costs is not None:
        yield "<h2>What a token costs</h2>"
        yield f"<p>{escape(said_of_costs(report.findings.costs))}.</p>"


def figures(report: Report) -> Iterator[Part]:
    """Every figure: the mean of each group's runs with its interval."""
    groups = report.findings.groups
    yield "<h2>Figures</h2>"
    rows = []
    for name in REPORTED:
        values = [group.values(name) for group in groups]
        if any(value is not None for each in values for value in each):
            means = [
                mean(name, each, report.level) + bounds(name, group.runs)
                for each, group in zip(values, groups, strict=True)
            ]
            rows.append([escape(FIGURES[name].title), escape(FIGURES[name].unit), *means])
    names = [group.name for group in groups] if len(groups) > 1 else [""]
    yield table_of_html(["", "unit", *names], rows)
    is_alone = sum(len(group.runs) for group in groups) == 1
    said = (
        "In brackets: where a quantile lies by the run's own requests, as far as they are enough."
        if is_alone
        else "Means over runs (geometric, but of energy above idle and of figures that reach 0) with their intervals; “not measured” where a run lacks it."
    )
    yield f'<p class="note">{said}</p>'


def sensors(report: Report) -> Iterator[Part]:
    """What a calibration found of each power sensor that figures rely on."""
    if report.sensors:
        yield "<h2>What the power sensors see</h2>"
        yield '<p class="note">As found under a load that is known. A sensor that sees a part of the time can be fooled by a load in step with it; the energy counter cannot.</p>'
        yield table(SENSOR_HEADS, [_sensor_row(sensor) for sensor in report.sensors])


def _sensor_row(sensor: Sensor) -> list[str]:
    age = "" if sensor.age_sec is None else f", {duration_in_words(sensor.age_sec)} before"
    figures = (
        (sensor.power_refresh_sec, MS_PER_S),
        (sensor.averaging_window_sec, MS_PER_S),
        (sensor.delay_sec, MS_PER_S),
        (sensor.seen_share, 100),
        (sensor.counter_over_power, 100),
    )
    return [
        f"{sensor.device_name} ({sensor.device_uuid})",
        sensor.sensor or "not in this store",
        f"not: {sensor.reason}" if sensor.reason else f"in {sensor.run}{age}",
        *("" if value is None else f"{value * factor:.4g}" for value, factor in figures),
    ]


def footprint(report: Report) -> Iterator[Part]:
    """What the energy means for a site, and by which factors."""
    site = report.site
    if site is None:
        return
    yield "<h2>Footprint</h2>"
    yield '<p class="note">The measured energy times factors that were stated, not measured; carbon is without what making the hardware emitted.</p>'
    rows = []
    for name, figure in OF_A_SITE.items():
        values = [group[name] for group in site.groups]
        if any(value is not None for each in values for value in each):
            unit = figure.unit or site.currency
            means = [mean(name, each, report.level) for each in values]
            rows.append([escape(figure.title), escape(unit), *means])
    groups = report.findings.groups
    if rows:
        yield table_of_html(
            ["", "unit", *([group.name for group in groups] if len(groups) > 1 else [""])], rows
        )
    if site.reasons:
        yield f'<ul class="note">{"".join(f"<li>{escape(reason)}</li>" for reason in site.reasons)}</ul>'
    yield table(FACTOR_HEADS, [_factor_row(factor, site.hours) for factor in site.factors])


def _factor_row(factor: StatedFactor, hours: int) -> list[str]:
    low, high = ("" if bound is None else f"{bound:.6g}" for bound in (factor.low, factor.high))
    value = f"by time, {hours:,} rows" if factor.value is None else f"{factor.value:.6g}"
    return [factor.factor, value, low, high, factor.unit, factor.basis or "", factor.source, factor.date]


def environment(report: Report) -> Iterator[Part]:
    """Where runs were measured, what of that differs, and which runs they are."""
    groups = report.findings.groups
    names = ["", *(group.name for group in groups)]
    everything = [_environment_row(column, groups) for column in ENVIRONMENT]
    if len(groups) == 1:
        yield "<h2>Where it ran</h2>" + table([], everything)
    else:
        rows = [[key, *values] for key, values in report.findings.differences.items()]
        rows += [row for row in everything if len(set(row[1:])) > 1]
        yield "<h2>What differs</h2>"
        yield table(names, rows) if rows else "<p>Nothing in the plans, and nothing in the environment.</p>"
        yield f"<details><summary>The environment</summary>{table(names, everything)}</details>"
    ids = [
        [group.name, run, report.digests.get(run, "")]
        for group in groups
        for run in group.values("experiment_id")
    ]
    heads = ["", "run", "root digest of its log"]
    yield f"<details><summary>The runs</summary>{table(heads, ids)}</details>"


def _environment_row(column: str, groups: Sequence[Group]) -> list[str]:
    return [
        column,
        *(
            ", ".join(sorted({str(value or "not known") for value in group.values(column)}))
            for group in groups
        ),
    ]


def again(report: Report) -> Iterator[Part]:
    """Commands that make the page anew, and the plan."""
    yield "<h2>Made again</h2>"
    yield "<p>Every figure follows from the log, and is the same when it is derived again.</p>"
    yield f"<pre>{escape(chr(10).join(report.again))}</pre>"
    if report.plan:
        yield f"<details><summary>The plan</summary><pre>{escape(report.plan)}</pre></details>"
