"""Reading images of a source with what is to be known of them: which can be read, checksums, channel sums."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from .base import Source, source_bits
from .decoding.files import as_text
from .ordered import in_order

__all__ = [
    "Checked",
    "Piece",
    "SourceCheck",
    "Statistics",
    "batches",
    "check_source",
    "read_images",
    "read_piece",
    "read_rest",
    "refuse_bad",
    "require_classes",
    "source_facts",
    "source_sha256",
]

_BATCH_BYTES = 32 * 2**20
_DIGEST_BYTES = 32


@dataclass(frozen=True, eq=False)
class Piece:
    """Some images that were read, and what is to be known of each.

    Attributes
    ----------
    rows : intp [n]
        Those that can be read.
    pixels : uint8 or uint16 [n, C, H, W]
    bad : tuple of str
        One message for each image that cannot be read: its name and the reason.
    digests : uint8 [n, 32]
        SHA-256 over row and label (8 bytes each, little-endian) and pixels in C order.
    sums, squares : int64 [n, C]
        Of the pixels, whole numbers, of each channel, and of their squares.
    """

    rows: NDArray[np.intp]
    pixels: NDArray[np.uint8 | np.uint16]
    bad: tuple[str, ...]
    digests: NDArray[np.uint8]
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]


@dataclass(frozen=True)
class Statistics:
    """Exact sums over images in any order; those of disjoint sets add up.

    Attributes
    ----------
    images : int
    digest : int
        Sum of their digests, modulo 2^256.
    sums, squares : tuple of int
        Of the pixels of each channel, and of their squares.
    bits : int
        Of a channel.
    """

    images: int
    digest: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]
    bits: int = 8

    @classmethod
    def of(cls, piece: Piece) -> Statistics:
        """Return those of the images of a piece."""
        return cls(
            len(piece.rows),
            _digest_sum(piece.digests),
            tuple(piece.sums.sum(axis=0).tolist()),
            tuple(piece.squares.sum(axis=0).tolist()),
            8 * piece.pixels.itemsize,
        )

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.images + other.images,
            (self.digest + other.digest) % 2 ** (8 * _DIGEST_BYTES),
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
            self.bits,
        )

    def mean_std(self, pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation on [0, 1], per channel, of images of so many pixels."""
        sums, squares = np.array(self.sums, float), np.array(self.squares, float)
        return _mean_std(sums, squares, self.images * pixels, self.bits)


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
        Of the images of `good`, see `source_sha256`.
    channel_sums : NDArray[np.float64]
        [N, C]: sum of the pixels, whole numbers, of each image and channel; exact; 0 for a bad row.
    channel_squares : NDArray[np.float64]
        [N, C]: sum of their squares, likewise.
    bits : int
        Of a channel.
    """

    good: NDArray[np.intp]
    bad: tuple[str, ...]
    sha256: str
    channel_sums: NDArray[np.float64]
    channel_squares: NDArray[np.float64]
    bits: int = 8

    def to_bytes(self) -> bytes:
        """Return the check as bytes, for another process; see `from_bytes`."""
        buffer = io.BytesIO()
        texts = np.frombuffer(json.dumps([self.bad, self.sha256, self.bits]).encode(), np.uint8)
        sums, squares = self.channel_sums, self.channel_squares
        np.savez(buffer, texts=texts, good=self.good, sums=sums, squares=squares)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> SourceCheck:
        """Return the check that `to_bytes` was called on."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            bad, sha256, bits = json.loads(arrays["texts"].tobytes())
            return cls(arrays["good"], tuple(bad), sha256, arrays["sums"], arrays["squares"], bits)

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
        sums, squares = self.channel_sums[rows].sum(axis=0), self.channel_squares[rows].sum(axis=0)
        return _mean_std(sums, squares, len(rows) * pixels, self.bits)


