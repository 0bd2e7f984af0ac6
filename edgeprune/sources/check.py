"""One pass over a source: which images read, their checksum and their channel sums."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.sources.base import Source

from ..errors import SourceError

__all__ = ["SourceCheck", "check_source", "source_facts"]

_BATCH_BYTES = 32 * 2**20

_Piece = tuple[NDArray[np.intp], NDArray[np.uint8], list[str]]


@dataclass(frozen=True, eq=False)
class SourceCheck:
    """What one pass over all images of a source found.

    Attributes
    ----------
    good : NDArray[np.intp]
        [n], ascending: the rows that can be read.
    bad : tuple[str, ...]
        One message for each image that cannot: its name and the reason.
    sha256 : str
        64 hex digits over all that a pack is built from. The hash runs over the ASCII text
        ``json.dumps([list(source.shape), list(source.class_names)])``, then for each row of `good` over
        its label (8 bytes, little-endian) and its pixels (3 x H x W bytes in C order).
    channel_sums : NDArray[np.float64]
        [N, 3]: sum of the pixels (0..255) of each image and channel; exact; 0 for a bad row.
    channel_squares : NDArray[np.float64]
        [N, 3]: sum of their squares, likewise.
    """

    good: NDArray[np.intp]
    bad: tuple[str, ...]
    sha256: str
    channel_sums: NDArray[np.float64]
    channel_squares: NDArray[np.float64]

    def to_bytes(self) -> bytes:
        """Return the check as bytes, for another process; see `from_bytes`."""
        buffer = io.BytesIO()
        texts = np.frombuffer(json.dumps([self.bad, self.sha256]).encode(), np.uint8)
        sums, squares = self.channel_sums, self.channel_squares
        np.savez(buffer, texts=texts, good=self.good, sums=sums, squares=squares)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> SourceCheck:
        """Return the check that `to_bytes` was called on."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            bad, sha256 = json.loads(arrays["texts"].tobytes())
            return cls(arrays["good"], tuple(bad), sha256, arrays["sums"], arrays["squares"])

    def statistics(
        self, rows: NDArray[np.integer[Any]], pixels: int
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of some images' pixels on [0, 1], per channel.

        Parameters
        ----------
        rows : int [n]
            Which images.
        pixels : int
            H * W.
        """
        count = len(rows) * pixels
        mean = self.channel_sums[rows].sum(axis=0) / count
        variance = self.channel_squares[rows].sum(axis=0) / count - mean**2
        # A channel that is the same everywhere is left as it is: dividing by 1 gray level keeps it finite.
        std = np.sqrt(np.maximum(variance, 1.0))
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def check_source(
    source: Source,
    *,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
    batch: int = 256,
) -> SourceCheck:
    """Read every image of a source once.

    Parameters
    ----------
    source : Source
        Where the images come from.
    skip_bad : bool
        Leave unreadable images out instead of failing.
    progress : callable or None
        Called after each batch with the number of images done so far, bad ones included.
    batch : int
        Images per read, at least 1; large images are read in smaller batches, of 32 MiB at most.

    Returns
    -------
    SourceCheck
        The rows to build from, and what is needed to describe any part of them.

    Raises
    ------
    SourceError
        Images cannot be read and `skip_bad` is false, or no image is left, or (split ``"train"``) a class
        has no image left.
    """
    digest = hashlib.sha256(json.dumps([list(source.shape), list(source.class_names)]).encode("ascii"))
    sums, squares = np.zeros((2, len(source), source.shape[0]))
    good: list[NDArray[np.intp]] = []
    bad: list[str] = []
    for done, (rows, pixels, messages) in _pieces(source, batch):
        digest.update(_labeled_bytes(source.labels[rows], pixels))
        sums[rows] = pixels.sum(axis=(2, 3), dtype=np.int64)
        squares[rows] = np.square(pixels, dtype=np.uint16).sum(axis=(2, 3), dtype=np.int64)
        good.append(rows)
        bad += messages
        if progress is not None:
            progress(done)
    rows = np.concatenate([np.empty(0, dtype=np.intp), *good])
    _refuse(source, rows, bad, skip_bad=skip_bad)
    return SourceCheck(rows, tuple(bad), digest.hexdigest(), sums, squares)


def source_facts(source: Source, check: SourceCheck) -> dict[str, Any]:
    """Return what identifies a source in the artifacts made from it."""
    return {
        "spec": source.spec,
        "split": source.split,
        "sha256": check.sha256,
        "images": len(source),
        "skipped": len(check.bad),
    }


def _pieces(source: Source, batch: int) -> Iterator[tuple[int, _Piece]]:
    step = max(1, min(batch, _BATCH_BYTES // math.prod(source.shape)))
    for start in range(0, len(source), step):
        stop = min(start + step, len(source))
        yield stop, _read_piece(source, np.arange(start, stop, dtype=np.intp))


def _read_piece(source: Source, rows: NDArray[np.intp]) -> _Piece:
    try:
        return rows, source.read(rows), []
    except SourceError as error:
        if len(rows) == 1:
            return rows[:0], np.empty((0, *source.shape), dtype=np.uint8), [str(error)]
    halves = [_read_piece(source, half) for half in np.array_split(rows, 2)]
    good, pixels, messages = zip(*halves, strict=True)
    return np.concatenate(good), np.concatenate(pixels), [*messages[0], *messages[1]]


def _labeled_bytes(labels: NDArray[np.int64], pixels: NDArray[np.uint8]) -> bytes:
    heads = labels.astype("<i8").view(np.uint8).reshape(len(labels), 8)
    flat = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    return np.concatenate([heads, flat], axis=1).tobytes()


def _refuse(source: Source, good: NDArray[np.intp], bad: list[str], *, skip_bad: bool) -> None:
    if bad and not skip_bad:
        others = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise SourceError(f"{bad[0]}{others}; pass `skip_bad=True` to leave such images out")
    if not len(good):
        first = f"; the first: {bad[0]}" if bad else ""
        raise SourceError(f"{source.spec}: no image can be read{first}")
    if source.split != "train":
        return
    left = np.bincount(source.labels[good], minlength=len(source.class_names))
    if not left.all():
        name = source.class_names[int(np.argmin(left != 0))]
        raise SourceError(f"{source.spec}: class {name!r} has no image left after skipping unreadable ones")
