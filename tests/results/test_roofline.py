"""Rooflines: the intensity that a dense model's batches have, the roof of its devices, and where too little is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results.flops import ModelShape, request_flops
from llem.results.roofline import BANDWIDTHS, RooflinePoint, WeightReads, roofline_point

H100 = "NVIDIA H100 80GB HBM3"
READS = WeightReads(parameters=10**9, dtype="bfloat16", passes=100)


def point(reads: tuple[WeightReads, ...] = (READS,), **known: Any) -> RooflinePoint | None:
    usual = {"flops": 8e11, "flops_per_s": 1e12, "utilisation": 0.001, "device_names": [H100]}
    return roofline_point(reads, **usual | known)


def test_a_run_lies_below_the_roof_of_its_devices() -> None:
    """FLOPs over the bytes of all reads, the peak by the share of it that was used, and the memory of every device."""
    assert point() == RooflinePoint(4.0, 1e12, pytest.approx(1e15), 3.35e12)
    two = point((READS, READS), device_names=[H100, H100])
    assert two is not None
    assert (two.flops_per_byte, two.bandwidth_bytes_per_s) == (2.0, 6.7e12)


@given(st.integers(1, 512))
def test_decoding_in_16_bits_has_an_intensity_of_the_batch(batch: int) -> None:
    """Two FLOPs and two bytes for each weight: as many FLOPs a byte as there are requests in the batch."""
    shape = ModelShape(non_embedding_parameters=10**9, layers=1, attention_width=1)
    flops = request_flops(shape, input_tokens=1, output_tokens=100)
    assert flops is not None
    found = point(flops=flops.total * batch)
    assert found is not None
    assert found.flops_per_byte == pytest.approx(batch, rel=1e-4)


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2), ("bfloat16", 2), ("float32", 4)])
def test_weights_of_more_bytes_have_a_smaller_intensity(dtype: str, size: int) -> None:
    """FLOPs over the bytes that one number takes."""
    found = point((WeightReads(parameters=10**9, dtype=dtype, passes=100),))
    assert found is not None and found.flops_per_byte == pytest.approx(8e11 / (1e11 * size))


@pytest.mark.parametrize(
    "unknown",
    [
        {"flops": None},
        {"utilisation": None},
        {"device_names": [H100, "another"]},
        {"device_names": [f"{H100} MIG 1g.10gb"]},
        {"device_names": ["NVIDIA H200 MIG 1g.18gb"]},
        {"device_names": []},
        {"reads": ()},
        {"reads": (READS, WeightReads(parameters=None, dtype="bfloat16", passes=1))},
        {"reads": (WeightReads(parameters=10**9, dtype=None, passes=1),)},
        {"reads": (WeightReads(parameters=10**9, dtype="bfloat16", passes=None),)},
    ],
)
def test_what_is_not_known_has_no_place(unknown: dict[str, Any]) -> None:
    """Of a part that is unknown nothing is made up."""
    assert point(**unknown) is None


def test_each_bandwidth_has_a_source() -> None:
    """And lies between those of the slowest and the fastest memory of a GPU that is known."""
    assert all(each.source and 100 < each.gb_per_s < 10_000 for each in BANDWIDTHS)
