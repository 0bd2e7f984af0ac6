"""The kernels in C where they were compiled; whoever gets None here takes those in numpy."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..header import PackHeader
from ..tiles import BANDS, Scan, dct_basis, scan_order
from .contexts import CLASSES
from .kernels import MAGNITUDES, Coder, Contexts, Integers, Kernels, NumpyKernels, color_transform
from .payload import Payload
from .rans import FEW_STATES, LOW, MAX_LANES, SYMBOLS, StreamError

__all__ = ["decode_native", "encoding_kernels", "has_kernels", "load_library", "positions_native"]

# As `ep_interface` in the C code.
INTERFACE = 4
_FAILURES = {
    1: "its coded words end too soon",
    2: "a context without a distribution",
    3: "its plain bits end too soon",
    4: "its coded words do not end where they should",
    5: "its plain bits do not end where they should",
    7: FEW_STATES,
}


def load_library(folder: Path) -> ctypes.CDLL | None:
    """Return the compiled `_kernels` of a folder; None if there is none, or EDGEPRUNE_NATIVE is 0."""
    if os.environ.get("EDGEPRUNE_NATIVE") == "0":
        return None
    try:
        return ctypes.CDLL(str(folder / "_kernels.so"))
    except OSError:
        # Not built, or for another machine.
        return None


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    library = load_library(Path(__file__).parent)
    # One compiled from an earlier version of the code would take its arguments for others.
    return library if library is not None and _interface(library) == INTERFACE else None


def has_kernels() -> bool:
    """Tell whether payloads are coded in C here, and not by numpy."""
    return _library() is not None


def _interface(library: ctypes.CDLL) -> int:
    return int(library.ep_interface()) if hasattr(library, "ep_interface") else 0


def _argument(value: Any) -> Any:
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, np.float32):
        return ctypes.c_float(float(value))
    assert value.flags.c_contiguous
    return ctypes.c_void_p(value.ctypes.data)


def _arguments(values: tuple[Any, ...]) -> list[Any]:
    return [_argument(value) for value in values]


def positions_native(
    bitmaps: NDArray[np.uint8], packed: NDArray[np.uint32], positions: NDArray[Any]
) -> bool | None:
    """Fill `positions` from bitmaps; None where nothing was compiled.

    Parameters
    ----------
    bitmaps : uint8 [C, H * W, bytes]
        For each frequency a bit an image, the first in the highest.
    packed : uint32 [H * W]
        Its packed position.
    positions : uint16 or uint32 [n, C, K]

    Returns
    -------
    bool
        Whether every channel of every image has K positions.
    """
    library = _library()
    if library is None:
        return None
    planes, places, row = bitmaps.shape
    samples, _, components = positions.shape
    values = (
        *(np.ascontiguousarray(bitmaps), row, packed, samples, planes, places, components),
        *(int(positions.itemsize == 4), np.empty(samples, np.int32), positions),
    )
    return not library.ep_positions(*_arguments(values))


def decode_native(
    payload: Payload, scan: Scan, images: int, tiles: int, out: NDArray[np.int16]
) -> NDArray[np.uint8] | None:
    """Fill `out`, int16 [n, C, tiles, F] in raster order, and return the bands uint8 [C, n * tiles].

    `predict_dc` is still applied. Returns None where nothing was compiled.

    Raises
    ------
    MemoryError
        No room for the working memory.
    StreamError
        Where `edgeprune_formats.coding.payload.decode_payload` raises it; of several reasons perhaps another.
    """
    library = _library()
    if library is None:
        return None
    planes, places = payload.model.bases.shape
    bands = np.empty((planes, images * tiles), np.uint8)
    # Held until the call has returned: it gets addresses only.
    values = (*_inputs(payload, scan), scan.diagonals, places, images, planes, tiles, bands, out)
    failure = library.ep_decode_quantized(*_arguments(values))
    if failure == 6:
        raise MemoryError("no memory to decode a chunk in")
    if failure:
        raise StreamError(_FAILURES[failure])
    return bands


def _inputs(payload: Payload, scan: Scan) -> tuple[Any, ...]:
    model = payload.model
    return (
        np.ascontiguousarray(model.frequencies),
        len(model.frequencies),
        np.ascontiguousarray(model.row_of),
        # A copy, which the decoder advances.
        payload.states.astype(np.uint32),
        len(payload.states),
        # Room for a round beyond the last word, and for a vector.
        np.concatenate([payload.words, np.zeros(MAX_LANES + 16, np.uint16)], dtype=np.uint16),
        len(payload.words),
        np.ascontiguousarray(payload.bits),
        len(payload.bits),
        np.ascontiguousarray(model.bases),
        scan.raster,
        scan.starts,
        scan.neighbors,
        scan.band_of_diagonal,
    )


def encoding_kernels() -> Kernels:
    """Return the inner loops of encoding, in C where they were compiled."""
    library = _library()
    return NumpyKernels() if library is None else _NativeKernels(library)


class _Scratch(threading.local):
    """Memory of a thread that is used again: the system takes long to hand out new pages."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Return an array of what may be anything, valid until the same name is taken again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._held or self._held[name].nbytes < size:
            self._held[name] = np.empty(size, np.uint8)
        return self._held[name][:size].view(dtype).reshape(shape)


