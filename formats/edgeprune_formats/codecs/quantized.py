"""Codec ``quantized``: integer coefficients of whole images or tiles, entropy coded by frequency."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._blocks import Block, QuantizedBlock
from .._coefficients import Payload, decode_payload, encode_payload, parse_payload, predict_dc, restore_dc
from .._errors import ConfigError
from .._header import PackHeader
from .._native import decode_native
from .._rans import StreamError
from .._rounding import ROUNDINGS, rounded
from .._tiles import color_matrix, from_tiles, scan_order, to_tiles
from . import Arrays, Codec, ContentError, Field, register

__all__ = ["Quantized"]

_LARGEST = 2**15 - 1


class Quantized(Codec):
    """Lossy; the integers of a chunk are in its bytes exactly."""

    name = "quantized"
    quantizes = True

    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """``payload``, a stream."""
        return (Field("payload", np.dtype("u1"), None),)

    def encode(
        self,
        header: PackHeader,
        coefficients: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Quantise and code; see `Codec.encode`.

        Raises
        ------
        ConfigError
            The step is so small that a coefficient does not fit 16 bits.
        """
        if rounding not in ROUNDINGS:
            raise ConfigError(f"unknown rounding {rounding!r}; known: {', '.join(ROUNDINGS)}")
        pruned = coefficients if mask.all() else np.where(mask, coefficients, np.float32(0))
        tiles = to_tiles(pruned, header.block_shape, header.grid, header.color_space)
        tiles /= np.float32(header.step)
        # Differences of two frequencies 0 must fit as well.
        if float(np.abs(tiles).max()) * 2 > _LARGEST:
            raise ConfigError(
                "a coefficient exceeds 16 bits; lower --quality or choose smaller tiles (--block)"
            )
        scan = scan_order(*header.block_shape)
        weights = (color_matrix(header.color_space) ** 2).sum(axis=0)
        return _coded(header, rounded(tiles[..., scan.raster], rounding, scan, weights))

    def encode_block(self, header: PackHeader, block: Block) -> dict[str, NDArray[Any]]:
        """Code the block's integers as they are."""
        assert isinstance(block, QuantizedBlock)
        return _coded(header, block.values[..., scan_order(*header.block_shape).raster].astype(np.int32))

    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Return nothing: what is wrong shows when the payload is decoded."""
        return []

    def empty(self, header: PackHeader, samples: int) -> QuantizedBlock:
        """Allocate a block of so many images, to be filled."""
        shape = (samples, header.channels, header.grid[0] * header.grid[1])
        return QuantizedBlock(
            np.empty((*shape, math.prod(header.block_shape)), np.int16), np.empty(shape, np.uint16)
        )

    def decode(self, header: PackHeader, arrays: Arrays, samples: int) -> Block:
        """Return the integers.

        Raises
        ------
        ContentError
            Bytes that no encoder wrote.
        """
        block = self.empty(header, samples)
        self.decode_into(header, arrays, block)
        return block

    def decode_into(self, header: PackHeader, arrays: Arrays, block: Block) -> None:
        """Fill a block with the integers; see `decode`."""
        assert isinstance(block, QuantizedBlock)
        scan, values = scan_order(*header.block_shape), block.values
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
        block.extents[...] = extents.swapaxes(0, 1)

    def squared_error(self, header: PackHeader, coefficients: NDArray[np.float32], block: Block) -> float:
        """Return the squared error over all pixels, see `Codec.squared_error`."""
        assert isinstance(block, QuantizedBlock)
        given = to_tiles(coefficients, header.block_shape, header.grid, header.color_space)
        given -= block.values * np.float32(header.step)
        error = from_tiles(
            given, header.block_shape, header.grid, (header.height, header.width), header.color_space
        )
        return float(np.sum(error**2))


def _coded(header: PackHeader, integers: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
    """Return the payload of integers [n, C, tiles, F] in coding order, which are used up."""
    predict_dc(integers, header.grid)
    # A foreign encoder's levels may differ by more than 16 bits hold; `restore_dc` wraps as well.
    integers[..., 0] = integers[..., 0].astype(np.int16)
    planes = [_by_place(integers[:, plane]) for plane in range(header.channels)]
    del integers
    return {"payload": np.frombuffer(encode_payload(planes, scan_order(*header.block_shape)), np.uint8)}


def _by_place(values: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T)


def _decode_numpy(payload: Payload, scan: Any, values: NDArray[np.int16]) -> NDArray[np.uint8]:
    count, _, tiles, places = values.shape
    planes, bands = decode_payload(payload, scan, count * tiles)
    values[...] = 0
    for number, plane in enumerate(planes):
        values[:, number][..., scan.raster] = plane.T.reshape(count, tiles, places)
    return np.stack(bands)


register(Quantized())
