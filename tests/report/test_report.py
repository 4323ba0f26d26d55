"""`llem report`: one page that needs nothing else, in which every run can be seen and no text of others does anything."""

import base64
import gzip
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec.structs import replace

from llem.plan import EnginePlan, Plan
from llem.projections.current import open_caught_up
from llem.reporting.charts import undominated
from llem.reporting.making import make_page
from llem.reporting.svg import Scale, number, scale
from llem.reporting.zoom import packed
from llem.store import Store
from llem_events.events import Event, MeterStarted, ModelLoaded, StudyPlace
from tests.cli import fixed_store
from tests.conftest import Run, events_of
from tests.report.chromium import drawn, needs_chromium
from tests.world import (
    begun_study,
    experiment,
    ramp_w,
    request,
    run_of_energy,
    sampler_events,
    worker_events,
)

# Scripts run, and what they say of themselves is told.
LOOKED_AT_CLOSER = (
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
    "--run-all-compositor-stages-before-draw",
)
HOSTILE = "</script><img src=x onerror=alert(1)>"
ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "details",
        "summary",
        "span",
    ),
    *(
        "div",
        "table",
        "tr",
        "th",
        "td",
        "pre",
        "svg",
        "line",
        "text",
        "circle",
        "rect",
        "path",
        "h3",
        "figure",
        "script",
    ),
}


class Elements(HTMLParser):
    """Names and attributes of all elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


def run_id(cell: int, block: int) -> str:
    return f"20260102-0304{cell}{block}-0123456789ab"


def measured(store: Store, cell: int, block: int, *, energy: float, name: str | None = None) -> None:
    """A run whose energy is so many times the usual one."""
    experiment(
        store,
        experiment_id=run_id(cell, block),
        plan=Plan(name=name, engine=EnginePlan(batch_size=cell)),
        labels={"block": str(block), "cell": name or f"c{cell}"},
        worker=worker_events(counter_j=(1_000.0, 1_000.0 + 4_000.0 * energy)),
        sampler=sampler_events(power_w=lambda second: energy * ramp_w(second)),
    )


@pytest.fixture(scope="module")
def two_cells(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three blocks of two cells, of which the second takes half the energy."""
    store = Store(tmp_path_factory.mktemp("two-cells") / "store").create()
    for block, spread in enumerate((0.0, 0.01, -0.005)):
        measured(store, 1, block, energy=1 + spread)
        measured(store, 2, block, energy=0.5 * (1 - spread))
    begun_study(store, "20260101-030400-0123456789ab")
    return store


def page_of(llem: Run, store: Store, *arguments: str) -> str:
    """The page that a report writes."""
    out = store.path.parent / "report.html"
    done = llem("report", *arguments, "-o", out, "--force", "--store", store.path)
    assert done.returncode == 0, done.stderr
    return out.read_text(encoding="utf-8")


def test_page_needs_nothing_else(llem: Run, two_cells: Store) -> None:
    """No address, no element that could load one; a policy that lets one script run, by its digest; every drawing is whole XML."""
    page = page_of(llem, two_cells, "cell=c1", "cell=c2")
    assert Elements(page).names <= ALLOWED
    assert not Elements(page).attributes & {"src", "href", "srcset", "style", "onload", "onerror"}
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'" in page
    assert not re.search(r"https?://|url\(|@import", page.replace(script, ""))
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_the_command_makes_the_same_page_again(llem: Run, two_cells: Store) -> None:
    """With every option that changes what stands in it, and no other."""
    options = ("--title", "two cells", "--level", "0.9", "--margin", "0.05")
    page = page_of(llem, two_cells, "cell=c1", "cell=c2", *options)
    assert (
        "llem report cell=c1 cell=c2 --title &#x27;two cells&#x27; --level 0.9 --margin 0.05 -o report.html"
        in page
    )


