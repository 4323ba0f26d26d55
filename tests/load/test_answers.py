"""What is made of a stream: the tokens of each piece where somebody says, and never where nobody does."""

import json
from typing import Any

import pytest

from llem.load.answer import Answer
from llem.load.http1 import Head
from llem.load.openai import Prepared, RequestWriter, error_of
from llem.prompts import ChatMessage, Prompt
from llem_events.events import Request
from llem_events.request_events import times_problem

OK = Head(status=200, content_type="text/event-stream", is_chunked=True, length=None, stays_open=True)


def answered(
    *pieces: dict[str, Any], max_tokens: int = 4, input_tokens: int | None = 7, keeps_text: bool = False
) -> Request:
    """The request whose pieces came at 1,000, 1,001 ... and whose answer ended then."""
    ended: list[Request] = []
    answer = Answer(
        3,
        arrival_ns=100,
        request=b"",
        prepared=Prepared(b"", input_tokens, max_tokens, None),
        keeps_text=keeps_text,
        on_end=lambda answer, request: ended.append(request),
    )
    answer.sent(200, reused=False)
    answer.head(OK, 300)
    for at_ns, piece in enumerate(pieces, 1_000):
        answer.body(b"data: " + json.dumps(piece).encode() + b"\n\n", at_ns)
    answer.body(b"data: [DONE]\n\n", 2_000)
    answer.end(3_000)
    answer.fail("too late", 4_000)
    (request,) = ended
    assert times_problem(request) is None
    return request


