"""The transformers engine on small real models: the tokens that `generate` gives, counted and timed."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llem.engines import EncodedPrompt, Engine, Prompt, create_engine
from llem.engines.base import Generation
from llem.errors import EngineError
from llem.plan import Plan
from llem_events.events import Request

pytestmark = pytest.mark.torch
MakePlan = Callable[..., Plan]
LENGTHS = (7, 3, 12, 1)


def load(plan: Plan) -> Engine:
    engine = create_engine(plan, device="cpu")
    engine.load()
    return engine


def run(engine: Engine, prompts: Sequence[Prompt], **options: Any) -> list[Request]:
    steps: list[int] = []
    requests = engine.run(
        engine.encode(prompts),
        batch_index=options.get("batch_index", 0),
        arrival_ns=time.monotonic_ns(),
        should_stop=options.get("should_stop", lambda: False),
        on_tokens=steps.append,
    )
    assert sum(steps) == sum(request.output_tokens for request in requests)
    return requests


def prompts_of(lengths: Sequence[int], tokens: int = 10) -> list[Prompt]:
    return [
        Prompt(request_id=row, text="some words to go on from"[row : row + length], max_new_tokens=tokens)
        for row, length in enumerate(lengths)
    ]


def generated(folder: Path, encoded: Sequence[EncodedPrompt], tokens: int, **options: Any) -> list[list[int]]:
    """Greedy output ids of Hugging Face's own `generate`, one prompt at a time, so without any padding."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    outputs = []
    for prompt in encoded:
        ids = torch.tensor([prompt.token_ids])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, **options
        )
        outputs.append(out[0, ids.shape[1] :].tolist())
    return outputs


def plan_for(make_plan: MakePlan, folder: Path, **sections: Any) -> Plan:
    """A plan whose requests carry the output's text, which for a model without a tokenizer is its bytes."""
    return make_plan(model={"name": str(folder)}, workload={"record_text": True}, **sections)


def text_of(token_ids: Sequence[int]) -> str:
    return bytes(token_id % 256 for token_id in token_ids).decode(errors="replace")


@pytest.mark.parametrize("lengths", [LENGTHS, (5, 5, 5)], ids=["padded", "equal"])
def test_greedy_tokens_are_those_of_generate(
    make_plan: MakePlan, llama_folder: Path, lengths: tuple[int, ...]
) -> None:
    """A batch, padded or not, gives each prompt the tokens that it gets alone from `generate`."""
    engine = load(plan_for(make_plan, llama_folder))
    prompts = prompts_of(lengths)
    expected = generated(llama_folder, engine.encode(prompts), 10)
    assert [request.output for request in run(engine, prompts)] == [text_of(ids) for ids in expected]
    assert len({tuple(ids) for ids in expected}) > 1
    assert any(len(set(ids)) > 3 for ids in expected)


def test_padding_is_not_a_token(make_plan: MakePlan, llama_folder: Path) -> None:
    """Requests count their own input tokens, whatever the batch was padded to."""
    requests = run(load(make_plan(model={"name": str(llama_folder)})), prompts_of(LENGTHS))
    assert [request.input_tokens for request in requests] == list(LENGTHS)
    assert [(request.output_tokens, request.finish_reason) for request in requests] == [(10, "length")] * 4
    assert {request.batch_size for request in requests} == {4}


@pytest.fixture(scope="module")
def ending_folder(save_llama: Callable[..., Path], make_plan: MakePlan, llama_folder: Path) -> Path:
    """The same model, ending a sequence with a token that the first prompt reaches at its fourth step."""
    engine = load(make_plan(model={"name": str(llama_folder)}))
    eos = generated(llama_folder, engine.encode(prompts_of(LENGTHS)), 10)[0][3]
    return save_llama(eos_token_id=eos)


def test_end_of_sequence_is_that_of_generate(make_plan: MakePlan, ending_folder: Path) -> None:
    """The end-of-sequence token is the last that counts."""
    engine = load(plan_for(make_plan, ending_folder))
    prompts = prompts_of(LENGTHS)
    expected = generated(ending_folder, engine.encode(prompts), 10)
    requests = run(engine, prompts)
    assert [request.output for request in requests] == [text_of(ids) for ids in expected]
    assert [request.output_tokens for request in requests] == [len(ids) for ids in expected]
    assert (requests[0].output_tokens, requests[0].finish_reason) == (4, "eos")
    assert requests[0].end_ns == requests[0].token_times_ns[-1]


def test_ignore_eos_runs_to_the_limit(make_plan: MakePlan, ending_folder: Path) -> None:
    """With ignore_eos every sequence has its full length."""
    engine = load(make_plan(model={"name": str(ending_folder)}, generation={"ignore_eos": True}))
    assert {request.output_tokens for request in run(engine, prompts_of(LENGTHS))} == {10}


def test_limits_are_per_request(make_plan: MakePlan, llama_folder: Path) -> None:
    """Each request of a batch has its own max_new_tokens."""
    prompts = [
        Prompt(request_id=row, input_tokens=4, max_new_tokens=limit) for row, limit in enumerate((1, 6, 3))
    ]
    requests = run(load(make_plan(model={"name": str(llama_folder)})), prompts)
    assert [request.output_tokens for request in requests] == [1, 6, 3]


