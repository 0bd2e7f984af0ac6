"""Codec ``quantized``: integer coefficients of whole images or tiles, entropy coded by frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coding.native import decode_native
from ..coding.payload import Payload, decode_payload, encode_payload, parse_payload, predict_dc, restore_dc
from ..coding.rans import StreamError
from ..coding.rounding import ROUNDINGS, rounded
from ..coefficients import Coefficients, QuantizedCoefficients
from ..errors import ConfigError, Problem, attribute_problem
from ..header import PackHeader
from ..tiles import COLOR_SPACES, TILES, Scan, color_matrix, scan_order, to_tiles
from . import Arrays, Codec, ContentError, Field, register

__all__ = ["Quantized"]

MAX_TILE_PIXELS = 2**16
_LARGEST = 2**15 - 1


class Quantized(Codec):
    """Lossy; the integers of a chunk are in its bytes exactly."""

    name = "quantized"
    layout = QuantizedCoefficients
    tiles = TILES
    color_spaces = COLOR_SPACES
    # A chunk carries its own distributions, which larger chunks share among more images.
    memory_ratio = 6

    def header_problems(self, header: PackHeader) -> list[Problem]:
        """Refuse tiles so large that the coding order has no tables; see `Codec.header_problems`."""
        problems = super().header_problems(header)
        height, width = header.tile_shape
        if height * width > MAX_TILE_PIXELS:
            message = f"a tile of {height}x{width} exceeds {MAX_TILE_PIXELS} pixels; choose smaller tiles"
            problems.append(attribute_problem("block", message, "limit"))
        return problems

    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """``payload``, a stream."""
        return (Field("payload", np.dtype("u1"), None),)

    def encode(
        self,
        header: PackHeader,
        spectra: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Quantize and code; see `Codec.encode`.

        Raises
        ------
        ConfigError
            The step is so small that a coefficient does not fit 16 bits.
        """
        if rounding not in ROUNDINGS:
            raise ConfigError(f"unknown rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")
        pruned = spectra if mask.all() else np.where(mask, spectra, np.float32(0))
        tiles = to_tiles(pruned, header.tile_shape, header.grid, header.color_space)
        tiles /= np.float32(header.step)
        # Differences of two frequencies 0 must fit as well.
        if float(np.abs(tiles).max()) * 2 > _LARGEST:
            raise ConfigError("a coefficient exceeds 16 bits; lower the quality or choose smaller tiles")
        scan = scan_order(*header.tile_shape)
        weights = (color_matrix(header.color_space) ** 2).sum(axis=0)
        return _coded(header, rounded(tiles[..., scan.raster], rounding, scan, weights))

    def encode_coefficients(self, header: PackHeader, coefficients: Coefficients) -> dict[str, NDArray[Any]]:
        """Code the integers as they are."""
        assert isinstance(coefficients, QuantizedCoefficients)
        return _coded(
            header, coefficients.values[..., scan_order(*header.tile_shape).raster].astype(np.int32)
        )

    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Return nothing: what is wrong shows when the payload is decoded."""
        return []

    def decode(self, header: PackHeader, arrays: Arrays, samples: int) -> Coefficients:
        """Return the integers.

        Raises
        ------
        ContentError
            Bytes that no encoder wrote.
        """
        coefficients = self.layout.empty(header, samples)
        self.decode_into(header, arrays, coefficients)
        return coefficients

    def decode_into(self, header: PackHeader, arrays: Arrays, coefficients: Coefficients) -> None:
        """Fill `coefficients` with the integers; see `decode`."""
        assert isinstance(coefficients, QuantizedCoefficients)
        scan, values = scan_order(*header.tile_shape), coefficients.values
        samples, planes, tiles, places = values.shape
        try:
            payload = parse_payload(arrays["payload"].data, planes, places)
            bands = decode_native(payload, scan, samples, tiles, values)
            if bands is None:
                bands = _decode_numpy(payload, scan, values)
        except StreamError as error:
            raise ContentError("payload", str(error)) from None
        restore_dc(values, header.grid)
        extents = scan.last_of_band.astype(np.uint16)[bands.reshape(planes, samples, tiles)]
        coefficients.extents[...] = extents.swapaxes(0, 1)


def _coded(header: PackHeader, integers: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """Return the payload of integers [n, C, tiles, F] in coding order, which are used up."""
    predict_dc(integers, header.grid)
    # A foreign encoder's levels may differ by more than 16 bits hold; `restore_dc` wraps as well.
    integers[..., 0] = integers[..., 0].astype(np.int16)
    planes = [_by_place(integers[:, plane]) for plane in range(header.channels)]
    del integers
    return {"payload": np.frombuffer(encode_payload(planes, scan_order(*header.tile_shape)), np.uint8)}


def _by_place(values: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T)


def _decode_numpy(payload: Payload, scan: Scan, values: NDArray[np.int16]) -> NDArray[np.uint8]:
    count, _, tiles, places = values.shape
    planes, bands = decode_payload(payload, scan, count * tiles)
    values[...] = 0
    for number, plane in enumerate(planes):
        values[:, number][..., scan.raster] = plane.T.reshape(count, tiles, places)
    return np.stack(bands)


register(Quantized())
