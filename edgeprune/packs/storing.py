"""Writing the encoded images of a pack, and measuring what was stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import PackHeader, PackWriter
from edgeprune_formats.codecs import get_codec

from ..coresets.selection import Coreset
from ..work.callbacks import StageProgress
from .encoding import Encoded
from .quality import DEFAULT_ROUNDING

__all__ = ["MaskStatistics", "store_parts"]

# Cells of the frequency plane, a side, in which statistics of masks are given.
_CELLS = 32


def store_parts(
    path: Path,
    header: PackHeader,
    labels: NDArray[np.int64],
    coreset: Coreset,
    parts: Iterator[Encoded],
    compression: str,
    rounding: str | None,
    progress: StageProgress | None = None,
) -> None:
    """Write the pack, which appears when it is complete; what is measured of it goes into its provenance.

    Parameters
    ----------
    path : Path
    header : PackHeader
    labels : int64 [n]
        Of the coreset.
    coreset : Coreset
    parts : iterator of Encoded
        Its images in order.
    compression, rounding : str, str or None
        See `edgeprune.BuildConfig`.
    progress : callable, optional
        Called as ``progress("encoding", images done, images in all)``.

    Raises
    ------
    PackWriteError
        The pack cannot be written.
    """
    statistics = MaskStatistics(np.zeros((header.height, header.width), np.int64))
    writer = PackWriter(
        path,
        header,
        labels,
        coreset.rows,
        compression=compression,
        scores=coreset.scores,
        rounding=rounding or DEFAULT_ROUNDING,
    )
    with writer:
        done = 0
        for part in parts:
            writer.append(part.spectra, part.mask)
            statistics.add(part)
            done += len(part.mask)
            if progress is not None:
                progress("encoding", done, header.samples)
        writer.finish()
        if not get_codec(header.codec).exact:
            statistics.lost = writer.squared_error
        psnr = statistics.psnr
        # Where everything is kept, which quantization makes usual, the rates say nothing and take 5 kB.
        whole = header.step > 0 and header.components == header.height * header.width
        rates = {} if whole else {"kept_rate": statistics.kept_rate()}
        writer.record(psnr_db=psnr if math.isfinite(psnr) else None, **rates)


@dataclass
class MaskStatistics:
    """How often each frequency is kept, and at what error.

    Attributes
    ----------
    counts : int64 [H, W]
        In how many channels of images each frequency was kept.
    planes : int
        Channels of images in all.
    lost : float
        Energy dropped in all.
    """

    counts: NDArray[np.int64]
    planes: int = 0
    lost: float = 0.0

    def add(self, part: Encoded) -> None:
        """Count some images."""
        self.counts += part.mask.sum(axis=(0, 1))
        self.planes += part.mask.shape[0] * part.mask.shape[1]
        self.lost += part.lost

    @property
    def psnr(self) -> float:
        """Of the images against the originals in dB, 10 log10(1 / MSE) for pixels on [0, 1]."""
        values = self.planes * self.counts.size
        return float(10 * np.log10(values / self.lost)) if self.lost > 0 else math.inf

    def kept_rate(self) -> list[list[float]]:
        """Return the share of channels that keep a frequency, averaged in at most 32x32 cells."""
        rates = self.counts / max(self.planes, 1)
        for axis, size in enumerate(rates.shape):
            edges = np.unique(np.arange(min(_CELLS, size)) * size // min(_CELLS, size))
            widths = np.diff([*edges, size]).reshape((-1, 1) if axis == 0 else (1, -1))
            rates = np.add.reduceat(rates, edges, axis=axis) / widths
        rounded: list[list[float]] = np.round(rates, 6).tolist()
        return rounded
