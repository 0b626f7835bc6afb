"""8-bit floats with a scale for each row: how far from the weight they may be, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nightreel_pipelines.flux.fp8 import FP8, LARGEST, Fp8Linear, dequantize, quantize, scaled_matmul

EXPONENTS = st.integers(-37, 37)  # of a row's size in powers of ten, all that float32 has


def rows(exponents: list[int], columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([10.0**exponent for exponent in exponents])
    return torch.randn(len(exponents), columns, generator=generator) * sizes[:, None]


def layer(rows_: int, columns: int, *, matmul: bool, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Fp8Linear]:
    torch.manual_seed(0)
    linear = nn.Linear(columns, rows_).to(dtype).requires_grad_(False)
    ours = Fp8Linear(*quantize(linear.weight), bias=True, matmul=matmul)
    ours.bias = linear.bias
    return linear, ours


# Quantizing


@settings(max_examples=200, deadline=None)
@given(st.lists(EXPONENTS, min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 2**31))
def test_each_weight_is_within_a_sixteenth_of_itself_or_a_1024th_of_its_rows_scale(
    exponents: list[int], columns: int, seed: int
) -> None:
    weight = rows(exponents, columns, seed)

    codes, scales = quantize(weight)

    error = (dequantize(codes, scales, torch.float64) - weight.double()).abs()
    bound = torch.maximum(weight.double().abs() / 16, scales.double()[:, None] / 1024)
    assert (error <= bound * (1 + 1e-6)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(EXPONENTS, min_size=2, max_size=6), st.integers(0, 2**31))
def test_a_row_is_quantized_without_regard_to_the_others(exponents: list[int], seed: int) -> None:
    weight = rows(exponents, 8, seed)

    codes, scales = quantize(weight)

    for number in range(len(exponents)):
        alone = quantize(weight[number : number + 1])
        assert torch.equal(codes[number].float(), alone[0][0].float())
        assert scales[number] == alone[1][0]


@settings(max_examples=100, deadline=None)
@given(st.integers(-34, 37), st.integers(0, 2**31))  # below, the scale itself would be no normal number
def test_the_largest_weight_of_a_row_uses_the_largest_number_there_is(exponent: int, seed: int) -> None:
    codes, scales = quantize(rows([exponent], 16, seed))

    assert codes.float().abs().max() == LARGEST
    assert torch.isfinite(scales).all()


def test_zeros_stay_zeros_and_their_scale_is_none() -> None:
    codes, scales = quantize(torch.zeros(3, 4))

    assert (codes.float() == 0).all()
    assert (scales > 0).all()
    assert (dequantize(codes, scales, torch.float32) == 0).all()


@pytest.mark.parametrize("value", [torch.finfo(torch.bfloat16).max, 2.0**-133, -448.0, 1e-45])
def test_the_extremes_of_floats_stay_finite(value: float) -> None:
    weight = torch.full((1, 4), value)

    again = dequantize(*quantize(weight), torch.float64)

    assert torch.isfinite(again).all()
    assert (again - weight.double()).abs().max() <= max(abs(value) / 16, torch.finfo(torch.float32).tiny / 1024)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 3])
def test_what_is_no_number_is_refused(value: float, row: int) -> None:
    weight = torch.ones(4, 4)
    weight[row, 2] = value

    with pytest.raises(ValueError, match="not finite"):
        quantize(weight)


def test_rows_are_quantized_in_blocks_of_which_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = rows([0] * 7, 16, seed=1)
    whole = quantize(weight)

    monkeypatch.setattr("nightreel_pipelines.flux.fp8._BLOCK_ELEMENTS", 32)  # two rows a block

    codes, scales = quantize(weight)
    assert torch.equal(codes.float(), whole[0].float())
    assert torch.equal(scales, whole[1])


# Multiplying


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_without_8_bit_matmul_multiplies_its_weight_as_it_was_rounded(dtype: torch.dtype) -> None:
    linear, ours = layer(48, 32, matmul=False, dtype=dtype)
    inputs = torch.randn(2, 20, 32, dtype=dtype)

    wanted = nn.functional.linear(inputs, dequantize(ours.codes, ours.scales, dtype), linear.bias)

    assert torch.equal(ours(inputs), wanted)
    assert ours(inputs).dtype == dtype


def test_8_bit_matmul_multiplies_inputs_that_were_rounded_row_by_row() -> None:
    """torch's own kernel, which the CPU has too, against the formula."""
    linear, ours = layer(48, 32, matmul=True, dtype=torch.bfloat16)
    inputs = torch.randn(3, 11, 32).bfloat16() * torch.logspace(-3, 3, 11)[:, None].bfloat16()

    made = ours(inputs)

    flat = inputs.reshape(33, 32).float()
    scale = flat.abs().amax(dim=1, keepdim=True) / LARGEST
    wanted = (flat / scale).to(FP8).float() * scale @ dequantize(ours.codes, ours.scales, torch.float32).t()
    assert made.shape == (3, 11, 48)
    torch.testing.assert_close(made.reshape(33, 48).float(), wanted + linear.bias.float(), rtol=1e-2, atol=1e-2)


def test_a_picture_does_not_depend_on_its_neighbours_in_a_batch() -> None:
    _, ours = layer(48, 32, matmul=True, dtype=torch.bfloat16)
    one, other = torch.randn(20, 32).bfloat16(), torch.randn(20, 32).bfloat16() * 1000

    assert torch.equal(ours(torch.stack([one, other]))[0], ours(one))


def test_few_inputs_and_odd_sides_are_multiplied_without_8_bit_matmul() -> None:
    for rows_, columns, inputs in ((48, 32, torch.randn(1, 32)), (47, 32, torch.randn(40, 32))):
        _, ours = layer(rows_, columns, matmul=True)
        _, plain = layer(rows_, columns, matmul=False)
        assert torch.equal(ours(inputs), plain(inputs))


def test_rows_of_zeros_go_through_8_bit_matmul() -> None:
    codes, scales = quantize(torch.randn(16, 16))

    made = scaled_matmul(torch.zeros(32, 16), codes, scales, None)

    assert (made == 0).all()


def test_t5_finds_no_weight_to_cast_its_activations_to() -> None:
    assert layer(16, 16, matmul=False)[1].weight is None
