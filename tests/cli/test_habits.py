"""Small habits of the command line, on a store of experiments with chosen figures."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from llem.plan import Plan, WindowsPlan
from llem.store import Store
from llem_events.events import ExperimentInterrupted
from tests.conftest import LLEM, QUICK, Run, quiet
from tests.world import experiment, worker_events

WRAPPED = ("measure", "--meter", "simulated", "--set", "windows.baseline_s=0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three experiments, two of one name, one with labels."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    named = Plan(name="base", windows=WindowsPlan(baseline_s=3.0))
    experiment(store, experiment_id="one", plan=named)
    experiment(store, experiment_id="two", plan=named, labels={"site": "lab", "key": "a=b"})
    experiment(store, experiment_id="three")
    return store.path


def ids(llem: Run, folder: Path, *arguments: str) -> list[str]:
    """Ids of the runs that `llem runs` lists as JSON."""
    done = llem("runs", "--json", *arguments, "--store", folder)
    assert done.returncode == 0, done.stderr
    return [row["experiment_id"] for row in json.loads(done.stdout)]


@pytest.mark.slow
def test_runs_are_chosen_by_label_name_time_and_number(llem: Run, folder: Path) -> None:
    """Every option narrows the list; JSON has the names of columns."""
    assert set(ids(llem, folder)) == {"one", "two", "three"}
    assert ids(llem, folder, "--label", "site=lab", "--label", "key=a=b", "--name", "b*") == ["two"]
    assert ids(llem, folder, "--since", "2099-01-01") == []
    assert len(ids(llem, folder, "--since", "2001-01-01T00:00+01:00", "--limit", "2")) == 2


@pytest.mark.slow
def test_a_list_and_a_result_call_the_same_figure_by_the_same_name(llem: Run, folder: Path) -> None:
    """Output tokens and their rate in `runs` are those in `show`; in JSON they have the names of columns."""
    heads, _, cells = llem("runs", "--limit", "1", "--store", folder).stdout.splitlines()
    listed = dict(zip(re.split(r"\s{2,}", heads), re.split(r"\s{2,}", cells), strict=True))
    shown = dict(re.findall(r"^(.+?) {2,}([\d.,]+)", llem("show", "--store", folder).stdout, re.MULTILINE))
    (row,) = json.loads(llem("runs", "--limit", "1", "--json", "--store", folder).stdout)
    for name, key in (("output tokens", "output_tokens"), ("output tokens/s", "output_tokens_per_second")):
        assert float(listed[name]) == pytest.approx(float(shown[name].replace(",", "")), abs=0.05)
        assert float(listed[name]) == pytest.approx(row[key], abs=0.05)
    assert row["tokens_per_second"] > row["output_tokens_per_second"] and "all tokens/s" in shown


def test_a_run_that_was_cut_short_says_why_once(llem: Run, tmp_path: Path) -> None:
    """The reason against it names the processes; no warning says the same again."""
    store = Store(tmp_path / "data").create()
    end = ExperimentInterrupted(reason="SIGINT", processes_completed=0, processes_failed=0)
    experiment(store, end=end, worker=worker_events()[:-1])
    shown = llem("show", "--store", store.path).stdout
    assert "  not every process ran to its end: SIGINT: no completion event of processes 0" in shown
    assert "incomplete experiment" not in shown


@pytest.mark.slow
def test_a_name_stands_for_its_newest_run(llem: Run, folder: Path) -> None:
    """`show NAME` shows one experiment, `export --runs NAME` writes all of that name."""
    assert llem("show", "base", "--store", folder).stdout.startswith("two  base: tiny")
    written = llem("export", "-", "--runs", "base", "--store", folder).stdout
    assert [line.partition(",")[0] for line in written.splitlines()[1:]] == ["one", "two"]
    assert "no experiment" in llem("show", "nobody", "--store", folder).stderr


@pytest.mark.slow
def test_a_table_is_a_query(llem: Run, folder: Path) -> None:
    """`llem query TABLE` shows the table, and a misspelt one is recognised."""
    done = llem("query", "warnings", "-f", "csv", "-o", "/dev/stdout", "--store", folder)
    assert done.stdout.startswith("experiment_id,code,text,process_index")
    assert "did you mean samples" in llem("query", "sampels", "--store", folder).stderr


def test_saved_queries_can_be_read(llem: Run) -> None:
    """--list honours -f, and prints the SQL of the query that is named."""
    listed = json.loads(llem("query", "--list", "-f", "json").stdout)
    sql = llem("query", "--list", "--saved", "repeats").stdout
    assert {query["name"]: query["sql"] for query in listed}["repeats"] == sql


@pytest.mark.slow
def test_options_of_every_command_may_follow_it(llem: Run, folder: Path) -> None:
    """-q leaves only errors on stderr, -V prints the version, wherever they stand."""
    assert llem("rebuild", "-q", "--store", folder).stderr == ""
    assert llem("runs", "-V").stdout == llem("--version").stdout != ""
    assert "no store" in llem("query", "-q", "samples", "--store", folder / "none").stderr


@pytest.mark.slow
def test_the_stdout_of_a_wrapped_program_stays_its_own(llem: Run, store: Path, tmp_path: Path) -> None:
    """The result goes to stderr or into -o FILE; its title has the command and its exit status."""
    file = tmp_path / "result.json"
    done = llem(*WRAPPED, "--json", "-o", file, "--", "sh", "-c", "echo mine; exit 3")
    assert (done.returncode, done.stdout) == (3, "mine\n")
    assert json.loads(file.read_text())["total_tokens"] is None
    assert "exists" in llem(*WRAPPED, "-o", file, "--", "true").stderr
    shown = llem("show").stdout
    assert "sh -c 'echo mine; exit 3', exit status 3, completed" in shown
    assert "output tokens" in shown and "not measured" in shown


@pytest.mark.slow
def test_what_made_requests_fail_is_on_the_screen(llem: Run, store: Path) -> None:
    """The commonest error and how many requests had it."""
    failing = ("--set", "engine.simulated.fail_requests=[0,1,2]")
    done = llem("measure", "--engine", "simulated", "--meter", "simulated", *QUICK, *failing)
    assert done.returncode == 1
    assert "3 requests failed: failed as engine.simulated.fail_requests asks" in done.stdout


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_or_closed_stream_is_no_internal_error(stream: str, folder: Path) -> None:
    """A stdout that cannot be written is exit status 2 in one line; a stderr that cannot be is ignored."""
    number = {"stdout": 1, "stderr": 2}[stream]
    for target in ("&-", "/dev/full"):
        command = f"{LLEM} runs --store {folder} {number}>{target}"
        done = quiet(subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False))
        if stream == "stdout":
            assert done.returncode == 2
            assert done.stderr.startswith("llem: standard output cannot be written: found ")
        else:
            assert (done.returncode, len(done.stdout.splitlines())) == (0, 5)


@pytest.mark.slow
@pytest.mark.torch
def test_a_hub_that_does_not_answer_is_said_in_two_lines(llem: Run) -> None:
    """Its client's retries are one line, however many there are, and the error another."""
    nobody = "http://127.0.0.1:9"
    done = llem(
        "measure", "--model", "nobody/nothing", HF_HUB_OFFLINE="0", HTTPS_PROXY=nobody, https_proxy=nobody
    )
    assert done.returncode == 2
    asked, error = done.stderr.splitlines()
    assert asked == "llem: the hub does not answer; it is asked again for half a minute"
    assert "cannot be loaded: found the hub cannot be reached" in error


