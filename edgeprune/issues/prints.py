"""The fingerprints of the images of a source or a pack, read once by several threads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack
from edgeprune_runtime import PackDataset

from ..sources import Source
from ..sources.check import batches, read_images
from ..sources.decoding.kinds import to_integers
from ..sources.ordered import in_order
from .duplicates import Fingerprints
from .hashing import perceptual_hashes

__all__ = ["fingerprints", "pack_fingerprints"]

Refuse = Callable[[list[str]], None]


def fingerprints(
    source: Source,
    rows: NDArray[np.integer[Any]],
    jobs: int,
    refuse: Refuse,
    progress: Callable[[str, int, int], None] | None = None,
) -> Fingerprints:
    """Read some rows of a source.

    Parameters
    ----------
    source : Source
    rows : int [n]
        Ascending.
    jobs : int
        Threads that read.
    refuse : callable
        Called with a message for each image that cannot be read, some at a time; where it returns they are
        left out.
    progress : callable, optional
        Called as ``progress("looking for duplicates", images done, images in all)``.
    """
    parts = [_of(np.empty(0, np.int64), np.empty((0, *source.shape), np.uint8))]
    done = 0
    for part, bad in in_order(partial(_read, source), batches(source, rows.astype(np.intp), 256), jobs):
        refuse(bad)
        parts.append(part)
        done += len(part.rows) + len(bad)
        if progress is not None:
            progress("looking for duplicates", done, len(rows))
    return Fingerprints.joined(parts)


def _read(source: Source, rows: NDArray[np.intp]) -> tuple[Fingerprints, list[str]]:
    good, pixels, bad = read_images(source, rows)
    return _of(good.astype(np.int64), pixels), bad


def _of(rows: NDArray[np.int64], pixels: NDArray[np.uint8 | np.uint16]) -> Fingerprints:
    digests = [hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=16).digest() for one in pixels]
    joined = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
    return Fingerprints(rows, *perceptual_hashes(pixels), joined)


def pack_fingerprints(
    pack: Pack, progress: Callable[[str, int, int], None] | None = None, *, chunks: int | None = None
) -> Fingerprints:
    """Decode all images of a pack, or its first chunks; rows are those of the pack."""
    parts = []
    for rows, pixels in _decoded(pack, chunks):
        parts.append(_of(rows, pixels))
        if progress is not None:
            progress("looking for duplicates", int(rows[-1]) + 1, len(pack))
    return Fingerprints.joined(parts)


def _decoded(
    pack: Pack, chunks: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8 | np.uint16]]]:
    images = PackDataset(pack, backend="scipy", cache_bytes=1, targets=())
    for chunk in map(pack.header.chunk_rows, range(pack.header.chunks)[:chunks]):
        pixels = np.stack([image for (image,) in images.__getitems__(chunk)])
        yield np.array(chunk, np.int64), to_integers(pixels, pack.header.bits)
