"""Codec ``sparse-f16``: half-precision values, and positions as one bitmap for each frequency."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coding.native import positions_native
from ..coefficients import Coefficients, SparseCoefficients, pack_positions, unpack_positions
from ..errors import Problem, attribute_problem
from ..header import PackHeader
from ..limits import MAX_BITMAP_BYTES
from . import Arrays, Codec, ContentError, Field, register

__all__ = ["SparseF16"]


class SparseF16(Codec):
    """2 bytes a coefficient and, deflated, some tenths of a bit for each position that might hold one."""

    name = "sparse-f16"

    def header_problems(self, header: PackHeader) -> list[Problem]:
        """Refuse chunks whose bitmaps are too large; see `Codec.header_problems`."""
        problems = super().header_problems(header)
        size = math.prod(header.shape) * -(-header.chunk_samples // 8)
        if size > MAX_BITMAP_BYTES:
            message = (
                f"bitmaps of {size} B a chunk exceed {MAX_BITMAP_BYTES} B; put fewer images into a chunk"
            )
            problems.append(attribute_problem("chunk_samples", message, "limit"))
        return problems

    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """``values`` float16 [N, C, K] and ``positions``, a stream of deflated bitmaps."""
        return (
            Field("values", np.dtype("<f2"), (header.channels, header.components)),
            Field("positions", np.dtype("u1"), None),
        )

    def encode(
        self,
        header: PackHeader,
        spectra: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Round the kept coefficients to half precision; see `Codec.encode`."""
        n = len(spectra)
        shape = (n, header.channels, header.components)
        with np.errstate(over="ignore"):
            values = spectra[mask].reshape(shape).astype("<f2")
        return {"values": values, "positions": _deflated(mask.reshape(n, -1))}

    def encode_coefficients(self, header: PackHeader, coefficients: Coefficients) -> dict[str, NDArray[Any]]:
        """Narrow values that were half precision, and draw the bitmaps of the positions."""
        assert isinstance(coefficients, SparseCoefficients)
        n, channels, _ = coefficients.positions.shape
        row, column = unpack_positions(coefficients.positions, header.width)
        mask = np.zeros((n, channels, header.height * header.width), bool)
        np.put_along_axis(mask, row * header.width + column, True, axis=2)
        return {"values": coefficients.values.astype("<f2"), "positions": _deflated(mask.reshape(n, -1))}

    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Find values that are not finite; where there are any, also what `decode` would find."""
        # What numpy's isfinite finds, ten times as slowly for half precision.
        if not ((arrays["values"].view("<u2") & 0x7C00) == 0x7C00).any():
            return []
        found = [("values", "NaN or infinite values")]
        try:
            self.decode(header, arrays, len(arrays["values"]))
        except ContentError as error:
            found.append((error.field, error.message))
        return found

    def decode_into(self, header: PackHeader, arrays: Arrays, coefficients: Coefficients) -> None:
        """Widen the values and list the positions; see `Codec.decode_into`.

        Raises
        ------
        ContentError
            Bitmaps of another size, or that do not have K positions for each channel of each image.
        """
        assert isinstance(coefficients, SparseCoefficients)
        bitmaps = self._bitmaps(header, arrays, len(coefficients))
        places = np.arange(header.height * header.width)
        packed = pack_positions(places, header.height, header.width).astype(np.uint32)
        complete = positions_native(bitmaps, packed, coefficients.positions)
        if complete is None:
            complete = _list(bitmaps, packed, coefficients.positions)
        if not complete:
            raise ContentError("positions", f"not exactly {header.components} positions a channel")
        coefficients.values[...] = arrays["values"]

    def _bitmaps(self, header: PackHeader, arrays: Arrays, samples: int) -> NDArray[np.uint8]:
        """Return them inflated, uint8 [C, H * W, ceil(n / 8)]."""
        shape = (header.channels, header.height * header.width, -(-samples // 8))
        try:
            raw = zlib.decompressobj().decompress(arrays["positions"].data, math.prod(shape) + 1)
        except zlib.error as error:
            raise ContentError("positions", f"does not inflate ({error})") from None
        if len(raw) != math.prod(shape):
            raise ContentError("positions", f"holds {len(raw)} B in place of {math.prod(shape)} B")
        return np.frombuffer(raw, np.uint8).reshape(shape)


def _deflated(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return bitmaps over the images for each frequency, deflated, of a mask [n, C * H * W]."""
    return np.frombuffer(zlib.compress(np.packbits(mask.T, axis=1).tobytes(), 9), np.uint8)


def _list(bitmaps: NDArray[np.uint8], packed: NDArray[np.uint32], positions: NDArray[Any]) -> bool:
    """As `positions_native`, in numpy; eight images at a time, to bound the memory that it takes."""
    _, planes, components = positions.shape
    for start in range(0, 8 * bitmaps.shape[2], 8):
        some = positions[start : start + 8]
        for plane in range(planes):
            bits = np.unpackbits(bitmaps[plane, :, start // 8, None], axis=1).T
            if bits[len(some) :].any() or (bits.sum(axis=1, dtype=np.int64)[: len(some)] != components).any():
                return False
            some[:, plane] = packed[np.nonzero(bits)[1]].reshape(len(some), components)
    return True


register(SparseF16())
