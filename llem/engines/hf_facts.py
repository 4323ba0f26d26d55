"""What is known of a loaded Hugging Face model, read from the model itself; what cannot be read is None with its reason."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn

from llem.engines.hf_model import Weights
from llem.engines.hf_options import ADAPTER, QUANTIZATION
from llem.engines.hub import type_and_text
from llem.engines.sources import ModelSource
from llem.plan import ModelPlan
from llem_events.events import ModelLoaded

# Kinds of layers that the formula for FLOPs knows; others keep a state instead of attending to all tokens.
_ATTENTION_KINDS = frozenset({"full_attention", "sliding_attention"})


class LoadFacts(NamedTuple):
    """What the engine knows of how the model was loaded."""

    source: ModelSource
    plan: ModelPlan
    tokenizer: str
    cache: str
    load_time_ns: int


class UnknownFactError(Exception):
    """Why a fact cannot be said."""


def model_facts(weights: Weights, loading: LoadFacts) -> ModelLoaded:
    """The facts of a model, read from the model itself; what cannot be read is None with its reason."""
    model, source = weights.model, loading.source
    facts = _Facts()
    config = facts.read("configuration", lambda: model.config.get_text_config(decoder=True))
    heads = facts.read("attention_heads", lambda: getattr(config, "num_attention_heads", None))
    window = facts.read("sliding_window", lambda: getattr(config, "sliding_window", None))
    return ModelLoaded(
        model_name=source.name,
        weights=source.weights,
        source=source.kind,
        revision=source.revision or getattr(model.config, "_commit_hash", None),
        trust_remote_code=source.trust_remote_code,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        tokenizer=loading.tokenizer,
        parameters=_count(model.parameters()),
        non_embedding_parameters=facts.read(
            "non_embedding_parameters", lambda: _checked_parameters(model, config, loading)
        ),
        layers=facts.read("layers", lambda: getattr(config, "num_hidden_layers", None)),
        attention_heads=heads,
        head_size=facts.read("head_size", lambda: _head_size(config, heads)),
        sliding_window=window,
        sliding_window_layers=facts.read(
            "sliding_window_layers", lambda: None if window is None else _windowed_layers(config)
        ),
        output_head_parameters=facts.read(
            "output_head_parameters", lambda: _once_per_prompt_parameters(model)
        ),
        weights_bytes=facts.read("weights_bytes", lambda: sum(map(_bytes, model.parameters()))),
        load_time_ns=loading.load_time_ns,
        attention=facts.read("attention", lambda: model.config._attn_implementation),
        cache=loading.cache,
        compiled=getattr(model, "_compiled_call", None) is not None,
        quantization=facts.read("quantization", lambda: _quantization(model.config)),
        adapter=loading.plan.load.get(ADAPTER),
        generation=facts.read("generation", lambda: _generation_settings(model.generation_config)) or {},
        doubts=weights.doubts,
        missing=facts.missing,
    )


class _Facts:
    """Reads facts: one that raises is unknown for that reason, and stops nothing."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}

    def read(self, name: str, fact: Callable[[], Any]) -> Any:
        try:
            return fact()
        except UnknownFactError as reason:
            self.missing[name] = str(reason)
        except Exception as error:  # noqa: BLE001 -- a configuration may have attributes that raise whatever they like
            self.missing[name] = type_and_text(error)
        return None


def multiplied_parameters(model: Any) -> int:
    """Parameters that multiply a token of text.

    That is all of the decoder and the output head, but not the look-up tables (token and position embeddings); each
    is counted once. The head stays also where it shares its weights with the token embedding. Towers for images and
    sound are outside the decoder.
    """
    decoder, head = model.get_decoder() or model.base_model, model.get_output_embeddings()
    head_weights = [] if head is None else list(head.parameters())
    head_ids = {id(weight) for weight in head_weights}
    tables = {
        id(module.weight)
        for module in decoder.modules()
        if isinstance(module, nn.Embedding) and id(module.weight) not in head_ids
    }
    multiplied = {id(weight): weight for weight in [*decoder.parameters(), *head_weights]}
    return _count(weight for key, weight in multiplied.items() if key not in tables)


def _checked_parameters(model: Any, config: Any, loading: LoadFacts) -> int:
    """The parameters of the formula for FLOPs. Raises UnknownFactError where it does not hold."""
    if _has_experts(model, config):
        raise UnknownFactError("a mixture of experts sends a token through some of its parameters only")
    if loading.cache == "none":
        raise UnknownFactError("without a cache every step computes all tokens again")
    if _quantization(model.config) != "none":
        raise UnknownFactError("quantised weights are packed")
    kinds = set(getattr(config, "layer_types", None) or ()) - _ATTENTION_KINDS
    if kinds:
        raise UnknownFactError(f"layers of kind {', '.join(sorted(kinds))} do not attend to all tokens")
    return multiplied_parameters(model)


def _has_experts(model: Any, config: Any) -> bool:
    """A mixture of experts by a count of them in its configuration, however that is nested, or by the name of a module."""
    if any("expert" in name and _is_several(value) for name, value in _settings(config.to_dict())):
        return True
    names = (type(module).__name__.lower() for module in model.modules())
    return any("expert" in name or "moe" in name for name in names)


def _settings(table: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        yield str(name), value
        if isinstance(value, dict):
            yield from _settings(value)


def _is_several(value: Any) -> bool:
    counts = value if isinstance(value, list) else [value]
    return any(isinstance(count, int) and count > 1 for count in counts)


def _once_per_prompt_parameters(model: Any) -> int:
    """Parameters of the output head; 0 where the model cannot leave it out for all but a prompt's last position."""
    head = model.get_output_embeddings()
    if head is None or "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return 0
    return _count(head.parameters())


def _count(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _bytes(tensor: Any) -> int:
    """What a tensor takes; one that stands for others, as quantised ones do, takes what they do."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return int(tensor.numel() * tensor.element_size())
    names, _ = tensor.__tensor_flatten__()
    return sum(_bytes(getattr(tensor, name)) for name in names)


def _head_size(config: Any, heads: int | None) -> int | None:
    if size := getattr(config, "head_dim", None):
        return int(size)
    hidden = getattr(config, "hidden_size", None)
    return hidden // heads if hidden and heads else None


def _windowed_layers(config: Any) -> int:
    """How many layers have the window."""
    kinds = getattr(config, "layer_types", None)
    return sum(kind == "sliding_attention" for kind in kinds) if kinds else int(config.num_hidden_layers)


def _quantization(config: Any) -> str:
    """The method by name; "none" for none."""
    named = getattr(config, QUANTIZATION, None)
    if not named:
        return "none"
    method = named.get("quant_method") if isinstance(named, dict) else getattr(named, "quant_method", None)
    return str(getattr(method, "value", method))


def _generation_settings(config: Any) -> dict[str, Any]:
    """What `generate` does otherwise than by default; plain values, texts for all else."""
    plain = (bool, int, float, str, list, type(None))
    return {
        name: setting if isinstance(setting, plain) else str(setting)
        for name, setting in config.to_diff_dict().items()
        if name != "transformers_version" and not name.startswith(("_", "output_"))
    }