def test_a_program_or_a_model_in_the_place_of_a_plan_is_told_where_it_stands(llem: Run) -> None:
    """`llem measure ls` reads a plan that is not there; a newcomer meant the program, or a model."""
    done = llem("measure", "ls")
    assert done.returncode == 2
    assert "a model stands behind --model, a program behind --" in done.stderr
    assert llem("study", "ls").stderr.endswith("expected a TOML file\n")


@pytest.mark.slow
def test_the_plan_of_a_dry_run_goes_into_a_file_too(llem: Run, tmp_path: Path) -> None:
    """`-o` is heeded: the file is a plan, in JSON too, is never replaced, and nothing is left on stdout."""
    plan = tmp_path / "plan.toml"
    done = llem("measure", "--dry-run", "--engine", "simulated", "--set", "engine.batch_size=8", "-o", plan)
    assert (done.returncode, done.stdout) == (0, "")
    again = llem("measure", plan, "--dry-run")
    assert again.stdout == plan.read_text() and "batch_size = 8" in again.stdout
    as_json = plan.with_suffix(".json")
    assert llem("measure", plan, "--dry-run", "--json", "-o", as_json).returncode == 0
    assert llem("measure", as_json, "--dry-run").stdout == again.stdout
    refused = llem("measure", plan, "--dry-run", "-o", plan)
    assert (refused.returncode, refused.stdout) == (2, "") and "exists" in refused.stderr


def test_a_type_of_events_that_nobody_wrote_is_told(llem: Run, folder: Path) -> None:
    """A typing error in `log cat --type` is not silence: the types that there are come on stderr."""
    done = llem("log", "cat", "one", "--type", "window_open", "--store", folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no event is of type window_open; there are " in done.stderr and "window_opened" in done.stderr
