"""Tensors from files straight into a model that has none yet: several at once, each in its last place. Imports torch.

A model is built on torch's meta device, where tensors have no memory; each gets its memory when its bytes arrive. On the
way to a GPU bytes pass through small pinned buffers, so that the host never holds more than a few of them. A model that
stays on the CPU has the files' own pages for its memory, as the libraries' own loaders do: nothing is copied.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .dtypes import TORCH_OF, bytes_of
from .fp8 import SCALE_SUFFIX, Fp8Linear
from .tensors import Stored, list_tensors, read_into

READERS = 8  # a disk or a bucket's volume gives more to several readers than to one
PINNED_BYTES = 32 << 20  # of each reader
_T5_EMBEDDING = "shared.weight"


def fill(
    model: nn.Module,
    part: Path,
    dtype: torch.dtype,
    device: str,
    *,
    matmul: bool,
    read: Callable[[int], None],
    host: Callable[[str], object] = lambda name: None,
) -> None:
    """Give a model on the meta device its tensors: floats in `dtype`, 8-bit matrices as they are.

    `matmul`: whether 8-bit floats are multiplied as such. `host` says of a tensor's name whether it stays on the CPU. `read` gets the bytes that came in since it was called last, in
    this thread. Raises LookupError for tensors that are missing, ValueError for damaged files, OSError.
    """
    stored = _renamed(model, list_tensors(part))
    places = dict(_places(model, stored, matmul=matmul))
    _check(model, part.name, stored, places)
    with ThreadPoolExecutor(READERS, "load") as readers:
        there, here = _Reader(dtype, device, mapped=device == "cpu"), _Reader(dtype, "cpu")
        work = {
            readers.submit((here if host(name) else there).read, stored[name], owner, leaf): name
            for name, (owner, leaf) in places.items()
        }
        try:
            for done in as_completed(work):
                done.result()
                read(stored[work[done]].size_bytes)
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
    tie: Any = getattr(model, "tie_weights", None)  # transformers' models have it
    if tie is not None:
        tie()


class _Reader:
    """Reads one tensor after another in each of several threads."""

    def __init__(self, dtype: torch.dtype, device: str, *, mapped: bool = False) -> None:
        """mapped: tensors lie in the pages of their files, and files must stay as they are while the model lives."""
        self._dtype, self._device = dtype, device
        self._local = threading.local()
        self._maps: dict[Path, mmap.mmap] | None = {} if mapped else None
        self._lock = threading.Lock()

    def read(self, stored: Stored, owner: nn.Module, leaf: str) -> None:
        """Read a tensor and hang it into its module."""
        kept = TORCH_OF[stored.dtype]
        is_wide = kept.is_floating_point and kept.itemsize > 1
        dtype = self._dtype if (is_wide and not isinstance(owner, Fp8Linear)) or leaf == "bias" else kept
        tensor = self._straight(stored, kept) if dtype == kept else self._converted(stored, kept, dtype)
        if leaf in owner._buffers:
            owner._buffers[leaf] = tensor
        else:
            owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)

    def _straight(self, stored: Stored, dtype: torch.dtype) -> torch.Tensor:
        if self._maps is not None and stored.size_bytes:
            numbers = torch.frombuffer(
                self._map(stored.file), dtype=torch.uint8, count=stored.size_bytes, offset=stored.offset
            )
            if numbers.data_ptr() % dtype.itemsize == 0:  # files of others may begin their tensors anywhere
                return numbers.view(dtype).reshape(stored.shape)
        tensor = torch.empty(stored.shape, dtype=dtype, device=self._device)
        if self._device == "cpu":
            read_into(stored.file, stored.offset, bytes_of(tensor))
            return tensor
        target, pinned = tensor.reshape(-1).view(torch.uint8), self._pinned()
        for start in range(0, stored.size_bytes, PINNED_BYTES):
            count = min(PINNED_BYTES, stored.size_bytes - start)
            read_into(stored.file, stored.offset + start, bytes_of(pinned[:count]))
            target[start : start + count].copy_(pinned[:count])
        return tensor

    def _map(self, file: Path) -> mmap.mmap:
        """A file's pages, private to this process: writing changes no file."""
        assert self._maps is not None
        with self._lock:
            if file not in self._maps:
                with file.open("rb") as opened:
                    self._maps[file] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
                if hasattr(mmap, "MADV_WILLNEED"):
                    self._maps[file].madvise(
                        mmap.MADV_WILLNEED
                    )  # the disk begins to read while the model is put together
            return self._maps[file]

    def _converted(self, stored: Stored, kept: torch.dtype, dtype: torch.dtype) -> torch.Tensor:
        tensor = torch.empty(stored.shape, dtype=kept)
        read_into(stored.file, stored.offset, bytes_of(tensor))
        return tensor.to(self._device).to(dtype)

    def _pinned(self) -> torch.Tensor:
        if not hasattr(self._local, "pinned"):
            self._local.pinned = torch.empty(PINNED_BYTES, dtype=torch.uint8, pin_memory=True)
        pinned: torch.Tensor = self._local.pinned
        return pinned


