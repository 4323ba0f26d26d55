"""Counting: which tokens of a batch belong to which request, and when each ended."""

from hypothesis import given
from hypothesis import strategies as st

from llem.engines.base import EncodedPrompt, Generation, requests_of

EOS = 0


def batch(*limits: int) -> list[EncodedPrompt]:
    return [
        EncodedPrompt(request_id=10 + row, max_new_tokens=limit, token_ids=(5,) * (row + 1))
        for row, limit in enumerate(limits)
    ]


def finish(generation: Generation):
    return requests_of(generation, batch_index=3, arrival_ns=1, start_ns=2, end_ns=999)


def test_end_of_sequence_token_counts_and_nothing_after_it() -> None:
    """A sequence that ended early takes no token of later steps; its end is its last token."""
    generation = Generation(batch(4, 4), eos_ids=frozenset({EOS}))
    counted = [
        generation.append([[token_id] for token_id in ids], at_ns=at)
        for at, ids in ((10, [7, 8]), (20, [EOS, 8]), (30, [9, 9]), (40, [9, 9]))
    ]
    first, second = finish(generation)
    assert counted == [2, 2, 1, 1]
    assert (first.output_tokens, first.finish_reason, first.end_ns, first.token_times_ns) == (
        2,
        "eos",
        20,
        [10, 20],
    )
    assert (second.output_tokens, second.finish_reason, second.end_ns) == (4, "length", 40)
    assert generation.finished


def test_limits_are_per_sequence() -> None:
    """Each sequence stops at its own limit."""
    generation = Generation(batch(1, 3))
    for at in (10, 20, 30):
        generation.append([[1], [1]], at_ns=at)
    assert [request.output_tokens for request in finish(generation)] == [1, 3]
    assert generation.max_steps == 3


def test_stopped_and_failed_sequences_keep_what_they_had() -> None:
    """What ended before keeps its reason; the others end now with theirs."""
    generation = Generation(batch(1, 3))
    generation.append([[1], [1]], at_ns=10)
    generation.end("error", error="out of memory")
    done, failed = finish(generation)
    assert (done.finish_reason, done.error, done.end_ns) == ("length", None, 10)
    assert (failed.finish_reason, failed.error, failed.end_ns) == ("error", "out of memory", 999)
    assert failed.output_tokens == 1


def test_request_without_tokens_has_no_first_token() -> None:
    """Nothing came out: no first-token time, no token times."""
    generation = Generation(batch(2))
    generation.end("stopped")
    (request,) = finish(generation)
    assert (request.first_token_ns, request.token_times_ns, request.output_tokens) == (None, [], 0)


def test_texts_only_when_asked() -> None:
    """Prompt and output text are left out unless a way to make text is given."""
    generation = Generation(batch(1))
    generation.append([[65]], at_ns=10)
    (without,) = finish(generation)
    (with_text,) = requests_of(
        generation, batch_index=0, arrival_ns=1, start_ns=1, end_ns=9, to_text=lambda ids: bytes(ids).decode()
    )
    assert (without.prompt, without.output) == (None, None)
    assert with_text.output == "A"


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5)),
)
def test_counts_are_those_of_each_sequence_alone(limits: list[int], steps: list[list[int]]) -> None:
    """For any steps, a sequence has its column up to its limit or its end-of-sequence token, and the sums agree."""
    generation = Generation(batch(*limits), eos_ids=frozenset({EOS}))
    counted = sum(
        generation.append([[token_id] for token_id in ids], at_ns=at) for at, ids in enumerate(steps)
    )
    for row, sequence in enumerate(generation.sequences):
        column = [ids[row] for ids in steps][: limits[row]]
        expected = column[: column.index(EOS) + 1] if EOS in column else column
        assert sequence.token_ids == expected
    assert counted == sum(len(sequence.token_ids) for sequence in generation.sequences)
