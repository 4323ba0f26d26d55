"""FLOPs of a request, from the shape of the model and its token counts alone, and what share of a device's peak was used."""

import re
from collections.abc import Sequence

import msgspec

from llem_events.events import ModelLoaded

# Stored beside every figure, so that a later formula can be told from this one.
FLOPS_METHOD = "2*parameters*tokens + 4*layers*heads*head_size*context"
_TERA = 10**12


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


class Peak(msgspec.Struct, frozen=True):
    """Dense peak of one device in TFLOP/s, by the weights' type; None where the device has no such arithmetic.

    16-bit figures are of the tensor cores with 32-bit accumulation and without sparsity; float32 is that of the
    ordinary cores, which torch uses unless TF32 is asked for.
    """

    nvml_name: str  # pattern for the whole name
    float16: float | None
    bfloat16: float | None
    float32: float
    source: str

    def flops_per_s(self, dtype: str) -> float | None:
        tera = {"float16": self.float16, "bfloat16": self.bfloat16, "float32": self.float32}.get(dtype)
        return None if tera is None else tera * _TERA


# The whole name has to match: a MIG instance, a laptop part or a "Ti" is another device and stays unknown.
PEAKS = (
    Peak(r"NVIDIA H100( 80GB HBM3| SXM5.*)", 989.4, 989.4, 66.9, "NVIDIA H100 data sheet, SXM"),
    Peak(r"NVIDIA H100 PCIe", 756.0, 756.0, 51.0, "NVIDIA H100 data sheet, PCIe"),
    Peak(r"NVIDIA H100 NVL", 835.5, 835.5, 60.0, "NVIDIA H100 data sheet, NVL"),
    Peak(r"NVIDIA H200( SXM.*)?", 989.4, 989.4, 66.9, "NVIDIA H200 data sheet, SXM"),
    Peak(r"NVIDIA H200 NVL", 835.5, 835.5, 60.0, "NVIDIA H200 data sheet, NVL"),
    Peak(r"(NVIDIA )?A100[- ].*", 312.0, 312.0, 19.5, "NVIDIA A100 data sheet"),
    Peak(r"NVIDIA L40S", 362.05, 362.05, 91.6, "NVIDIA L40S data sheet"),
    Peak(r"NVIDIA L4", 121.0, 121.0, 30.3, "NVIDIA L4 data sheet (halved from the figure with sparsity)"),
    Peak(r"(NVIDIA |Tesla )V100-SXM2.*", 125.0, None, 15.7, "NVIDIA V100 data sheet, SXM2"),
    Peak(r"(NVIDIA |Tesla )V100-PCIE.*", 112.0, None, 14.0, "NVIDIA V100 data sheet, PCIe"),
    Peak(r"(NVIDIA |Tesla )T4", 65.0, None, 8.1, "NVIDIA T4 data sheet"),
    Peak(r"NVIDIA GeForce RTX 4090", 165.2, 165.2, 82.6, "NVIDIA Ada architecture white paper, appendix A"),
    Peak(r"NVIDIA GeForce RTX 3090", 71.0, 71.0, 35.6, "NVIDIA GA102 architecture white paper, appendix A"),
)


def peak_of(device_name: str) -> Peak | None:
    """The entry for a device by its NVML name; None where the table has none."""
    if "MIG" in device_name:
        return None
    return next((peak for peak in PEAKS if re.fullmatch(peak.nvml_name, device_name)), None)


def model_flops_utilisation(
    flops: float | None, *, duration_s: float | None, device_names: Sequence[str], dtype: str | None
) -> float | None:
    """FLOPs done over what all devices could have done at their peak (MFU, Chowdhery et al. 2022, appendix B).

    None where the FLOPs, the duration, the type of the weights or the peak of any device is unknown.
    """
    peaks = [peak for name in device_names if (peak := _peak_flops_per_s(name, dtype)) is not None]
    if not peaks or len(peaks) < len(device_names) or flops is None or not duration_s:
        return None
    return flops / (duration_s * sum(peaks))


def _peak_flops_per_s(device_name: str, dtype: str | None) -> float | None:
    peak = peak_of(device_name)
    return None if peak is None or dtype is None else peak.flops_per_s(dtype)
