"""Decoding with the compiled kernel: threads share the images of a batch, and write them where they stay."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.coefficients import Coefficients, SparseCoefficients, column_bits, position_dtype

from ..system.threads import cores, pool
from .augmentation import Augmentation
from .dtypes import require_dtype
from .kernels import MAX_SIDE, Plan, library
from .plan import DecodePlan, batch_shape, inverse_basis
from .scipy_backend import DTYPES

if TYPE_CHECKING:
    from .dtypes import Device, Dtype

__all__ = ["NativeDecoder", "NativeKernel", "native_kernel"]

# Fewer values than this a thread are sooner decoded than handed over.
LEAST_SHARE = 2**16
_STATUS = {1: MemoryError("no memory to decode in"), 2: IndexError("an image or pixel outside the batch")}


def native_kernel(plan: DecodePlan) -> NativeKernel | None:
    """Return the kernel for a plan, or None where it is not built, or not meant for spectra so large."""
    fits = max(plan.header.tile_shape) <= MAX_SIDE
    return NativeKernel(plan) if fits and library() is not None else None


class NativeKernel:
    """The compiled kernel with the constants of one plan.

    Parameters
    ----------
    plan : DecodePlan
        Of a pack whose transform takes at most 64x64 pixels.
    """

    def __init__(self, plan: DecodePlan) -> None:
        self._plan = plan
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        return {"_plan": self._plan}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._plan = state["_plan"]
        self._prepare()

    def _prepare(self) -> None:
        plan, header = self._plan, self._plan.header
        loaded = library()
        if loaded is None:
            raise ConfigError("backend 'native' needs the compiled kernel, which is not there; use 'scipy'")
        self._decode: Callable[..., int] = loaded.edgeprune_decode_planes
        step = header.step or 1.0
        down = inverse_basis(header.tile_shape[0], plan.tile[0]) * np.float32(step)
        # The structure holds addresses, so these must live as long.
        self._constants = {
            "down": _padded(down[:, : (plan.tile[0] + 1) // 2], MAX_SIDE // 2),
            "across": _padded(inverse_basis(header.tile_shape[1], plan.tile[1]), MAX_SIDE),
            "matrix": np.ascontiguousarray(plan.matrix),
            "offset": np.ascontiguousarray(plan.offset),
        }
        self._constant = Plan(
            *(header.channels, plan.height, plan.width),
            *(*header.tile_shape, *plan.tile, *header.grid),
            *(column_bits(header.width), header.components),
            position_dtype(header.height, header.width).itemsize,
            *(array.ctypes.data for array in self._constants.values()),
        )

    def decode(
        self,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None,
        address: int,
        threads: int,
    ) -> None:
        """Write images float32 [n, C, h, w], in C order, to memory at `address`.

        Raises
        ------
        IndexError
            A row, or a row or column of the augmentation, is outside.
        MemoryError
            No room for the working memory.
        """
        plan = self._plan
        sparse, (first, second) = plan.layout is SparseCoefficients, coefficients.arrays
        arrays = [rows] if augmentation is None else [rows, augmentation.rows, augmentation.columns]
        indices = [np.ascontiguousarray(array, np.int64) for array in arrays]
        pointers = [array.ctypes.data for array in indices] + [None] * (3 - len(indices))
        constants = ctypes.byref(self._constant)

        taken = ctypes.c_int64(0)

        def part() -> int:
            return self._decode(
                *(constants, sparse, first.ctypes.data, second.ctypes.data, len(coefficients)),
                *(*pointers, len(rows), ctypes.byref(taken), address),
            )

        values = len(rows) * plan.header.channels * plan.height * plan.width
        status = max(_shared_out(part, max(1, min(threads, len(rows), values // LEAST_SHARE))))
        if status:
            raise _STATUS[status]


class NativeDecoder:
    """The compiled kernel's images as numpy arrays; see `edgeprune_runtime.decode.plan.Decoder`.

    Raises
    ------
    ConfigError
        The kernel is not there, or is not meant for spectra so large; another device or dtype than it has.
    """

    in_background = True

    def __init__(self, plan: DecodePlan, *, device: Device, dtype: Dtype) -> None:
        if str(device) not in ("auto", "cpu"):
            raise ConfigError(f"backend 'native' decodes on the cpu, not on {device}")
        if library() is None:
            raise ConfigError("backend 'native' needs the compiled kernel, which is not there; use 'scipy'")
        kernel = native_kernel(plan)
        if kernel is None:
            sides = "x".join(map(str, plan.header.tile_shape))
            raise ConfigError(f"backend 'native' transforms up to 64x64, not {sides}; use 'torch' or 'scipy'")
        self.plan = plan
        self._kernel = kernel
        self._dtype = np.dtype(require_dtype(dtype, "native", DTYPES))
        self._scratch = np.empty(0, np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_scratch": self._scratch[:0]}

    def room(self, count: int) -> NDArray[np.floating[Any]]:
        """Return memory for so many images of the decoder's dtype."""
        return np.empty(batch_shape(self.plan, count), self._dtype)

    def images(
        self,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        out: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.floating[Any]]:
        """Return images [n, C, h, w] of the decoder's dtype."""
        images = out if out is not None and self._dtype == np.float32 else self._float32(len(rows), out)
        self._kernel.decode(coefficients, rows, augmentation, images.ctypes.data, cores())
        if out is None or images is out:
            return images.astype(self._dtype, copy=False)
        np.copyto(out, images, casting="same_kind")
        return out

    def _float32(self, count: int, out: object) -> NDArray[np.float32]:
        shape = batch_shape(self.plan, count)
        if out is None:
            return np.empty(shape, np.float32)
        if self._scratch.size < math.prod(shape):
            self._scratch = np.empty(math.prod(shape), np.float32)
        return self._scratch[: math.prod(shape)].reshape(shape)

    def labels(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels as they are."""
        return labels

    def receive(self, images: Any, labels: Any) -> None:
        """Do nothing: arrays are ready."""


def _padded(basis: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    padded = np.zeros((MAX_SIDE, width), np.float32)
    padded[: basis.shape[0], : basis.shape[1]] = basis
    return padded


def _shared_out(part: Callable[[], int], threads: int) -> list[int]:
    """Call `part` in so many threads at once, of which this is one."""
    others = [pool("decode", threads - 1).submit(part) for _ in range(threads - 1)]
    # Whatever happens, nobody may still be writing when the memory is given back.
    try:
        return [part()] + [other.result() for other in others]
    finally:
        wait(others)