def test_a_name_of_two_studies_is_refused_as_such(llem: Run, tmp_path: Path) -> None:
    """Not as one that nothing has."""
    store = Store(tmp_path / "store").create()
    for day in (1, 2):
        begun_study(store, f"2026010{day}-030400-0123456789ab", name="twice")
    page = tmp_path / "report.html"
    for command in (("report", "twice", "-o", page), ("export", "-", "--runs", "twice")):
        done = llem(*command, "--store", store.path)
        assert (done.returncode, "study twice: found 2 studies: 20260101" in done.stderr) == (2, True)


def test_an_estimate_is_called_so_in_the_heading(tmp_path: Path) -> None:
    """Beside the figure, where whoever reads one sentence reads it."""
    store = Store(tmp_path / "store").create()
    run_of_energy(store, 1.0, source="estimated", experiment_id=run_id(1, 0))
    with open_caught_up(store, lambda line: None) as tables:
        made = make_page(tables, store, None, [run_id(1, 0)], file_name="report.html")
    assert re.search(r'<p class="lead">Energy per output token [\d.]+ J \(estimated\)\.</p>', made.html)


def test_page_says_what_was_found(llem: Run, two_cells: Store) -> None:
    """The ratio with its interval and verdict, a dot for each run, the verdicts of the runs, and how to check it."""
    page = page_of(llem, two_cells, "cell=c1", "cell=c2")
    assert re.search(r"cell=c2: energy per output token [\d.]+ J \[[\d.]+, [\d.]+\], 0\.[45]\d* \[", page)
    assert "times that of cell=c1 (n = 3 blocks, Holm p" in page
    assert "at the same output tokens/s." in page
    assert '<span class="good">lower</span>' in page
    for cell in (1, 2):
        for block in range(3):
            assert page.count(run_id(cell, block)) >= 2
    assert "engine.batch_size" in page
    assert "llem rebuild --check" in page
    digest = llem("log", "digest", run_id(2, 1), "--store", two_cells.path).stdout.split()[0]
    assert f"<td>{run_id(2, 1)}</td><td>{digest}</td>" in page
    assert ">TTFT p95, ms</text>" in page
    assert "FLOP/byte" not in page, "the GPU is not known"


def on_a_known_gpu(event: Event) -> Event:
    """The same of a model of 8 billion weights on an H100."""
    match event:
        case ModelLoaded():
            return replace(event, dtype="bfloat16", non_embedding_parameters=8_000_000_000)
        case MeterStarted():
            (metered,) = event.devices
            named = replace(metered.device, name="NVIDIA H100 80GB HBM3")
            return replace(event, devices=[replace(metered, device=named)])
    return event


@pytest.mark.slow
def test_where_a_run_lies_below_its_roof(llem: Run, tmp_path: Path) -> None:
    """FLOPs for each byte of weights, below the roof of its GPU."""
    store = Store(tmp_path / "store").create()
    worker, sampler = (
        [(second, on_a_known_gpu(event)) for second, event in events]
        for events in (worker_events(), sampler_events())
    )
    experiment(store, experiment_id=run_id(1, 0), worker=worker, sampler=sampler)
    page = page_of(llem, store)
    assert "3.35 TB/s, 989.4 TFLOP/s" in page and page.count('class="roof"') == 1
    # of 8 + 4 tokens in 4 steps, of which the first computes eight
    (intensity,) = re.findall(r"([\d.]+) FLOP/byte", page)
    assert float(intensity) == pytest.approx(11 / 4, rel=0.01)


@pytest.mark.slow
def test_a_run_far_from_the_others_is_a_ring(llem: Run, tmp_path: Path) -> None:
    """It stays among them, with a line that says so; nothing of the kind where none is."""
    store = Store(tmp_path / "store").create()
    for block, energy in enumerate((1.0, 1.01, 0.99, 1.02, 1.5)):
        measured(store, 1, block, energy=energy)
        measured(store, 2, block, energy=2.02 - 0.01 * block)
    page = page_of(llem, store, "cell=c1", "cell=c2")
    assert page.count('<circle class="dot c0 hollow"') == 1 and 'c1 hollow"' not in page
    assert f"cell=c1: {run_id(1, 4)} is far from the other runs in energy per output token, energy" in page