_scratch = _Scratch()


class _NativeKernels:
    """Those of `edgeprune_formats.coding.kernels.NumpyKernels`, in C."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.ep_symbols.restype = library.ep_code.restype = ctypes.c_int64

    def _call(self, name: str, *values: Any) -> int:
        # The arguments are held by the tuple until the call has returned: it gets addresses only.
        # By attribute: `library[name]` is a new function each time, and returns 32 bits.
        return int(getattr(self._library, name)(*_arguments(values)))

    def _checked(self, name: str, *values: Any) -> None:
        if self._call(name, *values):
            raise MemoryError("no memory to encode a chunk in")

    def transform(self, pixels: NDArray[np.uint8 | np.uint16], header: PackHeader) -> NDArray[np.float32]:
        """See `Kernels.transform`."""
        tile, grid, scan = header.tile_shape, header.grid, scan_order(*header.tile_shape)
        matrix, shift, scale = color_transform(header)
        down, across = (dct_basis(size).astype(np.float32) for size in tile)
        shape = (header.channels, math.prod(tile), len(pixels) * math.prod(grid))
        out = _scratch.take("values", shape, np.float32)
        taken = np.ascontiguousarray(pixels, np.uint16 if header.bits == 16 else np.uint8)
        values = (taken, taken.itemsize, *taken.shape, *tile, *grid, matrix, shift)
        self._checked("ep_transform", *values, down, across, scan.raster, scale, out)
        return out

    def dead_zone(self, values: NDArray[np.float32], zone: float) -> NDArray[np.int16]:
        """See `Kernels.dead_zone`."""
        chosen = _scratch.take("dead zone", values.shape, np.int16)
        self._checked("ep_dead_zone", values, values.size, np.float32(zone), chosen)
        return chosen

    def contexts(self, values: Integers, scan: Scan) -> Contexts:
        """See `Kernels.contexts`."""
        places, tiles = values.shape
        bands = _scratch.take("bands", (tiles,), np.uint8)
        levels = _scratch.take("levels", values.shape, np.uint8)
        found = np.empty((3, places), np.int64)
        band = scan.band_of_place
        self._checked("ep_contexts", values, places, tiles, scan.neighbors, band, bands, levels, found)
        return Contexts(bands, levels, *found)

    def tally(
        self, values: Integers, contexts: Contexts, bases: NDArray[np.uint8], scan: Scan, tiles: int
    ) -> NDArray[np.int64]:
        """See `Kernels.tally`."""
        found = np.empty((CLASSES, MAGNITUDES), np.int64)
        given = (values, contexts.levels, contexts.bands, bases, *values.shape, tiles)
        self._checked("ep_tally", *given, scan.band_of_place, found)
        return found

    def choose(
        self,
        values: NDArray[np.float32],
        contexts: Contexts,
        bases: NDArray[np.uint8],
        rates: NDArray[np.float32],
        scan: Scan,
    ) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.int64]]:
        """See `Kernels.choose`."""
        tiles = values.shape[1]
        chosen = _scratch.take("chosen", values.shape, np.int16)
        gain = _scratch.take("gain", (BANDS, tiles), np.float32)
        bands = _scratch.take("ends", (tiles,), np.uint8)
        given = (values, contexts.levels, bases, rates, *values.shape, scan.band_of_place)
        self._checked("ep_choose", *given, chosen, gain, bands)
        return chosen, gain, np.bincount(bands, minlength=BANDS)

    def cut(
        self, chosen: NDArray[np.int16], gain: NDArray[np.float32], bits: NDArray[np.float32], scan: Scan
    ) -> None:
        """See `Kernels.cut`."""
        ends = _scratch.take("ends", chosen.shape[1:], np.uint8)
        self._checked("ep_cut", chosen, gain, bits, *chosen.shape, scan.band_of_place, ends)

    def sign(self, values: NDArray[np.float32], chosen: NDArray[np.int16]) -> None:
        """See `Kernels.sign`."""
        self._checked("ep_sign", values, values.size, chosen)

    def products(self, values: NDArray[np.float32], chosen: NDArray[np.int16]) -> NDArray[np.float64]:
        """See `Kernels.products`."""
        found = np.zeros((len(values), len(values)))
        self._checked("ep_products", values, chosen, len(values), values[0].size, found)
        return found

    def coder(self, planes: int, tiles: int, scan: Scan) -> Coder:
        """See `Kernels.coder`."""
        return _NativeCoder(self._call, planes, tiles, scan)


class _NativeCoder:
    def __init__(self, call: Callable[..., int], planes: int, tiles: int, scan: Scan) -> None:
        self._call, self._scan = call, scan
        most = planes * tiles * (len(scan.raster) + 1)
        self._contexts = _scratch.take("contexts", (most,), np.uint8)
        self._symbols = _scratch.take("symbols", (most,), np.uint8)
        # As many bytes as if all were escapes, and where the last bits go.
        self._bits = _scratch.take("bits", (2 * most + 1,), np.uint8)
        self._bits[0] = 0
        self._bit = np.zeros(1, np.int64)
        # Of each run how many symbols it has, and the first of its contexts, which a byte does not hold.
        self._runs: list[NDArray[np.int64]] = []
        self._firsts: list[NDArray[np.int64]] = []
        self._used = 0

    def add_bands(self, first: int, before: NDArray[np.uint8], bands: NDArray[np.uint8]) -> None:
        run = slice(self._used, self._used + len(bands))
        self._contexts[run], self._symbols[run] = before, bands
        self._used = run.stop
        self._runs.append(np.array([len(bands)], np.int64))
        self._firsts.append(np.array([first], np.int64))

    def add_plane(self, values: Integers, contexts: Contexts, bases: NDArray[np.uint8]) -> None:
        scan, tiles = self._scan, values.shape[1]
        runs, members = np.zeros(scan.diagonals, np.int64), _scratch.take("members", (tiles,), np.int32)
        self._used += self._call(
            *("ep_symbols", values, contexts.levels, contexts.bands, bases, *values.shape),
            *(scan.starts, scan.band_of_diagonal, scan.diagonals, members),
            *(self._contexts[self._used :], self._symbols[self._used :], runs, self._bits, self._bit),
        )
        self._runs.append(runs)
        self._firsts.append(np.zeros(len(runs), np.int64))

    def counts(self, contexts: int) -> NDArray[np.int64]:
        counts = np.zeros((contexts, SYMBOLS), np.int64)
        runs, firsts = np.concatenate(self._runs), np.concatenate(self._firsts)
        self._call("ep_count", self._contexts, self._symbols, runs, firsts, len(runs), counts)
        return counts

    def coded(
        self, row_of: NDArray[np.int16], frequencies: NDArray[np.uint16], lanes: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint8]]:
        of_context = np.where(row_of[:, None] >= 0, frequencies[row_of], np.uint16(0))
        starts = (np.cumsum(of_context, axis=1) - of_context).astype(np.uint16)
        states, words = np.full(lanes, LOW, np.uint32), _scratch.take("words", (self._used,), np.uint16)
        runs, firsts = np.concatenate(self._runs), np.concatenate(self._firsts)
        given = (self._contexts, self._symbols, runs, firsts, len(runs))
        count = self._call("ep_code", *given, of_context, starts, states, lanes, words, self._used)
        return states, words[self._used - count :], self._bits[: (int(self._bit[0]) + 7) // 8]
