"""Codecs: how the coefficients of a chunk become arrays in the file, and come back.

A codec is one module in this folder that calls `register` on one `Codec`; nothing else changes. Codecs
are pure: no input or output, no file handles.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._blocks import Block, SparseBlock, position_dtype
from .._errors import ConfigError
from .._header import PackHeader

__all__ = ["Codec", "ContentError", "Field", "codec_names", "get_codec", "register", "stored_bytes"]

Arrays = Mapping[str, NDArray[Any]]


class ContentError(Exception):
    """What a chunk's arrays hold is not what the specification allows; never leaves this package.

    Attributes
    ----------
    field : str
        The array concerned.
    message : str
        What is wrong with it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field, self.message = field, message


@dataclass(frozen=True)
class Field:
    """One array that a codec stores for every chunk.

    Attributes
    ----------
    name : str
        Name of the dataset in the group ``/samples``.
    dtype : numpy.dtype
        Little-endian element type.
    shape : tuple of int, or None
        Shape of one sample's part, so that the dataset is ``[N, *shape]``; None for a stream whose
        length differs from chunk to chunk (then `dtype` is uint8).
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None


class Codec(ABC):
    """The one interface behind which codecs stand.

    Attributes
    ----------
    name : str
        The name in the file and on the command line.
    quantizes : bool
        Whether packs have a quantisation step, and may have tiles and another colour space than RGB.
    exact : bool
        Whether kept coefficients come back bit for bit.
    """

    name: str
    quantizes: bool = False
    exact: bool = False

    @abstractmethod
    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """Return the arrays that this codec stores for packs with this header."""

    @abstractmethod
    def encode(
        self,
        header: PackHeader,
        coefficients: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Return the arrays of one chunk, by field name.

        Parameters
        ----------
        coefficients : float32 [n, C, H, W]
            Spectra.
        mask : bool [n, C, H, W]
            True where a coefficient is kept: exactly K in each channel of each image.
        rounding : str
            How a codec that quantises does it: ``"rdo"`` or ``"deadzone"``.
        """

    @abstractmethod
    def encode_block(self, header: PackHeader, block: Block) -> dict[str, NDArray[Any]]:
        """Return the arrays, by field name, that `decode` makes this block of, bit for bit.

        Parameters
        ----------
        block : Block
            What `decode` gave of packs with the same codec, shape, components, tiles, colour space and step:
            any images of theirs, in any order.
        """

    @abstractmethod
    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Return each defect in the content of a chunk's arrays as (field name, message)."""

    @abstractmethod
    def decode(self, header: PackHeader, arrays: Arrays, samples: int) -> Block:
        """Return the chunk's block of `samples` images; the arrays have passed `problems`.

        Raises
        ------
        ContentError
            A defect that shows only in decoding.
        """

    def empty(self, header: PackHeader, samples: int) -> Block:
        """Allocate a block of so many images, to be filled."""
        positions = position_dtype(header.height, header.width)
        return SparseBlock.empty(samples, header.channels, header.components, positions)

    def stored_in(self, block: Block) -> Arrays:
        """Return, by field name, those arrays of a block that hold what a chunk stores as it is stored."""
        return {}

    def decode_into(self, header: PackHeader, arrays: Arrays, block: Block) -> None:
        """Fill a block with the chunk's images, as many as it has; otherwise as `decode`."""
        block.write(0, self.decode(header, arrays, len(block)))  # type: ignore[arg-type]

    def squared_error(self, header: PackHeader, coefficients: NDArray[np.float32], block: Block) -> float:
        """Return the squared error of a decoded block over all pixels on [0, 1] (Parseval).

        Parameters
        ----------
        coefficients : float32 [n, C, H, W]
            Spectra of the original images.
        block : Block
        """
        assert isinstance(block, SparseBlock)
        error = (coefficients - block.to_dense(header.height, header.width)).reshape(-1)
        return float(np.dot(error, error))


_CODECS: dict[str, Codec] = {}


def register(codec: Codec) -> None:
    """Make a codec known under its name."""
    _CODECS[codec.name] = codec


def codec_names() -> tuple[str, ...]:
    """Return the names of all codecs, sorted."""
    return tuple(sorted(_CODECS))


def get_codec(name: str) -> Codec:
    """Return the codec of that name; raises `ConfigError` if there is none."""
    try:
        return _CODECS[name]
    except KeyError:
        raise ConfigError(f"unknown codec {name!r}; known: {', '.join(codec_names())}") from None


def stored_bytes(header: PackHeader) -> int:
    """Return the bytes that one image takes in the file uncompressed, streams not counted."""
    fields = get_codec(header.codec).fields(header)
    return sum(math.prod(f.shape) * f.dtype.itemsize for f in fields if f.shape is not None)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
