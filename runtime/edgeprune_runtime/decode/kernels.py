"""The compiled kernel, if there is one: `_kernels.c`, loaded through ctypes, which lets go of the GIL."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from edgeprune_formats.coding.native import load_library

__all__ = ["MAX_SIDE", "Plan", "lanes", "library"]

# As in _kernels.c.
MAX_SIDE = 64

_INTEGERS = (
    *("channels", "height", "width", "block_height", "block_width", "tile_height", "tile_width"),
    *("grid_height", "grid_width", "column_bits", "components", "position_bytes"),
)
_POINTERS = ("down", "across", "matrix", "offset")


class Plan(ctypes.Structure):
    """`plan_t` of `_kernels.c`."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in _INTEGERS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernel, or None where it was not built or ``EDGEPRUNE_NATIVE=0`` is set."""
    loaded = load_library(Path(__file__).parent)
    # One compiled from an earlier version of the code has room for few channels.
    if loaded is None or not hasattr(loaded, "edgeprune_decode_planes"):
        return None
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    loaded.edgeprune_decode_planes.argtypes = (
        *(ctypes.POINTER(Plan), ctypes.c_int, pointer, pointer, long),
        *(pointer, pointer, pointer, long, pointer, pointer),
    )
    loaded.edgeprune_decode_planes.restype = ctypes.c_int
    return loaded


def lanes() -> int | None:
    """Return how many float32 the compiled kernel computes at once on this processor; None without it."""
    loaded = library()
    return None if loaded is None else int(loaded.edgeprune_lanes())
