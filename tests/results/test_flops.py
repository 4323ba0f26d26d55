"""FLOPs of a request by its shape and token counts, and the peaks of devices."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results.flops import (
    PEAKS,
    ModelShape,
    attention_flops,
    decode_flops,
    model_flops_utilisation,
    model_shape,
    peak_of,
    prefill_flops,
    request_flops,
)
from llem_events.events import ModelLoaded

shapes = st.builds(
    lambda layers, window, window_layers, head: ModelShape(
        non_embedding_parameters=1000 + head,
        output_head_parameters=head,
        layers=layers,
        attention_width=8,
        sliding_window=window,
        sliding_window_layers=min(window_layers, layers) if window else 0,
    ),
    st.integers(1, 5),
    st.none() | st.integers(1, 30),
    st.integers(0, 5),
    st.integers(0, 100),
)


@given(shapes, st.integers(1, 60), st.integers(1, 60))
def test_decode_is_the_sum_of_its_steps(shape: ModelShape, context: int, steps: int) -> None:
    """The closed form of many steps equals single steps added up, windows included."""
    single = [decode_flops(shape, context=context + step) for step in range(steps)]
    assert decode_flops(shape, context=context, steps=steps) == sum(single)


@given(shapes, st.integers(1, 60), st.integers(1, 60))
def test_request_is_prefill_and_the_later_tokens(
    shape: ModelShape, input_tokens: int, output_tokens: int
) -> None:
    """The first token comes from the prefill, each later one from a step over everything before it."""
    flops = request_flops(shape, input_tokens=input_tokens, output_tokens=output_tokens)
    assert flops is not None
    assert flops.prefill == prefill_flops(shape, tokens=input_tokens)
    assert flops.decode == sum(decode_flops(shape, context=input_tokens + k) for k in range(1, output_tokens))
    assert flops.total == flops.prefill + flops.decode


def test_llama_8b_by_hand() -> None:
    """An 8 B model: 2 x 7.50 G per token, and 4 x 32 layers x 4096 per context token."""
    shape = ModelShape(non_embedding_parameters=7_504_924_672, layers=32, attention_width=4096)
    assert decode_flops(shape, context=1000) == 2 * 7_504_924_672 + 4 * 32 * 4096 * 1000
    assert attention_flops(shape, queries=10, context=10) == 4 * 32 * 4096 * 100


def test_a_prompt_needs_the_output_head_once() -> None:
    """1000 parameters, 100 of them the head: of 5 tokens 2 x (900 x 5 + 100), and 4 x 3 layers x 8 for each of 25 pairs."""
    shape = ModelShape(non_embedding_parameters=1000, output_head_parameters=100, layers=3, attention_width=8)
    assert prefill_flops(shape, tokens=5) == 2 * (900 * 5 + 100) + 4 * 3 * 8 * 25


def test_a_window_bounds_what_a_token_attends_to() -> None:
    """One full layer and two with a window of 4: tokens over 3, 4, 5 and 6 others see 3, 4, 4 and 4 there."""
    shape = ModelShape(
        non_embedding_parameters=1000, layers=3, attention_width=8, sliding_window=4, sliding_window_layers=2
    )
    pairs = (3 + 4 + 5 + 6) + 2 * (3 + 4 + 4 + 4)
    assert decode_flops(shape, context=3, steps=4) == 2 * 1000 * 4 + 4 * 8 * pairs
    assert attention_flops(shape, queries=5, context=5) == 4 * 8 * (25 + 2 * 5 * 4)


def test_a_shape_is_what_the_engine_said() -> None:
    """Heads times head size is the width; a window is that of all layers unless their number is given, and without one of none."""
    said = ModelLoaded(
        model_name="m",
        weights="random",
        source="config",
        layers=6,
        non_embedding_parameters=1000,
        attention_heads=4,
        head_size=16,
        sliding_window=32,
    )
    whole = ModelShape(
        non_embedding_parameters=1000,
        layers=6,
        attention_width=64,
        sliding_window=32,
        sliding_window_layers=6,
    )
    change = msgspec.structs.replace
    assert model_shape(said) == whole
    assert model_shape(change(said, sliding_window_layers=2, output_head_parameters=9)) == change(
        whole, sliding_window_layers=2, output_head_parameters=9
    )
    assert model_shape(change(said, sliding_window=None)) == change(
        whole, sliding_window=None, sliding_window_layers=0
    )
    for missing in ("non_embedding_parameters", "layers", "attention_heads", "head_size"):
        assert model_shape(change(said, **{missing: None})) is None


def test_unknown_models_have_no_flops() -> None:
    """Without a full shape, or without a token, there is no figure, never 0."""
    simulated = ModelLoaded(model_name="simulated", weights="simulated", source="simulated")
    assert model_shape(simulated) is None
    assert request_flops(None, input_tokens=3, output_tokens=3) is None
    shape = ModelShape(non_embedding_parameters=10, layers=1, attention_width=2)
    assert request_flops(shape, input_tokens=3, output_tokens=0) is None


@pytest.mark.parametrize(
    ("name", "dtype", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "float16", 756.0),
        ("NVIDIA H200", "float32", 66.9),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312.0),
        ("NVIDIA A100 80GB PCIe", "float32", 19.5),
        ("NVIDIA L4", "float16", 121.0),
        ("NVIDIA L40S", "float16", 362.05),
        ("Tesla V100-SXM2-16GB", "float16", 125.0),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("Tesla T4", "float32", 8.1),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GeForce RTX 3090", "int8", None),
    ],
)
def test_peaks_by_nvml_name(name: str, dtype: str, tera: float | None) -> None:
    """The name that NVML gives finds the dense peak of its arithmetic."""
    peak = peak_of(name)
    assert peak is not None
    assert peak.flops_per_s(dtype) == (tera and pytest.approx(tera * 1e12))


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 SXM5 80GB", (989.4, 989.4, 66.9)),
        ("NVIDIA H100 PCIe", (756.0, 756.0, 51.0)),
        ("NVIDIA H100 NVL", (835.5, 835.5, 60.0)),
        ("NVIDIA H200 SXM", (989.4, 989.4, 66.9)),
        ("NVIDIA H200 NVL", (835.5, 835.5, 60.0)),
        ("A100-SXM4-40GB", (312.0, 312.0, 19.5)),
        ("NVIDIA L40S", (362.05, 362.05, 91.6)),
        ("NVIDIA L4", (121.0, 121.0, 30.3)),
        ("NVIDIA V100-SXM2-32GB", (125.0, None, 15.7)),
        ("Tesla V100-PCIE-16GB", (112.0, None, 14.0)),
        ("NVIDIA T4", (65.0, None, 8.1)),
        ("NVIDIA GeForce RTX 4090", (165.2, 165.2, 82.6)),
        ("NVIDIA GeForce RTX 3090", (71.0, 71.0, 35.6)),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, tera: tuple[float | None, ...]) -> None:
    """Copied a second time from where the entry says: float16, bfloat16, float32."""
    peak = peak_of(name)
    assert peak is not None
    assert (peak.float16, peak.bfloat16, peak.float32) == tera


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "A100-SXM4-40GB MIG 3g.20gb",
        "AMD EPYC",
        "",
    ],
)
def test_other_devices_have_no_peak(name: str) -> None:
    """A part, a laptop version or an unknown device has none, rather than a neighbour's."""
    assert peak_of(name) is None


def test_each_device_matches_one_entry_with_a_source() -> None:
    """No two entries fit one name, and each says where its figures are from."""
    names = [
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H200",
        "NVIDIA H200 NVL",
        "NVIDIA L4",
        "NVIDIA L40S",
    ]
    for name in names:
        assert sum(bool(re.fullmatch(peak.nvml_name, name)) for peak in PEAKS) == 1
    assert all(peak.source for peak in PEAKS)


def test_utilisation() -> None:
    """FLOPs over time and peak of all devices; unknown parts make it unknown."""
    h100 = "NVIDIA H100 80GB HBM3"
    half = model_flops_utilisation(int(989.4e12), duration_s=1.0, device_names=[h100, h100], dtype="bfloat16")
    assert half == pytest.approx(0.5)
    for flops, duration_s, names, dtype in [
        (None, 1.0, [h100], "bfloat16"),
        (1, None, [h100], "bfloat16"),
        (1, 0.0, [h100], "bfloat16"),
        (1, 1.0, [], "bfloat16"),
        (1, 1.0, [h100, "unknown"], "bfloat16"),
        (1, 1.0, [h100], None),
    ]:
        assert model_flops_utilisation(flops, duration_s=duration_s, device_names=names, dtype=dtype) is None