def test_energy_of_one_run_is_that_of_the_table(llem: Run, tmp_path: Path) -> None:
    """To the digits shown; the page of one run is small."""
    store = Store(tmp_path / "store").create()
    measured(store, 1, 0, energy=1.0)
    page = page_of(llem, store)
    assert '<td>energy</td><td>J</td><td><span title="4000.0">4,000</span></td>' in page
    assert len(page.encode()) < 200_000
    assert "What differs" not in page and "<summary>The plan</summary>" in page


@pytest.mark.slow
def test_quantiles_of_one_run(llem: Run, tmp_path: Path) -> None:
    """With the interval that its own requests give: 80 are enough for the 95th percentile, not for the 99th."""
    store = Store(tmp_path / "store").create()
    requests = [request(number, 10 + number / 8) for number in range(80)]
    experiment(store, experiment_id=run_id(1, 0), worker=worker_events(requests=requests))
    cells = dict(re.findall(r"<tr><td>(end to end p9.)</td><td>ms</td><td>(.*?)</td>", page_of(llem, store)))
    assert re.fullmatch(
        r'<span title="260.*?">260</span> <span class="of">\[260, 260\]</span>', cells["end to end p95"]
    )
    assert cells["end to end p99"].endswith(">260</span>")


@pytest.mark.slow
def test_texts_of_others_are_shown_and_do_nothing(llem: Run, tmp_path: Path) -> None:
    """A name that would be markup, and quotes in a label, stand there as text."""
    store = Store(tmp_path / "store").create()
    measured(store, 1, 0, energy=1.0, name=HOSTILE)
    measured(store, 2, 0, energy=1.0, name='quoted "label"')
    page = page_of(llem, store, f"cell={HOSTILE}", 'cell=quoted "label"')
    assert HOSTILE not in page
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in page
    assert Elements(page).names <= ALLOWED


@pytest.mark.slow
def test_one_sample_that_stands_out_can_be_seen(llem: Run, tmp_path: Path) -> None:
    """However many samples a step of the picture holds, its band reaches to the highest."""
    store = Store(tmp_path / "store").create()
    run = run_id(1, 0)
    sampler = sampler_events(
        power_w=lambda second: 1_000.0 if 15.0 <= second < 15.009 else 100.0, hz=100.0, source="counter"
    )
    experiment(store, experiment_id=run, sampler=sampler)
    page = page_of(llem, store)
    (band,) = re.findall(r'<path class="band c0" d="m(.*?)z"', page)
    steps = [float(step) for step in re.findall(r"-?[\d.]+", band)]
    heights = list(itertools.accumulate(steps[1::2]))
    assert min(heights) < 40 < 200 < sorted(heights)[5]


@pytest.mark.slow
def test_a_run_without_anything_is_still_a_page(llem: Run, store: Path) -> None:
    """A wrapped program has no tokens and no latency, and here no power: the page says what there is."""
    done = llem("measure", "--meter", "estimate", "--set", "windows.baseline_s=0.1", "--", "true")
    assert done.returncode == 0, done.stderr
    page = page_of(llem, Store(store))
    assert "<h2>Figures</h2>" in page
    assert "<h2>Latency</h2>" not in page


@pytest.mark.slow
def test_charts_are_files_for_papers(llem: Run, two_cells: Store, tmp_path: Path) -> None:
    """Each drawing of the page, whole XML with its own colours; nothing there is replaced unless forced."""
    page = page_of(llem, two_cells, "cell=c1", "cell=c2", "--svg", str(tmp_path / "charts"))
    files = sorted(path.name for path in (tmp_path / "charts").iterdir())
    assert files == [
        *("drift.svg", "frontier.svg", "latency-end-to-end.svg", "latency-time-between-tokens.svg"),
        *("latency-time-to-first-token.svg", "power-1.svg", "power-2.svg", "ratios.svg", "runs.svg"),
    ]
    for path in (tmp_path / "charts").iterdir():
        drawing = path.read_text(encoding="utf-8")
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert drawing.partition("</style>")[2].strip() in page
    again = llem(
        "report",
        "cell=c1",
        "-o",
        tmp_path / "r.html",
        "--svg",
        tmp_path / "charts",
        "--store",
        two_cells.path,
    )
    assert again.returncode == 2 and "exists" in again.stderr
    assert not (tmp_path / "r.html").exists()


