"""What is known of a loaded model: sizes and shapes that results and FLOPs rest on."""

import inspect
from typing import Any

from torch import nn

from llem.engines.sources import ModelSource
from llem_events.events import ModelLoaded


def model_facts(model: Any, source: ModelSource, *, tokenizer: str, load_time_ns: int) -> ModelLoaded:
    """The facts of a model, read from the model itself."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", None)
    window, window_layers = _sliding_window(config)
    return ModelLoaded(
        model_name=source.name,
        weights=source.weights,
        source=source.kind,
        revision=source.revision or getattr(model.config, "_commit_hash", None),
        trust_remote_code=source.trust_remote_code,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        tokenizer=tokenizer,
        parameters=_count(model.parameters()),
        non_embedding_parameters=None if _is_mixture(config) else multiplied_parameters(model),
        layers=getattr(config, "num_hidden_layers", None),
        attention_heads=heads,
        head_size=_head_size(config, heads),
        sliding_window=window,
        sliding_window_layers=window_layers,
        output_head_parameters=_once_per_prompt_parameters(model),
        weights_bytes=sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
        load_time_ns=load_time_ns,
    )


def multiplied_parameters(model: Any) -> int:
    """Parameters that multiply a token.

    That is all of them but the look-up tables (token and position embeddings), each counted once; the output head
    multiplies, so it stays, also where it shares its weights with the token embedding.
    """
    head = model.get_output_embeddings()
    head_weight = None if head is None else head.weight
    tables = {
        id(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.weight is not head_weight
    }
    return _count(model.parameters()) - _count(tables.values())


def _once_per_prompt_parameters(model: Any) -> int:
    """Parameters of the output head; 0 where the model cannot leave it out for all but a prompt's last position."""
    head = model.get_output_embeddings()
    if head is None or "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return 0
    return _count(head.parameters())


def _count(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _is_mixture(config: Any) -> bool:
    """A mixture of experts sends a token through some of its parameters only."""
    return any(
        getattr(config, name, None) for name in ("num_experts_per_tok", "num_experts", "num_local_experts")
    )


def _head_size(config: Any, heads: int | None) -> int | None:
    if size := getattr(config, "head_dim", None):
        return int(size)
    hidden = getattr(config, "hidden_size", None)
    return hidden // heads if hidden and heads else None


def _sliding_window(config: Any) -> tuple[int | None, int | None]:
    """The window, and how many layers have it."""
    window = getattr(config, "sliding_window", None)
    if window is None:
        return None, None
    kinds = getattr(config, "layer_types", None)
    return int(window), sum(
        kind == "sliding_attention" for kind in kinds
    ) if kinds else config.num_hidden_layers
