"""From pixels to the chunks of a pack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import PackHeader
from edgeprune_formats.codecs import get_codec

from ...masks.selector import Select
from ...sources import Source
from ...sources.check import Piece, Statistics, read_piece, refuse_bad
from ...sources.ordered import in_order
from .dct import dct2
from .quality import DEFAULT_ROUNDING

if TYPE_CHECKING:
    from .teacher import TeacherColumn

__all__ = ["Encoder", "Encoding", "MaskCounts", "Sample", "UnreadableError"]

# Cells of the frequency plane, a side, in which statistics of masks are given.
_CELLS = 32

Sample = NDArray[np.uint8 | np.uint16] | tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Pixels of images of which everything is kept, or spectra and masks."""


class UnreadableError(Exception):
    """Images cannot be read, and are to be left out; never leaves this package."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """Some images as a pack stores them, and what is to be known of them.

    Attributes
    ----------
    arrays : dict of str to array
        Of one chunk, by field name, see `edgeprune_formats.codecs.Codec.encode`.
    images : int
    squared_error : float
        Of the stored images against the originals, over all pixels on [0, 1].
    kept : int64 [rows, columns]
        How often components of each cell of the frequency plane are kept, see `MaskCounts`.
    statistics : Statistics
        Of the original images.
    answers : uint8 [n, ...] or None
        Rows of the teacher's column, see `edgeprune.packs.encoding.teacher.TeacherColumn`.
    """

    arrays: dict[str, NDArray[Any]]
    images: int
    squared_error: float
    kept: NDArray[np.int64]
    statistics: Statistics
    answers: NDArray[np.uint8] | None = None


class MaskCounts:
    """Counts of kept components in cells of the frequency plane, at most 32x32 of about equal size.

    Parameters
    ----------
    height, width : int
        Size of the plane.
    """

    def __init__(self, height: int, width: int) -> None:
        self._edges = [np.unique(np.arange(min(_CELLS, n)) * n // min(_CELLS, n)) for n in (height, width)]
        down, across = (np.diff([*edges, n]) for edges, n in zip(self._edges, (height, width), strict=True))
        self._sizes = np.multiply.outer(down, across)

    def of(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the counts int64 [rows, columns] of masks bool [n, C, H, W]."""
        rows = np.add.reduceat(mask.sum(axis=(0, 1), dtype=np.int64), self._edges[0], axis=0)
        counts: NDArray[np.int64] = np.add.reduceat(rows, self._edges[1], axis=1)
        return counts

    def full(self, planes: int) -> NDArray[np.int64]:
        """Return those of so many channels of images that keep everything."""
        sizes: NDArray[np.int64] = self._sizes * planes
        return sizes

    def rates(self, counts: NDArray[np.int64], planes: int) -> list[list[float]]:
        """Return the share of channels that keep a component of each cell."""
        shares: list[list[float]] = np.round(counts / self.full(max(planes, 1)), 6).tolist()
        return shares


@dataclass(frozen=True, eq=False)
class Encoder:
    """Reads and encodes images of a source; may be used by several threads at once.

    Attributes
    ----------
    source : Source
    select : callable or None
        Gives the mask of some spectra; None keeps everything.
    select_file : Path or None
        Of the FSE-Net that it asks, which takes long.
    rounding : str or None
        See `edgeprune.BuildConfig`.
    skip_bad : bool
        Whether images that cannot be read raise `UnreadableError` in place of `SourceError`.
    teacher : TeacherColumn or None
        Tells what a teacher says of the original pixels.
    """

    source: Source
    select: Select | None
    select_file: Path | None
    rounding: str | None
    skip_bad: bool = False
    teacher: TeacherColumn | None = None

    def read(self, rows: NDArray[np.int64]) -> Piece:
        """Read images.

        Raises
        ------
        SourceError
            An image cannot be read.
        UnreadableError
            Likewise, where such images are to be left out.
        """
        return self.require(read_piece(self.source, rows.astype(np.intp)))

    def require(self, piece: Piece) -> Piece:
        """Return images of which all were read; see `read`."""
        if piece.bad and self.skip_bad:
            raise UnreadableError
        refuse_bad(piece.bad)
        return piece

    def sample(self, codec: str, rows: NDArray[np.int64]) -> Sample:
        """Return some images as `edgeprune.packs.encoding.tiles.laid_out` needs them."""
        pixels = self.read(rows).pixels
        if self.select is None and get_codec(codec).takes_pixels:
            return pixels
        spectra = dct2(pixels)
        return spectra, np.ones(spectra.shape, bool) if self.select is None else self.select(spectra)

    def encode(
        self, header: PackHeader, pixels: NDArray[np.uint8 | np.uint16]
    ) -> tuple[dict[str, NDArray[Any]], float, NDArray[np.int64]]:
        """Return a chunk's arrays, its squared error, and the counts of what its masks keep.

        Parameters
        ----------
        header : PackHeader
        pixels : uint8 or uint16 [n, C, H, W]
        """
        codec, counts = get_codec(header.codec), MaskCounts(header.height, header.width)
        rounding = self.rounding or DEFAULT_ROUNDING
        whole = counts.full(len(pixels) * header.channels)
        if self.select is None and codec.takes_pixels:
            return *codec.encode_pixels(header, pixels, rounding=rounding), whole
        spectra = dct2(pixels)
        mask = np.ones(spectra.shape, bool) if self.select is None else self.select(spectra)
        arrays = codec.encode(header, spectra, mask, rounding=rounding)
        if codec.exact:
            dropped = spectra[~mask].astype(np.float64)
            error = float(dropped @ dropped)
        else:
            # What a device will see is what is measured.
            error = codec.decode(header, arrays, len(pixels)).squared_error(header, spectra)
        return arrays, error, whole if self.select is None else counts.of(mask)

    def chunks(self, header: PackHeader, rows: NDArray[np.int64], jobs: int) -> Iterator[Encoding]:
        """Yield the chunks of a pack of these rows, in order, made by `jobs` threads; see `read`."""

        def work(chunk: range) -> Encoding:
            piece = self.read(rows[chunk.start : chunk.stop])
            arrays, error, kept = self.encode(header, piece.pixels)
            answers = None if self.teacher is None else self.teacher.rows(piece)
            return Encoding(arrays, len(chunk), error, kept, Statistics.of(piece), answers)

        return in_order(work, (header.chunk_rows(number) for number in range(header.chunks)), jobs)