def test_charts_without_a_place_are_refused_before_the_page(
    llem: Run, two_cells: Store, tmp_path: Path
) -> None:
    """A folder that cannot be made is named, and no page is left behind."""
    page = tmp_path / "r.html"
    done = llem("report", "-o", page, "--svg", tmp_path / "no" / "charts", "--store", two_cells.path)
    assert done.returncode == 2 and f"no folder {tmp_path / 'no'}" in done.stderr
    assert not page.exists()


def test_power_is_drawn_with_what_happened(llem: Run, tmp_path: Path) -> None:
    """Windows by name, one block for each time that the device was slowed down, and its temperature."""
    store = Store(tmp_path / "store").create()
    sampler = sampler_events(
        throttle=lambda second: 4 if 12 < second < 14 or second > 28 else 0,
        temperature_c=lambda second: 40 + second,
    )
    experiment(store, experiment_id=run_id(1, 0), sampler=sampler)
    page = page_of(llem, store)
    assert page.count('<rect class="throttled"') == 2
    assert page.count('<path class="heat"') == 1
    assert {"shade w-baseline", "shade w-warmup", "shade w-measurement"} <= set(
        re.findall(r'<rect class="(.*?)"', page)
    )
    assert ">measurement</text>" in page


@pytest.mark.slow
def test_all_samples_in_the_page(llem: Run, tmp_path: Path) -> None:
    """What stands there, unpacked by hand, is what was sampled, to a tenth of a watt and of a millisecond."""
    store = Store(tmp_path / "store").create()
    experiment(store, experiment_id=run_id(1, 0))
    page = page_of(llem, store, "--samples")
    (text,) = re.findall(r'<script type="text/plain" id="samples-0">(.*?)</script>', page)
    at_s, power_w = unpacked(text)
    assert len(at_s) == 345
    assert at_s[0] == pytest.approx(-9.45) and np.diff(at_s) == pytest.approx(0.1, abs=1e-4)
    assert power_w == pytest.approx([ramp_w(10 + second) for second in at_s], abs=0.05)


def test_a_million_samples_are_small() -> None:
    """Less than 1.6 MB for a million that come irregularly, of power that is never the same twice."""
    random = np.random.default_rng(1)
    at_s = np.cumsum(0.01 + 0.0002 * random.standard_normal(50_000))
    text = packed(at_s, 300 + 5 * random.standard_normal(50_000))
    assert len(text) * 20 < 1_600_000 * 2
    assert unpacked(text)[0] == pytest.approx(at_s, abs=1e-4)


@pytest.mark.slow
def test_sensors_that_were_calibrated_have_a_section(llem: Run, tmp_path: Path) -> None:
    """Of the run that calibrated, and of one that relies on it; a store without any has none."""
    store = Store(tmp_path / "store").create()
    fixed_store.make_calibrated(store)
    for run, calibrated in (
        (fixed_store.CALIBRATED, "not: the load does not show in the power"),
        (fixed_store.RELYING, "3 hours before"),
    ):
        page = page_of(llem, store, run)
        assert "What the power sensors see" in page and calibrated in page
        assert "<td>101</td><td>25.02</td><td>4.347</td><td>24.77</td><td>103.4</td>" in page


def test_what_nothing_else_beats() -> None:
    """More of the first and less of the second is better; equal points are one."""
    assert undominated([(1, 5), (2, 3), (2, 4), (3, 3.5), (4, 9), (4, 8)]) == [(2, 3), (3, 3.5), (4, 8)]