def _mean_std(
    sums: NDArray[np.float64], squares: NDArray[np.float64], count: int, bits: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, peak = sums / count, 2**bits - 1
    # A channel that is the same everywhere is left as it is: dividing by 1 gray level keeps it finite.
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return tuple((mean / peak).tolist()), tuple((std / peak).tolist())


def check_source(
    source: Source,
    *,
    skip_bad: bool = False,
    progress: Callable[[int], None] | None = None,
    batch: int = 256,
    jobs: int = 1,
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
    jobs : int
        Threads that read.

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
    sums, squares = np.zeros((2, len(source), source.shape[0]))
    good: list[NDArray[np.intp]] = []
    bad: list[str] = []
    total = done = 0
    for piece in in_order(partial(read_piece, source), batches(source, np.arange(len(source)), batch), jobs):
        sums[piece.rows], squares[piece.rows] = piece.sums, piece.squares
        total += _digest_sum(piece.digests)
        good.append(piece.rows)
        bad += piece.bad
        done += len(piece.rows) + len(piece.bad)
        if progress is not None:
            progress(done)
    rows = np.concatenate([np.empty(0, dtype=np.intp), *good])
    if not skip_bad:
        refuse_bad(bad)
    require_classes(source, rows, bad)
    digest = source_sha256(source.shape, source.class_names, len(rows), total)
    return SourceCheck(rows, tuple(bad), digest, sums, squares, source_bits(source))


def source_sha256(shape: tuple[int, ...], class_names: Sequence[str], images: int, digest: int) -> str:
    """Return 64 hex digits over all that a pack is built from.

    The hash runs over the ASCII text ``json.dumps([list(shape), list(class_names), images])``, then over the
    sum of the images' digests, see `Piece`, modulo 2^256, as 32 bytes, little-endian. A sum does not depend
    on the order in which images are read, nor on who reads which of them.
    """
    text = json.dumps([list(shape), list(class_names), images]).encode("ascii")
    rest = digest % 2 ** (8 * _DIGEST_BYTES)
    return hashlib.sha256(text + rest.to_bytes(_DIGEST_BYTES, "little")).hexdigest()


def read_rest(source: Source, rows: NDArray[np.intp], jobs: int) -> Iterator[Piece]:
    """Yield the images of `rows` in batches, read by `jobs` threads, for what is to be known of them."""
    return in_order(partial(read_piece, source), batches(source, rows, 256), jobs)


class Checked(Protocol):
    """What is known of images that were read, as `SourceCheck` has it."""

    @property
    def bad(self) -> tuple[str, ...]:
        """One message for each image that cannot be read."""
        ...

    @property
    def sha256(self) -> str:
        """Of the others, see `source_sha256`."""
        ...


def source_facts(source: Source, check: Checked) -> dict[str, Any]:
    """Return what identifies a source in the artifacts made from it."""
    return {
        "spec": as_text(source.spec),
        "split": source.split,
        "sha256": check.sha256,
        "images": len(source),
        "skipped": len(check.bad),
    }


def read_piece(source: Source, rows: NDArray[np.intp]) -> Piece:
    """Read some images; those that cannot be read are told in `Piece.bad`."""
    good, pixels, bad = read_images(source, rows)
    wide = pixels.reshape(len(pixels), source.shape[0], math.prod(source.shape[1:]))
    # The square of the highest pixel still fits.
    squares = np.square(wide, dtype=f"u{2 * wide.itemsize}").sum(axis=2, dtype=np.int64)
    digests = np.zeros((len(good), _DIGEST_BYTES), np.uint8)
    heads = np.stack([good.astype("<i8"), source.labels[good].astype("<i8")], axis=1)
    for digest, head, image in zip(digests, heads, pixels, strict=True):
        found = hashlib.sha256(head.tobytes())
        found.update(np.ascontiguousarray(image).data)
        digest[:] = np.frombuffer(found.digest(), np.uint8)
    return Piece(good, pixels, tuple(bad), digests, wide.sum(axis=2, dtype=np.int64), squares)


def batches(source: Source, rows: NDArray[np.intp], batch: int) -> Iterator[NDArray[np.intp]]:
    """Yield rows in pieces of `batch`, or fewer where their pixels would take more than 32 MiB."""
    step = max(1, min(batch, _BATCH_BYTES // (math.prod(source.shape) * source_bits(source) // 8)))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def read_images(
    source: Source, rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.uint8 | np.uint16], list[str]]:
    """Return the rows that can be read, their pixels [n, C, H, W], and a message for each of the others."""
    try:
        return rows, source.read(rows), []
    except SourceError as error:
        if len(rows) == 1:
            return rows[:0], np.empty((0, *source.shape), f"u{source_bits(source) // 8}"), [str(error)]
    halves = [read_images(source, half) for half in np.array_split(rows, 2)]
    good, pixels, messages = zip(*halves, strict=True)
    return np.concatenate(good), np.concatenate(pixels), [*messages[0], *messages[1]]


def _digest_sum(digests: NDArray[np.uint8]) -> int:
    """Return the sum of digests [n, 32], as little-endian numbers, modulo 2^256."""
    limbs = digests.view("<u4").sum(axis=0, dtype=np.uint64).tolist()
    return sum(limb << 32 * place for place, limb in enumerate(limbs))


def refuse_bad(bad: Sequence[str]) -> None:
    """Raise `SourceError` if there is a message of an image that cannot be read."""
    if bad:
        others = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
        raise SourceError(f"{bad[0]}{others}; pass `skip_bad=True` to leave such images out")


def require_classes(source: Source, good: NDArray[np.integer[Any]], bad: Sequence[str]) -> None:
    """Raise `SourceError` if no image is left or, of the split ``"train"``, none of a class."""
    if not len(good):
        first = f"; the first: {bad[0]}" if bad else ""
        raise SourceError(f"{source.spec}: no image can be read{first}")
    if source.split != "train":
        return
    left = np.bincount(source.labels[good], minlength=len(source.class_names))
    if not left.all():
        name = source.class_names[int(np.argmin(left != 0))]
        raise SourceError(f"{source.spec}: class {name!r} has no image left after skipping unreadable ones")