def test_times_are_in_order(make_plan: MakePlan, llama_folder: Path) -> None:
    """Arrival, start, tokens and end follow each other on the host's monotonic clock, inside the call."""
    engine = load(make_plan(model={"name": str(llama_folder)}))
    before_ns = time.monotonic_ns()
    requests = run(engine, prompts_of(LENGTHS))
    after_ns = time.monotonic_ns()
    for request in requests:
        times = [
            before_ns,
            request.arrival_ns,
            request.start_ns,
            *request.token_times_ns,
            request.end_ns,
            after_ns,
        ]
        assert times == sorted(times)
        assert request.first_token_ns == request.token_times_ns[0]
        assert len(request.token_times_ns) == request.output_tokens
        assert all(a < b for a, b in itertools.pairwise(request.token_times_ns))


def test_stop_keeps_what_there_is(make_plan: MakePlan, llama_folder: Path) -> None:
    """A stop ends the batch after the step at which it was asked."""
    asked = itertools.count(1)
    requests = run(
        load(make_plan(model={"name": str(llama_folder)})),
        prompts_of(LENGTHS),
        should_stop=lambda: next(asked) == 3,
    )
    assert {(request.output_tokens, request.finish_reason) for request in requests} == {(3, "stopped")}


def sampled_texts(plan: Plan, batch_indices: Sequence[int]) -> list[list[str | None]]:
    engine = load(plan)
    return [
        [r.output for r in run(engine, prompts_of(LENGTHS), batch_index=index)] for index in batch_indices
    ]


def test_sampling_depends_on_seed_and_batch_alone(make_plan: MakePlan, llama_folder: Path) -> None:
    """A batch draws the same tokens whatever ran before it; another batch or seed draws others."""
    model, workload = {"name": str(llama_folder)}, {"record_text": True}
    plan, other = (
        make_plan(model=model, workload=workload, generation={"do_sample": True, "top_k": 50, "seed": seed})
        for seed in (1, 2)
    )
    zero, one = sampled_texts(plan, [0, 1])
    assert sampled_texts(plan, [1, 0]) == [one, zero]
    assert zero != one
    assert sampled_texts(other, [0]) != [zero]


def test_batch_that_fails_becomes_error_requests(make_plan: MakePlan, llama_folder: Path) -> None:
    """A failure inside the model ends its batch's requests with the message, and the next batch runs."""
    engine = load(make_plan(model={"name": str(llama_folder)}))
    bad = [EncodedPrompt(request_id=9, max_new_tokens=2, token_ids=(10_000,))]
    (request,) = engine.run(
        bad,
        batch_index=0,
        arrival_ns=time.monotonic_ns(),
        should_stop=lambda: False,
        on_tokens=lambda count: None,
    )
    assert (request.finish_reason, request.output_tokens, request.first_token_ns) == ("error", 0, None)
    assert "index out of range" in (request.error or "")
    assert run(engine, prompts_of((3,)))[0].finish_reason == "length"


def test_texts_round_through_the_tokenizer(make_plan: MakePlan, worded_llama_folder: Path) -> None:
    """Text prompts are counted in the model's own tokens, and recorded only when the plan asks."""
    prompt = Prompt(request_id=0, text="the cat sat", max_new_tokens=3)
    silent = run(load(make_plan(model={"name": str(worded_llama_folder)})), [prompt])[0]
    told = run(
        load(make_plan(model={"name": str(worded_llama_folder)}, workload={"record_text": True})), [prompt]
    )[0]
    assert (silent.input_tokens, silent.prompt, silent.output) == (3, None, None)
    assert told.prompt == "the cat sat"
    assert told.output is not None


def test_engine_that_is_not_loaded_says_so(make_plan: MakePlan) -> None:
    """Running before load, or after close, is an error; closing twice is not."""
    engine = create_engine(make_plan(), device="cpu")
    with pytest.raises(EngineError, match="the model is not loaded"):
        run(engine, prompts_of((1,)))
    engine.close()
    engine.close()


def test_memory_and_versions_are_known(make_plan: MakePlan, llama_folder: Path) -> None:
    """On the CPU the peak is that of the process; versions name what ran the model."""
    engine = load(make_plan(model={"name": str(llama_folder)}))
    assert (engine.peak_memory_bytes() or 0) > 50_000_000
    assert {"torch", "transformers"} <= engine.versions().keys()


def test_beams_come_as_one_chunk(make_plan: MakePlan, llama_folder: Path) -> None:
    """With beams no token is certain before the end; the tokens are those of `generate`, and those of all beams count as computed."""
    engine = load(plan_for(make_plan, llama_folder, generation={"num_beams": 3}))
    prompts = prompts_of(LENGTHS)
    expected = generated(llama_folder, engine.encode(prompts), 10, num_beams=3)
    requests = run(engine, prompts)
    assert [request.output for request in requests] == [text_of(ids) for ids in expected]
    for request in requests:
        assert (request.token_times_ns, request.chunk_tokens) == ([], [10])
        assert request.chunk_times_ns == [request.first_token_ns] == [request.end_ns]
        assert request.tokens_computed == 30