def unpacked(text: str) -> tuple[list[float], list[float]]:
    """Seconds and watts of packed samples, by arithmetic of its own."""
    planes = gzip.decompress(base64.b64decode(text))
    count = len(planes) // 8
    columns = []
    for start, per in ((0, 10_000), (4 * count, 10)):
        total, values = 0, []
        for place in range(count):
            zigzag = sum(planes[start + plane * count + place] << 8 * plane for plane in range(4))
            total += -(zigzag + 1) // 2 if zigzag & 1 else zigzag // 2
            values.append(total / per)
        columns.append(values)
    return columns[0], columns[1]


@pytest.mark.slow
@needs_chromium
def test_in_a_browser(llem: Run, tmp_path: Path) -> None:
    """With names that would be markup and without a network nothing is asked for and no error is told; power can be looked at closer; the drawings that stand there without JavaScript stay, for printing."""
    store = Store(tmp_path / "store").create()
    measured(store, 1, 0, energy=1.0, name=HOSTILE)
    measured(store, 2, 0, energy=1.0, name='quoted "label"')
    page_of(llem, store, f"cell={HOSTILE}", 'cell=quoted "label"', "--samples")
    page = tmp_path / "report.html"
    for attempt in range(5):  # on a busy machine virtual time runs out before samples are unpacked
        shown, told = drawn(page, tmp_path / f"profile-{attempt}", *LOOKED_AT_CLOSER, width=1400)
        assert "CONSOLE" not in told
        if 'class="uplot' in shown:
            break
    assert shown.count('class="uplot') == 2 and shown.count("345 samples. Drag to look closer") == 2
    assert shown.count("<svg") == page.read_text().count("<svg") >= 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "report.pdf"), "expected a name ending in .html"),
        (("no such run",), "run or study no such run: found no experiment"),
        (("no such run",), "`llem runs` and `llem studies` list them"),
        (("20260101",), "`llem study --resume 20260101-030400-0123456789ab` goes on"),
        (("cell=c1", "cell=c1"), "expected a run in one group"),
        (("cell=c1", "cell=c2", "--in", "s", "--all"), "--in and --all: found both"),
        (("cell=c1", "cell=c2", "--in", "s"), "study s: found none"),
        (("--all",), "--all: found no group KEY=VALUE"),
    ],
)
def test_what_no_page_can_be_written_of_is_refused(
    llem: Run, two_cells: Store, arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """One line, and no file."""
    out = () if "-o" in arguments else ("-o", tmp_path / "r.html")
    done = llem("report", *arguments, *out, "--store", two_cells.path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.glob("*.html"))


def test_the_newest_study_is_one_in_which_something_was_measured(llem: Run, two_cells: Store) -> None:
    """One that ended before its first run is passed over."""
    assert run_id(2, 2) in page_of(llem, two_cells)


def test_groups_are_looked_for_where_compare_looks(llem: Run, tmp_path: Path) -> None:
    """In the newest study that varies the key, in another one or in all runs; the command at the end of the page says where."""
    store = Store(tmp_path / "store").create()
    studies = [f"2026010{day}-030400-0123456789ab" for day in (3, 4)]
    runs = {study: [f"{study[:13]}0{cell}-0123456789ab" for cell in (1, 2)] for study in studies}
    for study in studies:
        begun_study(store, study)
        for cell, run in enumerate(runs[study]):
            place = StudyPlace(
                study_id=study, cell_index=cell, cell={"engine.batch_size": 1 + cell}, block=0, position=cell
            )
            plan = Plan(engine=EnginePlan(batch_size=1 + cell))
            run_of_energy(store, 1.0 + cell, experiment_id=run, study=place, plan=plan)
    older, newer = studies
    for options, shown in (
        ((), runs[newer]),
        (("--in", older), runs[older]),
        (("--all",), runs[older] + runs[newer]),
    ):
        page = page_of(llem, store, "batch_size=1", "batch_size=2", *options)
        assert sorted(set(re.findall(r"llem log verify ([-0-9a-f]+)", page))) == sorted(shown)[:3]
        assert " ".join(("llem report batch_size=1 batch_size=2", *options, "-o report.html")) in page


def test_a_page_is_not_replaced_unless_forced(llem: Run, two_cells: Store, tmp_path: Path) -> None:
    """What stands there stays."""
    out = tmp_path / "r.html"
    out.write_text("mine")
    done = llem("report", "cell=c1", "cell=c2", "-o", out, "--store", two_cells.path)
    assert (done.returncode, out.read_text()) == (2, "mine")


def test_axes_have_round_values_inside() -> None:
    """Even and logarithmic, wide and narrow, of one value alone."""
    for low, high, is_log in (
        (0.0, 1.0, False),
        (3.2, 3.3, False),
        (1.0, 1e6, True),
        (136.0, 185.0, True),
        (5.0, 5.0, True),
        (0.00226, 0.00226000001, False),
        (-0.00226000001, -0.00226, False),
        (67.04, 67.041, True),
    ):
        axis = scale([low, high], 0.0, 100.0, is_log=is_log)
        ticks = axis.ticks()
        assert 1 <= len(ticks) <= 8, (low, high)
        assert all(0 <= axis.at(tick) <= 100 for tick in ticks)
        assert len(set(map(number, ticks))) == len(ticks), "no two labels are alike"
    assert Scale(0.0, 10.0, 100.0, 0.0).at(2.5) == 75.0


def test_factors_that_were_given_are_told(llem: Run, two_cells: Store, tmp_path: Path) -> None:
    """Each with its bounds, source and date, and what they make of the energy; without any there is no such section."""
    path = tmp_path / "site.toml"
    path.write_text(f"[site]\npue = 1.5\nlow = 1.2\nhigh = 2\nsource = '{HOSTILE}'\ndate = '2025'\n")
    page = page_of(llem, two_cells, "cell=c1", "cell=c2", "--factors", str(path))
    assert "<td>pue</td><td>1.5</td><td>1.2</td><td>2</td>" in page
    assert "<td>energy of the site</td><td>J</td><td>6,0" in page
    assert "not given: g_per_kwh, price_per_kwh" in page
    assert "&lt;/script&gt;&lt;img" in page and HOSTILE not in page
    assert "--factors site.toml -o report.html" in page
    assert "<h2>Footprint</h2>" not in page_of(llem, two_cells, "cell=c1", "cell=c2")


@pytest.mark.slow
def test_a_footprint_that_was_published_is_reckoned_again(llem: Run, tmp_path: Path) -> None:
    """From the factors in the log of each run of the report, when the file is long gone; no figure of the run changes."""
    store = Store(tmp_path / "store").create()
    for cell in (1, 2):
        measured(store, cell, 0, energy=cell)
    path = tmp_path / "site.toml"
    path.write_text("[site]\npue = 1.5\nsource = 'S'\ndate = '2025'\n")
    nothing = llem("report", run_id(1, 0), "--record", "-o", tmp_path / "no.html", "--store", store.path)
    assert nothing.returncode == 2 and "report --record: found no factors" in nothing.stderr
    before = results_of(llem, store)
    page = page_of(llem, store, run_id(1, 0), run_id(2, 0), "--factors", str(path), "--record")
    path.unlink()
    asked = ("query", "-f", "csv", "SELECT facility_energy_j FROM footprint()", "--store", store.path)
    again = llem(*asked, "--factors", f"@{run_id(2, 0)}")
    assert again.stdout.splitlines()[1:] == ["6000.0", "12000.0"], again.stderr
    noted = [event["report_sha256"] for event in events_of(store.path, "note", "factors_stated")]
    assert noted == [hashlib.sha256(page.encode()).hexdigest()] * 2
    assert results_of(llem, store) == before
    unknown = llem(*asked, "--factors", "@nobody")
    assert unknown.returncode == 2 and "found no experiment" in unknown.stderr


def results_of(llem: Run, store: Store) -> str:
    """All figures of all runs."""
    return llem("query", "-f", "csv", "FROM experiment_results ORDER BY ALL", "--store", store.path).stdout
