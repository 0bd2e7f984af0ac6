"""Codec ``quantized``: integer coefficients of whole images or tiles, entropy coded by frequency."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..coding.kernels import Kernels
from ..coding.native import decode_native, encoding_kernels
from ..coding.payload import Payload, decode_payload, encode_payload, parse_payload, predict_dc, restore_dc
from ..coding.rans import StreamError
from ..coding.rounding import ROUNDINGS, rounded
from ..coefficients import Coefficients, QuantizedCoefficients
from ..errors import ConfigError, Problem, attribute_problem
from ..header import PackHeader
from ..tiles import COLOR_SPACES, TILES, Scan, color_matrix, dct_basis, scan_order, to_tiles
from . import Arrays, Codec, ContentError, Field, register

__all__ = ["Quantized"]

MAX_TILE_PIXELS = 2**16
_LARGEST = 2**15 - 1
_T = TypeVar("_T", bound=np.generic)


class Quantized(Codec):
    """Lossy; the integers of a chunk are in its bytes exactly."""

    name = "quantized"
    layout = QuantizedCoefficients
    takes_pixels = True
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
        self._check_rounding(rounding)
        pruned = spectra if mask.all() else np.where(mask, spectra, np.float32(0))
        tiles = to_tiles(pruned, header.tile_shape, header.grid, header.color_space)
        values = _by_frequency(tiles, scan_order(*header.tile_shape))
        values *= np.float32(1 / header.step)
        kernels = encoding_kernels()
        return _coded(header, _rounded(header, values, rounding, kernels), kernels)

    def encode_pixels(
        self, header: PackHeader, pixels: NDArray[np.uint8 | np.uint16], *, rounding: str = "rdo"
    ) -> tuple[dict[str, NDArray[Any]], float]:
        """Transform, quantize and code; see `Codec.encode_pixels`."""
        self._check_rounding(rounding)
        kernels = encoding_kernels()
        values = kernels.transform(pixels, header)
        integers = _rounded(header, values, rounding, kernels)
        error = _squared_error(header, values, integers, kernels)
        return _coded(header, integers, kernels), error

    def encode_coefficients(self, header: PackHeader, coefficients: Coefficients) -> dict[str, NDArray[Any]]:
        """Code the integers as they are."""
        assert isinstance(coefficients, QuantizedCoefficients)
        integers = _by_frequency(coefficients.values, scan_order(*header.tile_shape))
        return _coded(header, integers, encoding_kernels())

    @staticmethod
    def _check_rounding(rounding: str) -> None:
        if rounding not in ROUNDINGS:
            raise ConfigError(f"unknown rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")

    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Return nothing: what is wrong shows when the payload is decoded."""
        return []

    def decode_into(self, header: PackHeader, arrays: Arrays, coefficients: Coefficients) -> None:
        """Fill `coefficients` with the integers; see `Codec.decode_into`.

        Raises
        ------
        ContentError
            Bytes that no encoder wrote.
        """
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


def _by_frequency(tiles: NDArray[_T], scan: Scan) -> NDArray[_T]:
    """Return [C, F, n * tiles] in coding order of [n, C, tiles, F]."""
    images, channels, count, places = tiles.shape
    planes = np.empty((channels, places, images, count), tiles.dtype)
    planes[...] = tiles.transpose(1, 3, 0, 2)[:, scan.raster]
    joined: NDArray[_T] = planes.reshape(channels, places, -1)
    return joined


def _rounded(
    header: PackHeader, values: NDArray[np.float32], rounding: str, kernels: Kernels
) -> NDArray[np.int16]:
    # Differences of two frequencies 0 must fit as well. Pixels of [-0.5, 0.5] may still do so at this step.
    if header.step * _LARGEST < 2 * math.sqrt(values.shape[1]):
        largest = max(float(values.max()), -float(values.min()))
        if largest * 2 > _LARGEST:
            raise ConfigError("a coefficient exceeds 16 bits; lower the quality or choose smaller tiles")
    weights = (color_matrix(header.color_space, header.channels) ** 2).sum(axis=0)
    return rounded(values, rounding, scan_order(*header.tile_shape), weights, kernels)


def _coded(header: PackHeader, integers: NDArray[np.int16], kernels: Kernels) -> dict[str, NDArray[Any]]:
    """Return the payload of integers [C, F, n * tiles] in coding order, which are used up."""
    predict_dc(integers, header.grid)
    payload = encode_payload(list(integers), scan_order(*header.tile_shape), kernels)
    return {"payload": np.frombuffer(payload, np.uint8)}


def _squared_error(
    header: PackHeader, values: NDArray[np.float32], integers: NDArray[np.int16], kernels: Kernels
) -> float:
    """Return the squared error over all pixels, of coefficients over the step."""
    if header.channels == 3:
        matrix = color_matrix(header.color_space)
        products = kernels.products(values, integers)
        both = products + np.triu(products, 1).T
        found = float(((matrix.T @ matrix) * both).sum())
    else:
        each = (slice(c, c + 1) for c in range(header.channels))
        found = float(sum(kernels.products(values[c], integers[c]).item() for c in each))
    return (found - _error_of_padding(header, values, integers)) * header.step**2


def _error_of_padding(header: PackHeader, values: NDArray[np.float32], integers: NDArray[np.int16]) -> float:
    """Return what of the squared error, over that of the step, lies beyond the image."""
    (height, width), (down, across) = header.tile_shape, header.grid
    row, column = np.divmod(np.arange(down * across), across)
    inside = (row[:, None] * height + np.arange(height) < header.height)[:, :, None] & (
        column[:, None] * width + np.arange(width) < header.width
    )[:, None, :]
    cut = np.flatnonzero(~inside.all(axis=(1, 2)))
    if not len(cut):
        return 0.0
    raster = scan_order(height, width).raster
    errors = np.empty((len(values), height * width, values.shape[2] // len(row), len(cut)))
    errors[:, raster] = (integers - values).reshape(*values.shape[:2], -1, len(row))[..., cut]
    tiles = errors.transpose(2, 3, 0, 1).reshape(-1, len(cut), len(values), height, width)
    pixels = dct_basis(height).T @ tiles @ dct_basis(width)
    mixed = np.einsum("dc,ntchw->ntdhw", color_matrix(header.color_space, header.channels), pixels)
    return float(((mixed**2) * ~inside[cut][None, :, None]).sum())


def _decode_numpy(payload: Payload, scan: Scan, values: NDArray[np.int16]) -> NDArray[np.uint8]:
    count, _, tiles, places = values.shape
    planes, bands = decode_payload(payload, scan, count * tiles)
    values[...] = 0
    for number, plane in enumerate(planes):
        values[:, number][..., scan.raster] = plane.T.reshape(count, tiles, places)
    return np.stack(bands)


register(Quantized())
