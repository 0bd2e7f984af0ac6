"""The decoder in C where it was compiled; whoever gets None here takes the one in numpy."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tiles import Scan
from .payload import Payload
from .rans import FEW_STATES, MAX_LANES, StreamError

__all__ = ["decode_native", "load_library", "positions_native"]

# As `ep_interface` in the C code.
INTERFACE = 2
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
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_kernels{suffix}"
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                # Built for another machine.
                return None
    return None


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    library = load_library(Path(__file__).parent)
    # One compiled from an earlier version of the code would take its arguments for others.
    return library if library is not None and _interface(library) == INTERFACE else None


def _interface(library: ctypes.CDLL) -> int:
    return int(library.ep_interface()) if hasattr(library, "ep_interface") else 0


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def _arguments(values: tuple[Any, ...]) -> list[Any]:
    return [ctypes.c_int64(value) if isinstance(value, int) else _pointer(value) for value in values]


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
