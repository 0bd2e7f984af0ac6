"""Codecs: how the coefficients of a chunk become arrays in the file, and come back.

A codec is one module that calls `register` on one `Codec`; nothing else changes. Those of this folder are
always there, others once their module is imported. Codecs are pure: no input or output, no file handles.
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

from ..coefficients import Coefficients, QuantizedCoefficients, SparseCoefficients
from ..errors import ConfigError, Problem, attribute_problem
from ..header import PackHeader
from ..tiles import COLOR_SPACES, TILES, color_spaces

__all__ = [
    "Codec",
    "ContentError",
    "Field",
    "codec_modules",
    "codec_names",
    "get_codec",
    "memory_bytes",
    "register",
    "stored_bytes",
]

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
    exact : bool
        Whether kept coefficients come back bit for bit.
    since : int
        The minor version of the format that first has this codec.
    layout : type of Coefficients
        What `decode` gives: `SparseCoefficients`, or `QuantizedCoefficients`. A decoder needs no more.
    tiles : tuple of str
        Which values of the header's ``tile`` it takes, of `edgeprune_formats.tiles.TILES`. Sparse
        coefficients are those of whole images.
    color_spaces : tuple of str
        Which values of the header's ``color_space`` it takes of images of three channels, of
        `edgeprune_formats.tiles.COLOR_SPACES`; the last is the one to take where none is asked for. Images
        of other channels have one, see `edgeprune_formats.tiles.color_spaces`.
    takes_pixels : bool
        Whether `encode_pixels` takes images of which all components are kept.
    memory_ratio : int
        About how many times larger a chunk is in memory than in the file. Chunks are planned that much
        larger.
    """

    name: str
    exact: bool = False
    since: int = 2
    layout: type[Coefficients] = SparseCoefficients
    tiles: tuple[str, ...] = TILES[:1]
    color_spaces: tuple[str, ...] = COLOR_SPACES[:1]
    takes_pixels: bool = False
    memory_ratio: int = 1

    @property
    def quantizes(self) -> bool:
        """Whether packs have a quantization step."""
        return self.layout is QuantizedCoefficients

    def header_problems(self, header: PackHeader) -> list[Problem]:
        """Return what this codec cannot store of a header; an override adds to what this finds."""
        problems = []
        known = self.color_spaces if header.channels == 3 else color_spaces(header.channels)
        if header.color_space not in known:
            found = f"{header.color_space!r} with {header.channels} channels"
            problems.append(attribute_problem("color_space", f"{found}; known: {', '.join(known)}"))
        if header.tile not in self.tiles:
            problems.append(
                attribute_problem("block", f"{header.tile!r} is not one of: {', '.join(self.tiles)}")
            )
        if self.quantizes and not 0 < header.step < math.inf:
            problems.append(attribute_problem("step", f"{header.step} is not a positive number"))
        if not self.quantizes and header.step != 0:
            problems.append(attribute_problem("step", f"{header.step} with a codec that does not quantize"))
        return problems

    @abstractmethod
    def fields(self, header: PackHeader) -> tuple[Field, ...]:
        """Return the arrays that this codec stores for packs with this header."""

    @abstractmethod
    def encode(
        self,
        header: PackHeader,
        spectra: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        rounding: str = "rdo",
    ) -> dict[str, NDArray[Any]]:
        """Return the arrays of one chunk, by field name.

        Parameters
        ----------
        spectra : float32 [n, C, H, W]
            Of whole images.
        mask : bool [n, C, H, W]
            True where a coefficient is kept: exactly K in each channel of each image.
        rounding : str
            How a codec that quantizes does it, see `edgeprune_formats.coding.rounding.rounded`.
        """

    def encode_pixels(
        self, header: PackHeader, pixels: NDArray[np.uint8 | np.uint16], *, rounding: str = "rdo"
    ) -> tuple[dict[str, NDArray[Any]], float]:
        """Return the arrays of one chunk, by field name, and their squared error over all pixels on [0, 1].

        What `encode` does to the spectra of these images, with every component kept, without making them.
        Only a codec that sets `takes_pixels` has it.

        Parameters
        ----------
        pixels : uint8 or uint16 [n, C, H, W]
            By the header's ``bits``.
        rounding : str
            See `encode`.
        """
        raise NotImplementedError

    @abstractmethod
    def encode_coefficients(self, header: PackHeader, coefficients: Coefficients) -> dict[str, NDArray[Any]]:
        """Return the arrays, by field name, of which `decode` makes these coefficients, bit for bit.

        Parameters
        ----------
        coefficients : Coefficients
            What `decode` gave of packs with the same codec, shape, components, tiles, color space and step:
            any images of theirs, in any order.
        """

    @abstractmethod
    def problems(self, header: PackHeader, arrays: Arrays) -> list[tuple[str, str]]:
        """Return each defect in the content of a chunk's arrays as (field name, message)."""

    def decode(self, header: PackHeader, arrays: Arrays, samples: int) -> Coefficients:
        """Return the coefficients of the chunk's `samples` images; the arrays have passed `problems`.

        Override this or `decode_into`: the default of each calls the other.

        Raises
        ------
        ContentError
            A defect that shows only in decoding.
        """
        coefficients = self.layout.empty(header, samples)
        self.decode_into(header, arrays, coefficients)
        return coefficients

    def stored_in(self, coefficients: Coefficients) -> Arrays:
        """Return, by field name, those of its arrays that hold what a chunk stores as it is stored."""
        return {}

    def decode_into(self, header: PackHeader, arrays: Arrays, coefficients: Coefficients) -> None:
        """Fill `coefficients` with the chunk's images, as many as it has; otherwise as `decode`."""
        coefficients.write(0, self.decode(header, arrays, len(coefficients)))


_CODECS: dict[str, Codec] = {}


def register(codec: Codec) -> None:
    """Make a codec known under its name.

    Raises
    ------
    ConfigError
        Another codec has the name, or this one cannot decode.
    """
    kind = type(codec)
    if kind.decode is Codec.decode and kind.decode_into is Codec.decode_into:
        raise ConfigError(f"codec {codec.name!r} has neither `decode` nor `decode_into`; write one of them")
    if codec.name in _CODECS:
        taken = type(_CODECS[codec.name]).__qualname__
        raise ConfigError(f"codec {codec.name!r} is registered already, by {taken}; choose another name")
    _CODECS[codec.name] = codec


def codec_names() -> tuple[str, ...]:
    """Return the names of all codecs, sorted."""
    return tuple(sorted(_CODECS))


def codec_modules() -> list[str]:
    """Return the modules that register all codecs when imported, but for a program's main module."""
    return sorted({type(codec).__module__ for codec in _CODECS.values()} - {"__main__"})


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


def memory_bytes(header: PackHeader) -> int:
    """Return the bytes that the coefficients of one image take in memory."""
    return get_codec(header.codec).layout.image_bytes(header)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
