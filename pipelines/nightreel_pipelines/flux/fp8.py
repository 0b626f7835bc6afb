"""Linear layers whose weights are 8-bit floats with one scale for each output row. Imports torch.

A row is scaled so that its largest weight becomes 448, the largest number of float8_e4m3fn (4 bits of exponent, 3 of
mantissa: "FP8 Formats for Deep Learning", arXiv 2209.05433). Rows do not know of each other, and inputs are scaled row by
row, too: neighbours in a batch change nothing.
"""

from __future__ import annotations

import torch
from torch import nn

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of FP8
SCALE_SUFFIX = "_scale"  # of a weight's name: its scales lie beside it
MATMUL_SIDE = 16  # both sides of an 8-bit multiplication's weight are multiples of this
MATMUL_ROWS = 17  # fewer inputs cost what reading the weight costs; they are multiplied in full precision

_SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_BLOCK_ELEMENTS = 1 << 24  # rows are quantized in blocks of 64 MiB in float32


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each row to 8-bit floats.

    weight: floats (rows, columns). Returns float8_e4m3fn (rows, columns) and float32 (rows,), whose product is within
    max(|weight| / 16, scale / 1024) of the weight. Raises ValueError for a number that is not finite.
    """
    codes = torch.empty(weight.shape, dtype=FP8, device=weight.device)
    scales = torch.empty(weight.shape[0], dtype=torch.float32, device=weight.device)
    rows = max(1, _BLOCK_ELEMENTS // max(1, weight.shape[1]))
    for start in range(0, weight.shape[0], rows):
        block = weight[start : start + rows].float()
        if not torch.isfinite(block).all():
            raise ValueError("holds numbers that are not finite")
        codes[start : start + rows], scales[start : start + rows] = quantize_rows(block)
    return codes, scales


def quantize_rows(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `quantize`, at once and unchecked; a row of zeros gets a scale that is no zero."""
    scales = (block.abs().amax(dim=1).float() / LARGEST).clamp(min=_SMALLEST_SCALE)
    codes = (block.float() / scales[:, None]).to(
        FP8
    )  # at most 448 and a rounding: FP8 has no infinity, and rounds it down
    return codes, scales


def dequantize(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight again: (rows, columns), multiplied in float32 and then rounded to `dtype`."""
    return (codes.float() * scales[:, None]).to(dtype)


class Fp8Linear(nn.Module):
    """Stands in for an nn.Linear. `matmul` says whether the device multiplies 8-bit floats; else weights become wide first.

    Its input is float (..., columns), its output of the same dtype (..., rows).
    """

    weight: None = None  # T5 asks its layers for their weight's dtype, to cast its activations to it
    codes: torch.Tensor
    scales: torch.Tensor

    def __init__(self, codes: torch.Tensor, scales: torch.Tensor, *, bias: bool, matmul: bool) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.bias: nn.Parameter | None = None  # named as nn.Linear's, and loaded as it is
        if bias:
            self.bias = nn.Parameter(torch.empty(codes.shape[0], device="meta"), requires_grad=False)
        self._matmul = matmul and all(side % MATMUL_SIDE == 0 for side in codes.shape)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.numel() // inputs.shape[-1]
        if not self._matmul or rows < MATMUL_ROWS:
            wide = dequantize(self.codes, self.scales, inputs.dtype)
            return nn.functional.linear(inputs, wide, self.bias)
        flat = scaled_matmul(inputs.reshape(rows, -1), self.codes, self.scales, self.bias)
        return flat.reshape(*inputs.shape[:-1], -1)

    def extra_repr(self) -> str:
        return f"{self.codes.shape[1]}, {self.codes.shape[0]}, matmul={self._matmul}"


def scaled_matmul(
    inputs: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Multiply with 8-bit inputs, quantized row by row: float (n, columns) -> (n, rows) of the inputs' dtype.

    torch multiplies row-scaled 8-bit floats into bfloat16 only.
    """
    rounded, input_scales = quantize_rows(inputs)
    made: torch.Tensor = torch._scaled_mm(
        rounded,
        codes.t(),
        scale_a=input_scales[:, None],
        scale_b=scales[None, :],
        bias=None if bias is None else bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16,
    )
    return made.to(inputs.dtype)