def _renamed(model: nn.Module, stored: dict[str, Stored]) -> dict[str, Stored]:
    """Tensors that a model uses twice may be stored under either name."""
    for second, first in _tied(model).items():
        if second in stored and first not in stored:
            stored[first] = stored.pop(second)
        stored.pop(second, None)
    return stored


def _tied(model: nn.Module) -> Mapping[str, str]:
    """Names of tensors that are others: {second: first}. Some versions of transformers tell the seconds alone."""
    tied = getattr(model, "_tied_weights_keys", None) or {}
    return tied if isinstance(tied, dict) else {name: _T5_EMBEDDING for name in tied if name != _T5_EMBEDDING}


def _places(
    model: nn.Module, stored: Mapping[str, Stored], *, matmul: bool
) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Where each stored tensor belongs: (module, name there); makes room for 8-bit matrices. Others are left out."""
    for name in [name for name in stored if f"{name}{SCALE_SUFFIX}" in stored]:
        path = name.removesuffix(".weight")
        _set_module(model, path, _fp8_linear(model.get_submodule(path), stored[name], matmul=matmul))
        layer = model.get_submodule(path)
        yield name, (layer, "codes")
        yield f"{name}{SCALE_SUFFIX}", (layer, "scales")
    for name in dict(model.named_parameters()):
        if name in stored:
            path, _, leaf = name.rpartition(".")
            yield name, (model.get_submodule(path), leaf)


def _fp8_linear(linear: nn.Module, stored: Stored, *, matmul: bool) -> Fp8Linear:
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{stored.file.name}: {stored.name} is 8-bit, but belongs to no linear layer")
    codes = torch.empty(stored.shape, dtype=TORCH_OF[stored.dtype], device="meta")
    if codes.shape != linear.weight.shape:
        raise ValueError(f"{stored.file.name}: {stored.name} has another shape than the model's configuration says")
    scales = torch.empty(stored.shape[0], device="meta")
    return Fp8Linear(codes, scales, bias=linear.bias is not None, matmul=matmul)


def _set_module(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _check(
    model: nn.Module, part: str, stored: Mapping[str, Stored], places: Mapping[str, tuple[nn.Module, str]]
) -> None:
    """Raises LookupError for parameters that no file has, ValueError for shapes that do not fit."""
    missing = dict(model.named_parameters()).keys() - places.keys() - _tied(model).keys()
    if missing:
        raise LookupError(f"{part} lacks {', '.join(sorted(missing)[:3])}")
    for name, (owner, leaf) in places.items():
        if stored[name].shape != tuple(getattr(owner, leaf).shape):
            raise ValueError(f"{part}: {name} has another shape than the model's configuration says")
