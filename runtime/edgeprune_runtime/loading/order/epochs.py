"""In which order an epoch visits the samples: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sampling import balanced_rows

__all__ = ["epoch_order", "first_needs", "mixed_order"]


def epoch_order(
    samples: int,
    chunk_samples: int,
    window: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool,
    labels: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.int64]:
    """Return the samples of one epoch in visiting order.

    With ``shuffle``, chunks are shuffled, cut in windows of `window` chunks, and the samples of each
    window shuffled among themselves, so that no more than a window must be in memory. A window that
    covers the pack gives a uniform shuffle. Packs store their samples in random order, so that a
    window is a fair sample.

    Parameters
    ----------
    samples, chunk_samples : int
        As in the pack's header.
    window : int
        Chunks in a window.
    seed, epoch : int
        Non-negative; together they fix the order.
    labels : int [samples], optional
        With them each window shows its classes equally often, see `balanced_rows`; needs `shuffle`.

    Returns
    -------
    int64 [samples]
    """
    if not shuffle:
        return np.arange(samples, dtype=np.int64)
    random = np.random.default_rng([seed, epoch])
    chunks = -(-samples // chunk_samples)
    if window >= chunks:
        if labels is not None:
            return balanced_rows(np.arange(samples, dtype=np.int64), labels, random)
        return random.permutation(samples).astype(np.int64, copy=False)
    shuffled = random.permutation(chunks)
    parts = []
    for start in range(0, chunks, window):
        rows = _rows(samples, chunk_samples, shuffled[start : start + window])
        parts.append(_shuffled(rows, labels, random))
    return np.concatenate(parts).astype(np.int64, copy=False)


def mixed_order(
    sizes: Sequence[tuple[int, int]],
    windows: Sequence[int],
    *,
    seed: int,
    epoch: int,
    shuffle: bool,
    labels: NDArray[np.integer[Any]] | None = None,
    stream: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Return the samples of one epoch over several packs, numbered one pack after another.

    With ``shuffle``, the chunks of each pack are shuffled and cut in equally many parts, as few as keep each
    pack within its window, and the samples of all packs' first parts are shuffled among themselves, then
    those of the second, and so on. So every pack is there all through the epoch, in proportion to its size.
    Windows that cover all packs give a uniform shuffle.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Samples of each pack, and samples in a chunk of it.
    windows : sequence of int
        Chunks of each pack in a window.
    seed, epoch : int
        Non-negative; together they fix the order.
    labels : int [samples of all packs], optional
        As in `epoch_order`.
    stream : sequence of int
        More words of the seed, for an order that is independent of the one without.

    Returns
    -------
    int64 [samples of all packs]
    """
    starts = np.cumsum([0, *(samples for samples, _ in sizes)])
    if not shuffle:
        return np.arange(starts[-1], dtype=np.int64)
    random = np.random.default_rng([seed, epoch, *stream])
    chunks = [-(-samples // chunk_samples) for samples, chunk_samples in sizes]
    parts = max(-(-count // window) for count, window in zip(chunks, windows, strict=True))
    # Not `array_split`, which gives what does not divide to the first parts.
    cut = [
        np.split(random.permutation(count), [count * part // parts for part in range(1, parts)])
        for count in chunks
    ]
    order = []
    for part in range(parts):
        rows = [
            start + _rows(*size, of_pack[part])
            for start, size, of_pack in zip(starts, sizes, cut, strict=False)
        ]
        order.append(_shuffled(np.concatenate(rows), labels, random))
    return np.concatenate(order).astype(np.int64, copy=False)


def _shuffled(
    rows: NDArray[np.int64], labels: NDArray[np.integer[Any]] | None, random: np.random.Generator
) -> NDArray[np.int64]:
    return random.permutation(rows) if labels is None else balanced_rows(rows, labels, random)


def _rows(samples: int, chunk_samples: int, chunks: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the samples of chunks, chunk after chunk."""
    rows = chunks[:, None] * chunk_samples + np.arange(chunk_samples)
    return rows[rows < samples].astype(np.int64, copy=False)


def first_needs(chunk_of: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the chunks of an epoch as they come to be needed, and at which place of it each first is.

    Parameters
    ----------
    chunk_of : int64 [samples]
        The chunk of each sample in visiting order.
    """
    chunks, place = np.unique(chunk_of, return_index=True)
    sooner = np.argsort(place)
    return chunks[sooner], place[sooner].astype(np.int64, copy=False)