def text(content: str = " a", *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """A piece of /v1/completions."""
    return {"choices": [{"index": 0, "text": content, "finish_reason": finish}]} | more


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    """A piece of /v1/chat/completions."""
    return {"choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def usage(completion: int | None, prompt: int | None = 7, **more: Any) -> dict[str, Any]:
    """A total, beside a piece or alone."""
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": completion} | more}


END = {"choices": []}


def test_an_empty_piece_is_no_token() -> None:
    """Neither the role nor the piece with the reason counts: the first token is the first piece with text."""
    request = answered(
        delta(role="assistant", content=""),
        delta(role="assistant", content=None),
        delta(content=" a"),
        delta(content=" b"),
        delta(finish="stop"),
        END | usage(2),
    )
    assert (request.first_token_ns, request.token_times_ns) == (1_002, [1_002, 1_003])
    assert (request.output_tokens, request.finish_reason, request.end_ns) == (2, "eos", 2_000)


def test_reasoning_and_tool_calls_are_tokens() -> None:
    """Whatever name a server gives to the text that is not its answer."""
    request = answered(
        delta(reasoning_content="a"),
        delta(reasoning="b"),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
        delta(content="c", finish="tool_calls"),
        END | usage(4, completion_tokens_details={"reasoning_tokens": 2}),
    )
    assert request.token_times_ns == [1_000, 1_001, 1_002, 1_003]
    assert (request.reasoning_tokens, request.finish_reason) == (2, "eos")


def test_a_running_total_counts_the_tokens_of_each_piece() -> None:
    """As vLLM sends it when asked; the end of sequence has a token and no text."""
    request = answered(
        text("", **usage(0)),
        text(**usage(1)),
        text(**usage(5)),
        text("", finish="stop", **usage(6)),
        END | usage(6),
    )
    assert (request.chunk_times_ns, request.chunk_tokens) == ([1_001, 1_002, 1_003], [1, 4, 1])
    assert (request.output_tokens, request.usage_output_tokens) == (6, 6)


def test_llama_cpp_counts_in_its_timings() -> None:
    """And says how much of the prompt was in its cache."""
    request = answered(
        text(timings={"predicted_n": 1, "cache_n": 5}),
        text("", timings={"predicted_n": 2, "cache_n": 5}),
        text(finish="length", timings={"predicted_n": 3, "cache_n": 5}),
        END | usage(3),
    )
    assert (request.output_tokens, request.token_times_ns) == (3, [1_000, 1_001, 1_002])
    assert request.cached_input_tokens == 5


def test_token_ids_are_counted() -> None:
    """Where a server returns them."""
    pieces = [
        {"choices": [{"text": " a", "token_ids": [1, 2]}]},
        {"choices": [{"text": "", "token_ids": [3], "finish_reason": "stop"}]},
    ]
    request = answered(*pieces, END | usage(3))
    assert (request.chunk_tokens, request.output_tokens) == ([2, 1], 3)


def test_pieces_are_not_taken_for_tokens() -> None:
    """A total at the end that is not their number leaves each of them uncounted; the total is the server's."""
    request = answered(text(), text(), text(finish="length"), END | usage(8))
    assert (request.chunk_times_ns, request.chunk_tokens) == ([1_000, 1_001, 1_002], [None, None, None])
    assert (request.output_tokens, request.usage_output_tokens) == (8, 8)


def test_as_many_tokens_as_pieces_are_one_in_each() -> None:
    """Because a piece with text has a token at least."""
    request = answered(text(), text(finish="length"), END | usage(2))
    assert (request.token_times_ns, request.chunk_times_ns) == ([1_000, 1_001], [])


def test_tokens_of_one_read_have_its_time() -> None:
    """Nothing is spread: the gap before them is the whole wait, those between them are none, and all add up to last minus first."""
    ended: list[Request] = []
    answer = Answer(
        3,
        arrival_ns=100,
        request=b"",
        prepared=Prepared(b"", 7, 4, None),
        keeps_text=False,
        on_end=lambda answer, request: ended.append(request),
    )
    answer.sent(200, reused=False)
    answer.head(OK, 300)
    ends = (None, None, None, "length")
    first, *together, last = (b"data: " + json.dumps(text(finish=end)).encode() + b"\n\n" for end in ends)
    for at_ns, read in ((1_000, first), (1_090, b"".join(together)), (1_100, last + b"data: [DONE]\n\n")):
        answer.body(read, at_ns)
    answer.end(1_200)
    assert ended[0].token_times_ns == [1_000, 1_090, 1_090, 1_100]


def test_a_total_that_lies_stands_beside_the_count() -> None:
    """Both are kept; which is right is not decided here."""
    request = answered(text(**usage(1)), text(finish="length", **usage(2)), END | usage(200))
    assert (request.output_tokens, request.usage_output_tokens) == (2, 200)


def test_a_total_that_comes_late_counts_what_follows_it() -> None:
    """The piece with the first total stays uncounted: it holds those before it, too."""
    request = answered(text(), text(**usage(5)), text(finish="length", **usage(6)), END | usage(6))
    assert (request.chunk_tokens, request.output_tokens) == ([None, None, 1], 6)


def test_a_total_that_falls_counts_nothing() -> None:
    """Its piece stays uncounted, and the server's last total is what there is."""
    request = answered(text(**usage(4)), text(finish="length", **usage(2)), END | usage(2))
    assert (request.chunk_tokens, request.output_tokens) == ([4, None], 2)


def test_without_a_total_a_request_that_ran_to_its_limit_has_so_many() -> None:
    """That is what the limit means; what the server counts stays unknown."""
    request = answered(text(), text(finish="length"), max_tokens=9)
    assert (request.output_tokens, request.usage_output_tokens) == (9, None)
    assert request.chunk_tokens == [None, None]


@pytest.mark.parametrize(
    ("pieces", "input_tokens", "error"),
    [
        ([text(finish="stop")], 7, "neither the pieces of its stream nor a usage at its end say how many"),
        ([text(finish="stop"), END | usage(1, None)], None, "does not say how many tokens its prompt had"),
        ([text(finish="abort"), END | usage(1)], 7, "the server ended it: abort"),
        ([text(), {"error": {"message": "no memory"}}], 7, "an error in its stream: no memory"),
    ],
)
def test_what_cannot_be_counted_has_failed(
    pieces: list[dict[str, Any]], input_tokens: int | None, error: str
) -> None:
    """A request without known tokens says nothing of what a token costs."""
    ended: list[Request] = []
    answer = Answer(
        0,
        arrival_ns=1,
        request=b"",
        prepared=Prepared(b"", input_tokens, 4, None),
        keeps_text=False,
        on_end=lambda answer, request: ended.append(request),
    )
    answer.sent(2, reused=False)
    answer.head(OK, 3)
    stream = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces)
    try:
        answer.body(stream, 4)
    except Exception as raised:  # noqa: BLE001 -- as a connection does
        answer.fail(str(raised), 4)
    answer.end(5)
    (request,) = ended
    assert request.finish_reason == "error"
    assert error in (request.error or "")


def test_texts_are_kept_when_asked_for() -> None:
    """The pieces of the answer, joined."""
    request = answered(text(" a"), text(" b", finish="length"), END | usage(2), keeps_text=True)
    assert request.output == " a b"


def test_cached_tokens_are_the_servers() -> None:
    """As OpenAI writes them."""
    details = {"prompt_tokens_details": {"cached_tokens": 6}}
    request = answered(text(finish="length"), END | usage(1, **details), max_tokens=1)
    assert (request.cached_input_tokens, request.usage_input_tokens) == (6, 7)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b'{"error": {"message": "too\\nlong"}}', "HTTP 400: too long"),
        (b'{"detail": "Not Found"}', "HTTP 400: Not Found"),
        (b'{"object": "error", "message": "bad"}', "HTTP 400: bad"),
        (b"<html>\nbusy</html>", "HTTP 400: <html> busy</html>"),
        (b"", "HTTP 400"),
        (b"\xff" * 1_000, "HTTP 400: " + "\ufffd" * 300),
    ],
)
def test_a_refusal_is_one_line(body: bytes, line: str) -> None:
    """Whatever shape a server gives it."""
    assert error_of(400, body) == line


