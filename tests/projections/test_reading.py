"""An experiment is the same whether its rows were read whole, with those of others, or piece by piece."""

import hashlib
from collections.abc import Iterator
from operator import itemgetter

import pytest

from llem.projections import catch_up, open_readonly, rebuild, sample_pieces
from llem.projections.derive import reading
from llem.projections.derive import stored as stored_module
from llem.projections.derive.columns import LISTS
from llem.projections.derive.experiment import derive_experiment
from llem.projections.derive.held import Held
from llem.projections.derive.history import ExperimentFacts
from llem.projections.derive.rows import derived_rows
from llem.projections.derive.samples import COUNTED, DeviceSamples
from llem.projections.derive.source import SERIES, Device
from llem.projections.derive.stored import Stored
from llem.store import Store
from llem_events import SegmentReader
from tests.world import at, experiment, sampler_events, supervisor, worker_events, write

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def three(log: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Experiments of two processes, of one without a sampler, and of none, with the sums of large ones."""
    experiment(log, processes=2, experiment_id="run-1")
    supervisor(log, experiment_id="run-2")
    write(log, worker_events(), role="worker", index=0, experiment_id="run-2")
    supervisor(log, experiment_id="run-3")
    with monkeypatch.context() as patched:
        patched.setattr(sample_pieces, "SMALL_ROWS", 0)
        catch_up(log)
    return log


def test_rows_read_whole_give_what_pieces_give(three: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each of several that are read at once; a large one is not among them."""
    with open_readonly(three) as connection:
        found = list(reading.read_experiments(connection, ["run-1", "run-2", "run-3"]))
        assert [facts.experiment_id for facts, _ in found] == ["run-1", "run-2", "run-3"]
        for facts, held in found:
            stored = Stored(connection, facts.experiment_id)
            assert isinstance(held, Held)
            assert sorted(held.sampled()) == sorted(stored.sampled())
            assert of_source(held, facts) == of_source(stored, facts)
        monkeypatch.setattr(sample_pieces, "SMALL_ROWS", 500)
        found = list(reading.read_experiments(connection, ["run-1", "run-2", "run-3"]))
        kinds = [(facts.experiment_id, type(source)) for facts, source in found]
        assert kinds == [("run-2", Held), ("run-3", Held), ("run-1", Stored)]


@pytest.mark.parametrize("thinned_from", [0, 2**15], ids=["sums", "samples"])
@pytest.mark.slow
def test_tables_answer_what_memory_answers(
    three: Store, thinned_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question that is asked of an experiment, of spans with many samples, few and none."""
    monkeypatch.setattr(stored_module, "THINNED_FROM", thinned_from)
    with open_readonly(three) as connection:
        for facts, held in reading.read_experiments(connection, ["run-1", "run-2", "run-3"]):
            stored = Stored(connection, facts.experiment_id)
            # as text, in which NaN is itself; twice, for what was read once is kept
            for _ in range(2):
                assert list(map(str, answers(stored))) == list(map(str, answers(held)))


SPANS = [(at(-1), at(99)), (at(10.05), at(20)), (at(12.06), at(12.14)), (at(50), at(60))]
DEVICES = [Device(index, f"GPU-{index}") for index in range(3)]


def answers(source: Held | Stored) -> Iterator[object]:
    """What it says of samples and then of requests."""
    yield source.extremes("samples")
    for device in DEVICES:
        yield device, source.extent(device), source.last_sample_ns(device.process_index or 0, at(0))
        for span in SPANS:
            yield source.last_sample_ns(device.process_index or 0, span[1])
            values = source.values(device, span, COUNTED)
            yield {
                name: (each.samples, each.known, round(each.sum), each.least, each.most)
                for name, each in values.items()
            }
            at_ns, columns = source.samples(device, span, SERIES)
            yield at_ns.tolist(), [column.tolist() for column in columns.values()]
            sampled = DeviceSamples(source, device, span)
            yield sampled.count, sampled.powered, sampled.max_gap_sec, sampled.highest_power_w
            yield sampled.integrated_energy_j and round(sampled.integrated_energy_j, 6)
    yield source.extremes("requests"), source.repeated_request_ids()
    for role in ("worker-0", "worker-1", "sampler-0"):
        yield from _of_requests(source, hashlib.sha256(f"run-1/{role}".encode()).digest()[:16].hex())


def _of_requests(source: Held | Stored, segment_id: str) -> Iterator[object]:
    sizes = source.request_sizes(segment_id)
    yield sizes.event_numbers.tolist(), sizes.values.tolist(), sizes.warmup_requests
    yield source.request_ids(segment_id).tolist(), source.usage(segment_id)
    for kind in ("measurement", "warmup", "drain"):
        for since_s in (0.0, 28.26, 28.27):
            yield source.last_end_ns(segment_id, kind, at(since_s))
    for number in sizes.event_numbers.tolist():
        columns = source.requests(segment_id, number, number)
        lists = [getattr(columns, name) for name in LISTS]
        yield len(columns), [(each.values.tolist(), each.lengths.tolist()) for each in lists]
        yield {name: values.tolist() for name, values in columns.numbers.items()}
        yield columns.failed.tolist(), columns.finished.tolist(), columns.names_error.tolist()


def of_source(source: Held | Stored, facts: ExperimentFacts) -> object:
    """All derived rows."""
    derived = derive_experiment(source, facts)
    return {table: list(rows) for table, rows in derived_rows(source, derived).items()}


@pytest.mark.slow
def test_a_large_experiment_is_read_in_pieces(log: Store) -> None:
    """A small one beside it is not."""
    experiment(log, experiment_id="run-1")
    supervisor(log, experiment_id="run-2")
    write(log, worker_events(), role="worker", index=0, experiment_id="run-2")
    write(log, sampler_events(hz=2_000.0), role="sampler", index=0, experiment_id="run-2")
    catch_up(log)
    with open_readonly(log) as connection:
        found = reading.read_experiments(connection, ["run-1", "run-2"])
        assert [type(source) for _, source in found] == [Held, Stored]


@pytest.mark.slow
def test_devices_and_experiments_that_take_turns_in_the_table_are_told_apart(log: Store) -> None:
    """A file of two devices that grows while other experiments are taken: each device's samples come in their order."""
    both = [*sampler_events(uuid="GPU-0"), *sampler_events(uuid="GPU-1", power_w=lambda second: second)[1:]]
    both.sort(key=itemgetter(0))
    grown = write(log, both, role="sampler", index=0, experiment_id="run-1", blocks=4)
    written = grown.read_bytes()
    with SegmentReader(grown) as reader:
        ends = [block.end.offset for block in reader.blocks()]
    for number, end in enumerate([*ends, len(written)]):
        grown.write_bytes(written[:end])
        catch_up(log)
        experiment(log, experiment_id=f"other-{number}")
    catch_up(log)
    with open_readonly(log) as connection:
        found = list(reading.read_experiments(connection, ["run-1", "other-0", "other-1"]))
        turns = connection.execute(
            "SELECT count(*) FROM (SELECT experiment_id, device_uuid, lag((experiment_id, device_uuid)) OVER (ORDER BY rowid) AS before "
            "FROM samples) WHERE before <> (experiment_id, device_uuid)"
        ).fetchall()
        assert turns > [(8,)]
        held, stored = found[0][1], Stored(connection, "run-1")
        assert isinstance(held, Held)
        assert list(map(str, answers(stored))) == list(map(str, answers(held)))


@pytest.mark.slow
def test_rows_that_stand_between_others_are_found(three: Store) -> None:
    """A file that grows while others are taken has rows in more than one place."""
    grown = write(three, sampler_events(), role="sampler", index=0, experiment_id="run-2")
    catch_up(three)
    experiment(three, experiment_id="run-4")
    catch_up(three)
    assert grown.exists()
    with open_readonly(three) as connection:
        stored = Stored(connection, "run-2")
        assert sum(sampled.samples for sampled in stored.sampled()) == 345
    assert rebuild(three, check=True).changed_tables == []
