"""Codec ``sparse-f32``, the paper's layout (App. D): a float32 value and a packed index a coefficient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coefficients import Coefficients, SparseCoefficients, pack_positions, position_dtype, unpack_positions
from ..header import PackHeader
from . import Arrays, Codec, Field, register

__all__ = ["SparseF32"]


class SparseF32(Codec):
    """6 bytes a coefficient where row and column fit 16 bits, 8 bytes above; exact."""

    name = "sparse-f32"
    exact = True
    since = 0

    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """``values`` float32 and ``indices`` uint16 or uint32, both [N, C, K]."""
        shape = (header.channels, header.components)
        return (
            Field("values", np.dtype("<f4"), shape),
            Field("indices", position_dtype(header.height, header.width), shape),
        )

    def encode(
        self,
        header: PackHeader,
        spectra: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Gather the kept coefficients in row-major order; see `Codec.encode`."""
        n = len(spectra)
        shape = (n, header.channels, header.components)
        planes = mask.reshape(n * header.channels, -1)
        flat = np.nonzero(planes)[1]
        return {
            "values": np.ascontiguousarray(spectra[mask].reshape(shape), dtype="<f4"),
            "indices": pack_positions(flat.reshape(shape), header.height, header.width),
        }

    def encode_coefficients(self, header: PackHeader, coefficients: Coefficients) -> dict[str, NDArray[Any]]:
        """Return values and positions as they are."""
        return dict(self.stored_in(coefficients))

    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Find values that are not finite and indices out of range, repeated or out of order."""
        found = []
        values, indices = arrays["values"], arrays["indices"]
        if not np.isfinite(values).all():
            found.append(("values", "NaN or infinite values"))
        if not (indices[..., 1:] > indices[..., :-1]).all():
            found.append(("indices", "not strictly ascending"))
        row, column = unpack_positions(indices.max(axis=(0, 1)), header.width)
        last_column = column
        if header.width & (header.width - 1):
            last_column = unpack_positions(indices, header.width)[1]
        if row.max() >= header.height or last_column.max() >= header.width:
            found.append(("indices", f"outside the {header.height}x{header.width} spectrum"))
        return found

    def decode(self, header: PackHeader, arrays: Arrays, samples: int) -> Coefficients:
        """Wrap the arrays as they are; nothing is copied."""
        return SparseCoefficients(arrays["values"], arrays["indices"])

    def stored_in(self, coefficients: Coefficients) -> Arrays:
        """Return values and positions."""
        assert isinstance(coefficients, SparseCoefficients)
        return {"values": coefficients.values, "indices": coefficients.positions}

    def decode_into(self, header: PackHeader, arrays: Arrays, coefficients: Coefficients) -> None:
        """Copy the arrays, unless they are its own."""
        for name, own in self.stored_in(coefficients).items():
            if arrays[name].ctypes.data != own.ctypes.data:
                own[...] = arrays[name]


register(SparseF32())