def written(prompt: Prompt, *, endpoint: Any = "completions", round_index: int = 0, **more: Any) -> Any:
    """The body of a request."""
    writer = RequestWriter(
        endpoint,
        model="m",
        extra=more.pop("extra", {}),
        vocabulary=more.pop("vocabulary", (10, 20)),
        keeps_text=False,
    )
    return json.loads(writer.prepare(prompt, round_index=round_index).body)


DRAWN = Prompt(request_id=0, max_new_tokens=5, input_tokens=40, seed=3)


def test_drawn_prompts_are_token_ids_of_the_vocabulary() -> None:
    """As many as asked for, the same for the same seed and round, others in the next round."""
    body = written(DRAWN)
    assert len(body["prompt"]) == 40
    assert set(body["prompt"]) <= set(range(10, 20))
    assert body == written(DRAWN)
    assert body["prompt"] != written(DRAWN, round_index=1)["prompt"]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 5, True)
    assert body["stream_options"] == {"include_usage": True}


def test_where_ids_are_not_taken_words_are_drawn() -> None:
    """A server without a known vocabulary, and any chat, gets so many words."""
    assert len(written(DRAWN, vocabulary=None)["prompt"].split()) == 40
    (message,) = written(DRAWN, endpoint="chat")["messages"]
    assert (message["role"], len(message["content"].split())) == ("user", 40)


def test_prompts_of_a_file_go_as_they_are() -> None:
    """A text, and messages."""
    told = Prompt(request_id=0, max_new_tokens=5, text='say "¿"')
    assert written(told)["prompt"] == 'say "¿"'
    chat = Prompt(request_id=0, max_new_tokens=5, messages=(ChatMessage(role="user", content="hi"),))
    assert written(chat, endpoint="chat")["messages"] == [{"role": "user", "content": "hi"}]


def test_a_servers_own_fields_are_added() -> None:
    """Beside those of llem, or instead of them."""
    extra = {"ignore_eos": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    body = written(DRAWN, extra=extra)
    assert body["ignore_eos"] is True
    assert body["stream_options"]["continuous_usage_stats"] is True