@pytest.mark.parametrize(
    "drafts", [{"prompt_lookup_num_tokens": 3}, {"assistant_model": "self"}], ids=["lookup", "model"]
)
def test_accepted_drafts_come_as_chunks(
    make_plan: MakePlan, llama_folder: Path, drafts: dict[str, Any]
) -> None:
    """A step that brings several tokens is a chunk with one time; rejected drafts are computed and not kept."""
    options = {name: str(llama_folder) if value == "self" else value for name, value in drafts.items()}
    # transformers 4.56 cannot look drafts up for a model without an end-of-sequence token
    ending = {"eos_token_id": 299}
    engine = load(
        make_plan(
            model={"name": str(llama_folder)},
            engine={"batch_size": 1},
            workload={"record_text": True},
            generation=options | ending,
        )
    )
    prompts = prompts_of((12,), tokens=40)
    expected = generated(llama_folder, engine.encode(prompts), 40, **ending)
    (request,) = run(engine, prompts)
    assert request.output == text_of(expected[0])
    assert sum(tokens or 0 for tokens in request.chunk_tokens) == request.output_tokens == 40
    assert max(tokens or 0 for tokens in request.chunk_tokens) > 1
    assert len(request.chunk_times_ns) == len(request.chunk_tokens)
    assert request.chunk_times_ns == sorted(request.chunk_times_ns)
    assert (request.tokens_computed or 0) >= 40


def test_whatever_a_model_raises_fails_its_batch(make_plan: MakePlan, llama_folder: Path) -> None:
    """Type and text are kept, what no text can hold is written out, and the next batch runs."""
    from torch.nn.modules.module import register_module_forward_pre_hook

    engine = load(make_plan(model={"name": str(llama_folder)}))
    for error, said in (
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError("one\ntwo"), "AssertionError: one two"),
        (RuntimeError("odd \udce4"), "RuntimeError: odd \\udce4"),
    ):

        def refuse(module: Any, arguments: Any, error: Exception = error) -> None:
            raise error

        handle = register_module_forward_pre_hook(refuse)
        try:
            requests = run(engine, prompts_of((3, 2)))
        finally:
            handle.remove()
        assert {(request.finish_reason, request.error) for request in requests} == {("error", said)}
    assert run(engine, prompts_of((3,)))[0].finish_reason == "length"


def test_what_was_used_is_known(make_plan: MakePlan, llama_folder: Path) -> None:
    """Attention, cache, compiling, quantisation and what generate was told stand in the model's facts."""
    plan = make_plan(
        model={"name": str(llama_folder), "load": {"attn_implementation": "eager"}},
        generation={"do_sample": True, "top_k": 7},
    )
    facts = create_engine(plan, device="cpu").load()
    assert (facts.attention, facts.cache, facts.compiled, facts.quantization) == (
        "eager",
        "DynamicCache",
        False,
        "none",
    )
    assert (facts.generation["do_sample"], facts.generation["top_k"]) == (True, 7)
    without = create_engine(make_plan(generation={"use_cache": False}), device="cpu").load()
    assert (without.cache, without.non_embedding_parameters) == ("none", None)
    assert "every step computes all tokens again" in without.missing["non_embedding_parameters"]


class LateSteps:
    """Gives a step back only when four later ones are recorded, as a busy GPU does."""

    def __init__(self) -> None:
        self._pending: list[Any] = []
        self._recorded = 0

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        from llem.engines.hf_generate import Step

        self._recorded += 1
        self._pending.append(Step(self._recorded, token_ids[:, since:].tolist()))

    def completed(self) -> Iterator[Any]:
        while len(self._pending) > 4:
            yield self._pending.pop(0)

    def rest(self) -> Iterator[Any]:
        while self._pending:
            yield self._pending.pop(0)


@pytest.mark.parametrize("stop_at", [None, 6], ids=["whole", "stopped"])
def test_steps_that_are_told_late_are_counted_alike(
    make_plan: MakePlan, llama_folder: Path, stop_at: int | None
) -> None:
    """Tokens, limits and a stop do not depend on when the host hears of a step."""
    from llem.engines.hf_generate import BatchJob

    engine: Any = load(make_plan(model={"name": str(llama_folder)}))
    batch = engine.encode(prompts_of(LENGTHS))
    expected = [ids[:stop_at] for ids in generated(llama_folder, batch, 10)]
    asked = itertools.count(1)
    generation = Generation(batch)
    job = BatchJob(generation, LateSteps(), lambda: next(asked) == stop_at, lambda count: None)
    engine._ready.generator.run(batch, job)
    assert [sequence.token_ids for sequence in generation.sequences] == expected
    assert generation.sequences[0].step_times_ns == list(range(1, len(expected[0]) + 1))
    assert {sequence.finish_reason for sequence in generation.sequences} == {
        "length" if stop_at is None else "stopped"
    }
