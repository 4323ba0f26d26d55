"""What tables say of an experiment's samples and requests is what they are, in memory: read one by one, or in pieces that were added up."""

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pytest

from llem.projections import database, sample_pieces
from llem.projections.derive import pieces
from llem.projections.derive import stored as stored_module
from llem.projections.derive.columns import LISTS
from llem.projections.derive.held import Held, HeldRequests, HeldSamples
from llem.projections.derive.pieces import Asked
from llem.projections.derive.samples import COUNTED, DeviceSamples
from llem.projections.derive.source import POSSIBLE, SERIES, Device, Values, ascending
from llem.projections.derive.stored import Stored
from llem.projections.log_cells import Identity, Reported, held_samples, request_batch, sample_batch
from llem.projections.sample_pieces import Counted, piece_batch
from llem_events import columns
from llem_events.events import Reading, Request
from llem_events.replay import SampleBatch

MS = 10**6
SAMPLES = 400  # of each device, of which a piece has sixteen
WORKER, SAMPLER, LATER, OTHER = (
    Identity("run", 0, "worker"),
    Identity("run", 0, "sampler"),
    Identity("run", 0, "later"),
    Identity("another", 0, "sampler"),
)
DEVICES = [Device(0, "GPU-0"), Device(0, "GPU-1"), Device(1, "GPU-0")]
SPANS = [(-1, 10**12), (500 * MS, 2_000 * MS), (1_000 * MS, 1_003 * MS), (10**12, 2 * 10**12)]


def readings(seed: int, *, begin: int = 0, count: int = SAMPLES) -> list[Reading]:
    """Ascending, some at once, with gaps in each column."""
    random = np.random.default_rng(seed)
    at_ns = np.sort(random.integers(0, 4 * count, count)) * MS + begin

    def some(low: int, high: int) -> int | None:
        return None if random.random() < 0.01 else int(random.integers(low, high))

    return [
        Reading(
            at_ns=int(at),
            power_mw=some(50_000, 300_000),
            energy_mj=None if random.random() < 0.01 else 1000 * number,
            temperature_c=some(40, 90),
            gpu_utilisation_pct=some(0, 103) if seed == 1 else some(0, 100),
            memory_used_bytes=some(0, 2**33),
            throttle_reasons=int(random.integers(0, 20)),
        )
        for number, at in enumerate(at_ns.tolist())
    ]


def batch(uuid: str, read: Sequence[Reading]) -> SampleBatch:
    event = columns.pack(read, meter="nvml", device_uuid=uuid)
    return SampleBatch("nvml", uuid, len(read), columns.unpack_all([event]))


def requests(seed: int, count: int = 30) -> list[Request]:
    """With tokens one by one, in chunks, or without times; some fail, some are told by a server, some bear a number twice."""
    random = np.random.default_rng(seed)

    def some(high: int) -> int | None:
        return None if random.random() < 0.3 else int(random.integers(0, high))

    def one(number: int) -> Request:
        times = np.sort(random.integers(100, 900, random.integers(0, 4))).tolist()
        in_chunks = bool(times) and random.random() < 0.5
        return Request(
            request_id=number - (number % 7 == 6),
            batch_index=number // 2,
            batch_size=2,
            arrival_ns=number,
            start_ns=number + 1,
            first_token_ns=times[0] if times else None,
            end_ns=int(random.integers(900, 1_000)),
            input_tokens=int(random.integers(1, 50)),
            output_tokens=int(random.integers(1, 50)),
            token_times_ns=[] if in_chunks else times,
            chunk_times_ns=times if in_chunks else [],
            chunk_tokens=[some(5) for _ in times] if in_chunks else [],
            finish_reason=("length", "eos", "finished", "stopped", "error")[number % 5],
            error="broken" if number % 5 == 4 else None,
            times_reason=None if times else "not streamed",
            cached_input_tokens=some(9),
            usage_input_tokens=some(50),
            usage_output_tokens=some(50),
        )

    return [one(number) for number in range(count)]


TAKEN = [
    (SAMPLER, batch("GPU-0", readings(0))),
    (SAMPLER, batch("GPU-1", readings(1))),
    (LATER, batch("GPU-0", readings(2, begin=1_200 * MS, count=100))),
]
SAID = requests(7)
REPORTED = [
    Reported(WORKER, 3, "warmup", SAID[:4]),
    Reported(WORKER, 5, "measurement", SAID[4:15]),
    Reported(WORKER, 6, "drain", SAID[15:18]),
    Reported(WORKER, 8, "measurement", SAID[18:]),
]


