"""Codec ``sparse-f16``: half-precision values, and positions as one bitmap for each frequency."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._blocks import Block, SparseBlock, pack_positions
from .._header import PackHeader
from . import Arrays, Codec, ContentError, Field, register

__all__ = ["SparseF16"]


class SparseF16(Codec):
    """2 bytes a coefficient and, deflated, some tenths of a bit for each position that might hold one."""

    name = "sparse-f16"

    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """``values`` float16 [N, C, K] and ``positions``, a stream of deflated bitmaps."""
        return (
            Field("values", np.dtype("<f2"), (header.channels, header.components)),
            Field("positions", np.dtype("u1"), None),
        )

    def encode(
        self,
        header: PackHeader,
        coefficients: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Round the kept coefficients to half precision; see `Codec.encode`."""
        n = len(coefficients)
        shape = (n, header.channels, header.components)
        with np.errstate(over="ignore"):
            values = coefficients[mask].reshape(shape).astype("<f2")
        bitmap = np.packbits(mask.reshape(n, -1).T, axis=1)
        packed = zlib.compress(bitmap.tobytes(), 9)
        return {"values": values, "positions": np.frombuffer(packed, np.uint8)}

    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Find values that are not finite, and bitmaps of another size or count."""
        found = []
        if not np.isfinite(arrays["values"]).all():
            found.append(("values", "NaN or infinite values"))
        try:
            self._mask(header, arrays)
        except ContentError as error:
            found.append((error.field, error.message))
        return found

    def decode(self, header: PackHeader, arrays: Arrays, samples: int) -> Block:
        """Widen the values and list the positions."""
        flat = np.nonzero(self._mask(header, arrays).reshape(-1, header.height * header.width))[1]
        positions = pack_positions(flat.reshape(arrays["values"].shape), header.height, header.width)
        return SparseBlock(arrays["values"].astype(np.float32), positions)

    def _mask(self, header: PackHeader, arrays: Arrays) -> NDArray[np.bool_]:
        """Return the bitmaps, bool [n, C, H * W]."""
        n = len(arrays["values"])
        places, row = header.channels * header.height * header.width, -(-n // 8)
        try:
            raw = zlib.decompressobj().decompress(arrays["positions"].data, places * row + 1)
        except zlib.error as error:
            raise ContentError("positions", f"does not inflate ({error})") from None
        if len(raw) != places * row:
            raise ContentError("positions", f"holds {len(raw)} B in place of {places * row} B")
        bits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(places, row), axis=1)
        mask = np.ascontiguousarray(bits[:, :n].T).astype(bool).reshape(n, header.channels, -1)
        if bits[:, n:].any() or (mask.sum(axis=2) != header.components).any():
            raise ContentError("positions", f"not exactly {header.components} positions a channel")
        return mask


register(SparseF16())
