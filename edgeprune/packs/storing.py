"""Writing the encoded images of a pack, and what is found out of them while they are encoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import PackHeader, PackWriter

from ..sources.check import Statistics
from .encoding.encoder import Encoding, MaskCounts

if TYPE_CHECKING:
    from .encoding.teacher import TeacherColumn

__all__ = ["Measured", "complete", "store"]

# Digits of a PSNR in dB: further ones depend on the order in which errors are added.
_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found out of some images while they were encoded; that of disjoint sets adds up.

    Attributes
    ----------
    images : int
    squared_error : float
    kept : int64 [rows, columns]
    statistics : Statistics
        See `edgeprune.packs.encoding.encoder.Encoding`.
    """

    images: int
    squared_error: float
    kept: NDArray[np.int64]
    statistics: Statistics

    def __add__(self, other: Measured | Encoding) -> Measured:
        return Measured(
            self.images + other.images,
            self.squared_error + other.squared_error,
            self.kept + other.kept,
            self.statistics + other.statistics,
        )

    @classmethod
    def nothing(cls, header: PackHeader) -> Measured:
        """Return that of no image."""
        zeros = (0,) * header.channels
        kept = MaskCounts(header.height, header.width).full(0)
        return cls(0, 0.0, kept, Statistics(0, 0, zeros, zeros, header.bits))

    def result(self, header: PackHeader) -> dict[str, Any]:
        """Return the provenance's ``result``: PSNR in dB and, where components are dropped, how many."""
        planes = self.images * header.channels
        values = planes * header.height * header.width
        psnr = 10 * math.log10(values / self.squared_error) if self.squared_error > 0 else None
        found: dict[str, Any] = {"psnr_db": None if psnr is None else round(psnr, _DIGITS)}
        # Where everything is kept, which quantization makes usual, the rates say nothing and take 5 kB.
        if header.step == 0 or header.components < header.height * header.width:
            found["kept_rate"] = MaskCounts(header.height, header.width).rates(self.kept, planes)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON, exactly; see `from_json`."""
        statistics = self.statistics
        return {
            "images": self.images,
            "squared_error": self.squared_error,
            "kept": self.kept.tolist(),
            "digest": f"{statistics.digest:064x}",
            "sums": list(statistics.sums),
            "squares": list(statistics.squares),
            "bits": statistics.bits,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Measured:
        """Return what `to_json` was called on; raises `KeyError`, `TypeError` or `ValueError` of others."""
        sums, squares = (tuple(int(value) for value in facts[name]) for name in ("sums", "squares"))
        images, digest, bits = int(facts["images"]), int(facts["digest"], 16), int(facts["bits"])
        statistics = Statistics(images, digest, sums, squares, bits)
        kept = np.array(facts["kept"], np.int64)
        return cls(statistics.images, float(facts["squared_error"]), kept, statistics)


def store(
    writer: PackWriter,
    encodings: Iterable[Encoding],
    tell: Callable[[int], None] | None = None,
    teacher: TeacherColumn | None = None,
) -> Measured:
    """Write a pack's chunks in order, and return what was found out of them.

    Parameters
    ----------
    writer : PackWriter
        Entered.
    encodings : iterable of Encoding
        One for each chunk.
    tell : callable, optional
        Called with the number of images written so far.
    teacher : TeacherColumn, optional
        Whose answers the encodings have.

    Raises
    ------
    PackWriteError
        The disk is full.
    """
    measured, answers = Measured.nothing(writer.header), []
    for encoding in encodings:
        writer.append_arrays(encoding.arrays, encoding.images)
        measured += encoding
        if encoding.answers is not None:
            answers.append(encoding.answers)
        if tell is not None:
            tell(measured.images)
    if teacher is not None:
        writer.add_target(teacher.target(answers))
    return measured


def complete(
    writer: PackWriter, measured: Measured, provenance: Mapping[str, Any], *, keep_statistics: bool = False
) -> None:
    """Give a pack whose images are written what was measured of them; the writer is then ready to be left.

    With `keep_statistics` mean and standard deviation stay as the header has them.
    """
    header = writer.header
    own = measured.statistics.mean_std(header.height * header.width)
    writer.describe(*((header.mean, header.std) if keep_statistics else own), provenance)
    writer.record(**measured.result(writer.header))