def held(reported: Sequence[Reported] = REPORTED) -> Held:
    """In memory."""
    of_worker = HeldRequests([(event.event_number, event.window_kind, event.requests) for event in reported])
    return Held([5, 3, 9], [held_samples(*taken) for taken in TAKEN], {"worker": of_worker})


@pytest.fixture(scope="module", params=["side by side", "between others"])
def filled(request: pytest.FixtureRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Tables with the experiment in one place, or among the rows of another."""
    between = request.param == "between others"
    foreign = [(OTHER, batch("GPU-0", readings(3, count=5)))] if between else []
    another = [event._replace(identity=OTHER) for event in REPORTED[:1]] if between else []
    with database.in_memory() as connection, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sample_pieces, "PIECE_SAMPLES", 16)
        connection.execute(database.LOG_SQL)
        tables = database.Tables(connection)
        for taken in (*foreign, TAKEN[0], *foreign, *TAKEN[1:], *foreign):
            tables.insert_batches("samples", [sample_batch([taken])])
            tables.insert_batches("sample_pieces", [piece_batch(list(Counted().pieces(*taken)))])
        for event in (*another, *REPORTED[:2], *another, *REPORTED[2:]):
            tables.insert_batches("requests", [request_batch([event], tables.types("requests"))])
        yield connection


@pytest.fixture
def stored(filled: duckdb.DuckDBPyConnection) -> Stored:
    """Its rows."""
    return Stored(filled, "run")


def of_requests(source: Held | Stored, segment_id: str) -> Iterator[object]:
    sizes = source.request_sizes(segment_id)
    yield sizes.event_numbers.tolist(), sizes.values.tolist(), sizes.warmup_requests
    yield source.request_ids(segment_id).tolist(), source.usage(segment_id)
    for kind in ("measurement", "warmup", "drain"):
        latest_ns = source.last_end_ns(segment_id, kind, 0)
        yield latest_ns
        yield [source.last_end_ns(segment_id, kind, (latest_ns or 0) + later) for later in (0, 1)]
    for first, last in [*((number, number) for number in sizes.event_numbers.tolist()), (0, 7), (6, 9)]:
        if segment_id == "worker":
            yield from of_columns(source.requests(segment_id, first, last))


def of_columns(found: Any) -> Iterator[object]:
    for name in LISTS:
        lists = getattr(found, name)
        yield name, lists.values.tolist(), lists.lengths.tolist()
        if lists.missing is not None and lists.missing.any():
            yield name, lists.missing.tolist()
    yield {name: values.tolist() for name, values in found.numbers.items()}
    yield [mask.tolist() for mask in (found.failed, found.finished, found.names_error, found.names_reason)]


@pytest.mark.parametrize("segment_id", ["worker", "sampler"])
def test_requests_of_tables_are_those_of_memory(stored: Stored, segment_id: str) -> None:
    """Their sizes, ids, ends, tokens and columns; nothing of a segment without any."""
    assert list(map(str, of_requests(stored, segment_id))) == list(map(str, of_requests(held(), segment_id)))


def test_extremes_of_tables_are_those_of_memory(stored: Stored) -> None:
    """Of numbers and lists; a column without any value is left out."""
    found = stored.extremes("requests")
    assert found == held().extremes("requests")
    assert len(found) == 9  # token_times_ns among them, tokens of the chunks not
    assert stored.extremes("samples") == held().extremes("samples")
    assert held().extremes("events") == {"at_ns": (3, 9)}
    assert stored.repeated_request_ids() == held().repeated_request_ids() == 4


def test_samples_of_tables_are_counted_as_in_memory(stored: Stored) -> None:
    """By device and segment; those beyond what a device can say are told."""
    found = sorted(stored.sampled())
    assert found == sorted(held().sampled()) == sorted(stored.sampled())
    assert [each.samples for each in found] == [100, 400, 400]
    assert [each.impossible > 0 for each in found] == [False, False, True]


@pytest.mark.parametrize(("temperature_c", "impossible"), [(-61, 1), (-60, 0), (200, 0), (201, 1)])
def test_a_sample_beyond_its_limits_is_found_among_others(temperature_c: int, impossible: int) -> None:
    """Below the least as above the most, in the sums of a piece that holds others too."""
    read = [Reading(at_ns=number, temperature_c=50) for number in range(3)]
    read.insert(1, Reading(at_ns=1, temperature_c=temperature_c))
    taken = SAMPLER, batch("GPU-0", read)
    with database.in_memory() as connection:
        connection.execute(database.LOG_SQL)
        tables = database.Tables(connection)
        tables.insert_batches("samples", [sample_batch([taken])])
        tables.insert_batches("sample_pieces", [piece_batch(list(Counted().pieces(*taken)))])
        (found,) = Stored(connection, "run").sampled()
    assert (found.samples, found.impossible) == (4, impossible)


@pytest.mark.parametrize("thinned_from", [0, 10**6], ids=["sums", "samples"])
def test_samples_of_tables_are_those_of_memory(
    stored: Stored, thinned_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question, twice, for what was read once is kept."""
    monkeypatch.setattr(stored_module, "THINNED_FROM", thinned_from)
    truth = list(map(str, answers(held())))
    for _ in range(2):
        assert list(map(str, answers(stored))) == truth


def answers(source: Held | Stored) -> Iterator[object]:
    """What it says of devices in spans, as text, in which NaN is itself."""
    for device in DEVICES:
        yield device, source.extent(device)
        for span in SPANS:
            yield [source.last_sample_ns(device.process_index or 0, moment) for moment in span]
            for name, each in source.values(device, span, COUNTED).items():
                yield name, each._replace(sum=round(each.sum))
            at_ns, read = source.samples(device, span, SERIES)
            yield at_ns.tolist(), [column.tolist() for column in read.values()]
            sampled = DeviceSamples(source, device, span)
            yield sampled.count, sampled.powered, sampled.max_gap_sec, sampled.highest_power_w
            yield sampled.integrated_energy_j and round(sampled.integrated_energy_j, 6)


@pytest.mark.parametrize("thinned_from", [0, 10**6], ids=["thinned", "whole"])
def test_a_span_holds_what_was_read_at_its_ends(
    stored: Stored, thinned_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that was read a nanosecond before or after it."""
    monkeypatch.setattr(stored_module, "THINNED_FROM", thinned_from)
    device = DEVICES[0]
    every_ns = held().samples(device, SPANS[0], ["power_w"])[0].tolist()
    first_ns, last_ns = every_ns[3], every_ns[30]
    spans = [((first_ns, last_ns), 28), ((first_ns + 1, last_ns - 1), 26)]
    spans.append(((every_ns[2] + 1, every_ns[31] - 1), 28))
    for source in (stored, held()):
        for span, count in spans:
            assert len(source.samples(device, span, ["power_w"])[0]) == count
            [(at_ns, _, left_out)] = source.series(device, span, Asked(np.empty(0), 0))
            assert len(at_ns) + (0 if left_out is None else left_out.samples.sum()) == count
            assert source.values(device, span, ["temperature_c"])["temperature_c"].samples == count


def test_a_last_sample_is_asked_since_a_moment(stored: Stored) -> None:
    """At the moment itself it counts."""
    for source in (stored, held()):
        latest_ns = source.last_sample_ns(0, 0)
        assert latest_ns is not None
        assert source.last_sample_ns(0, latest_ns) == latest_ns
        assert source.last_sample_ns(0, latest_ns + 1) is None
        assert source.last_sample_ns(1, 0) is None


@pytest.mark.parametrize("places", [range(0), range(100, 110, 3), range(50, 1_000, 90)], ids=len)
def test_a_series_in_pieces_has_samples_of_the_whole(
    stored: Stored, places: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples around a few or many moments one by one, and of other pieces the ends, with how many were left out between."""
    device, span = DEVICES[0], (100 * MS, 1_500 * MS)
    whole = list(stored.series(device, span, Asked(np.empty(0), 0)))
    assert len(whole) == 1 and whole[0][2] is None
    monkeypatch.setattr(stored_module, "THINNED_FROM", 0)
    asked = Asked(np.array([place / 1_000 for place in places]), 0)
    [(at_ns, of_series, left_out)] = stored.series(device, span, asked)
    every_ns, every = whole[0][:2]
    assert left_out is not None and len(at_ns) + left_out.samples.sum() == len(every_ns)
    assert (np.diff(at_ns) >= 0).all()
    before = np.cumsum(left_out.samples) + np.arange(len(at_ns))
    assert at_ns.tolist() == every_ns[before].tolist()
    for name in ("power_w", "energy_j"):
        np.testing.assert_array_equal(of_series[name], every[name][before])


def test_a_series_is_the_same_in_however_many_parts_it_is_read(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of some parts no sample is needed one by one."""
    device, span = DEVICES[0], (100 * MS, 1_500 * MS)
    asked = Asked(np.array([0.6]), 0)
    monkeypatch.setattr(stored_module, "THINNED_FROM", 0)
    [whole] = stored.series(device, span, asked)
    monkeypatch.setattr(pieces, "AT_ONCE", 2)
    parts = list(stored.series(device, span, asked))
    assert len(parts) > 10
    assert [at_ns for times, _, _ in parts for at_ns in times] == whole[0].tolist()
    for name, values in whole[1].items():
        np.testing.assert_array_equal(np.concatenate([numbers[name] for _, numbers, _ in parts]), values)
    assert [left for _, _, left_out in parts for left in left_out.samples] == whole[2].samples.tolist()


def test_moments_are_ends_of_pieces(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where samples are thinned out; else there are none."""
    assert stored.moments(DEVICES[0], SPANS[0]).tolist() == []
    assert held().moments(DEVICES[0], SPANS[0]).tolist() == []
    monkeypatch.setattr(stored_module, "THINNED_FROM", SAMPLES + 100)
    at_ns = stored.samples(DEVICES[0], SPANS[0], ["power_w"])[0].tolist()
    moments = stored.moments(DEVICES[0], SPANS[0]).tolist()
    assert set(moments) <= set(at_ns) and len(moments) > 10 and moments == sorted(moments)
    assert stored.moments(DEVICES[1], SPANS[0]).tolist() == []
    assert list(stored.ranges(DEVICES[0], SPANS[0])) == [(at_ns[0], at_ns[-1])]
    assert list(stored.ranges(DEVICES[2], SPANS[0])) == [] and list(held().ranges(DEVICES[2], (1, 2))) == [
        (1, 2)
    ]


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_no_device_can_say_is_counted(name: str) -> None:
    """At a limit it is possible; each sample counts once, whatever is wrong with it."""
    least, most = POSSIBLE[name]
    values = np.array([least, most, least - 1, np.inf if most < np.inf else least - 2, np.nan])
    read = {each: np.array([1.0, 1.0, 1.0, 1.0, -100.0]) for each in POSSIBLE} | {name: values}
    read = {each: np.where(np.arange(5) < 4, column, np.nan) for each, column in read.items()}
    found = HeldSamples(DEVICES[0], "s", np.arange(5), read).counted()
    assert found == (DEVICES[0], "s", 5, 0, 4, 2)


def test_what_was_read_is_kept_while_it_is_little(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second question of the same span and columns reads nothing; other columns, or too many samples, are read."""
    device, span = DEVICES[0], SPANS[0]
    reads: list[str] = []
    read = stored._columns

    def counting(sql: str, *values: Any) -> Any:
        reads.append(sql)
        return read(sql, *values)

    monkeypatch.setattr(stored, "_columns", counting)
    stored.samples(device, span, ["power_w", "energy_j"])
    stored.samples(device, span, ["energy_j"])
    assert len(reads) == 1
    stored.samples(device, span, ["temperature_c"])
    assert len(reads) == 2
    monkeypatch.setattr(stored_module, "KEPT_SAMPLES", 600)
    for again in (3, 4):  # 500 and 400 are more than 600
        stored.samples(DEVICES[1], span, ["power_w"])
        assert len(reads) == again
    monkeypatch.setattr(stored_module, "KEPT_SAMPLES", 900)
    for _ in range(2):
        stored.samples(DEVICES[1], span, ["power_w"])
        assert len(reads) == 5


def test_values_join() -> None:
    """Sums add up, of ends that are known the outer ones stay."""
    none = Values(2, 0, 0.0, None, None)
    some, others = Values(3, 2, 7.0, 1.0, 6.0), Values(5, 1, 4.0, 4.0, 4.0)
    assert some.joined(others) == others.joined(some) == (8, 3, 11.0, 1.0, 6.0)
    assert none.joined(some) == some.joined(none) == (5, 2, 7.0, 1.0, 6.0)
    assert none.joined(none) == (4, 0, 0.0, None, None)


def test_an_experiment_without_rows_has_nothing() -> None:
    """Of tables and of memory."""
    with database.in_memory() as connection:
        connection.execute(database.LOG_SQL)
        for source in (Stored(connection, "run"), Held([], [], {})):
            assert not source.sampled() and not source.extremes("samples")
            assert source.extent(DEVICES[0]) == (0, 0, 0)
            assert source.last_sample_ns(0, 0) is None and source.repeated_request_ids() == 0
            assert source.usage("worker") == (0, None, None, None, None)
            assert source.request_sizes("worker").warmup_requests == 0
            assert source.last_end_ns("worker", "measurement", 0) is None
            assert not len(source.request_ids("worker")) and not len(source.moments(DEVICES[0], (0, 1)))


def test_samples_in_disorder_are_put_in_order() -> None:
    """With their columns; what happened at once stays as it came."""
    at_ns, read = ascending(np.array([3, 1, 1]), {"power_w": np.array([30.0, 10.0, 11.0])})
    assert at_ns.tolist() == [1, 1, 3] and read["power_w"].tolist() == [10.0, 11.0, 30.0]
