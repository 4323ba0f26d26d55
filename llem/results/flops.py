"""FLOPs of a request, from the shape of the model and its token counts alone."""

import msgspec

from llem_events.events import ModelLoaded

# Stored beside every figure, so that a later formula can be told from this one.
FLOPS_METHOD = "2*parameters*tokens + 4*layers*heads*head_size*context"


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """What the formula needs of a model; see `ModelLoaded` for the fields."""

    non_embedding_parameters: int
    output_head_parameters: int = 0  # the part that runs for a prompt's last position only
    layers: int
    attention_width: int  # heads x head size
    sliding_window: int | None = None
    sliding_window_layers: int = 0


class RequestFlops(msgspec.Struct, frozen=True, kw_only=True):
    """FLOPs of the two phases of a request: the prompt up to the first token, and the tokens after it."""

    prefill: int
    decode: int

    @property
    def total(self) -> int:
        return self.prefill + self.decode


def model_shape(model: ModelLoaded) -> ModelShape | None:
    """The shape, or None where the engine did not say all of it."""
    if not (model.non_embedding_parameters and model.layers and model.attention_heads and model.head_size):
        return None
    all_layers = model.layers if model.sliding_window else 0
    window_layers = model.sliding_window_layers
    return ModelShape(
        non_embedding_parameters=model.non_embedding_parameters,
        output_head_parameters=model.output_head_parameters or 0,
        layers=model.layers,
        attention_width=model.attention_heads * model.head_size,
        sliding_window=model.sliding_window,
        sliding_window_layers=all_layers if window_layers is None else window_layers,
    )


def prefill_flops(shape: ModelShape, *, tokens: int) -> int:
    """FLOPs of one forward pass over a prompt of `tokens` that yields the first output token.

    2 N per token: one multiplication and one addition per parameter (Kaplan et al. 2020, arXiv:2001.08361, section
    2.1), where N are all parameters that multiply a token. The output head is among them and counts once: of a
    prompt only the last position's logits are needed. Attention as in `attention_flops`, every token over the whole
    prompt: the causal half that kernels may skip is counted, as PaLM and torch's FLOP counter do.
    Norms, activations, softmax and biases, under 1 % in all, are left out.
    """
    body = shape.non_embedding_parameters - shape.output_head_parameters
    return 2 * (body * tokens + shape.output_head_parameters) + attention_flops(
        shape, queries=tokens, context=tokens
    )


def decode_flops(shape: ModelShape, *, context: int, steps: int = 1) -> int:
    """FLOPs of `steps` single tokens, the first of which attends to `context` tokens, itself included."""
    full = _contexts(context, steps, window=None)
    windowed = _contexts(context, steps, window=shape.sliding_window)
    return 2 * shape.non_embedding_parameters * steps + _attention(shape, full=full, windowed=windowed)


def attention_flops(shape: ModelShape, *, queries: int, context: int) -> int:
    """4 x heads x head size x context per query and layer: queries by keys, then weights by values.

    Source: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B, whose 12 L H Q T of a training step is three
    times this forward pass. A sliding-window layer sees at most its window. Grouped keys change memory, not FLOPs.
    """
    seen = context if shape.sliding_window is None else min(context, shape.sliding_window)
    return _attention(shape, full=queries * context, windowed=queries * seen)


def request_flops(shape: ModelShape | None, *, input_tokens: int, output_tokens: int) -> RequestFlops | None:
    """FLOPs of a request; None where the model is unknown or no token came out.

    The prefill yields the first output token; each later token attends to one more than the token before. Padding,
    and what a batch computes for a sequence that has ended, do no work for the request and are not counted.
    """
    if shape is None or output_tokens == 0:
        return None
    return RequestFlops(
        prefill=prefill_flops(shape, tokens=input_tokens),
        decode=decode_flops(shape, context=input_tokens + 1, steps=output_tokens - 1),
    )


def _attention(shape: ModelShape, *, full: int, windowed: int) -> int:
    """FLOPs of so many query-key pairs in each full and each sliding-window layer."""
    full_layers = shape.layers - shape.sliding_window_layers
    return 4 * shape.attention_width * (full_layers * full + shape.sliding_window_layers * windowed)


def _contexts(first: int, steps: int, *, window: int | None) -> int:
    """first + (first + 1) + ... over `steps` terms, none above the window."""
    growing = steps if window is None else min(max(window - first, 0), steps)
    return growing * first + growing * (growing - 1) // 2 + (steps - growing) * (window or 0)
