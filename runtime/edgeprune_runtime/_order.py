"""In which order an epoch visits the samples: a pure function of seed and epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["epoch_order", "first_needs"]


def epoch_order(
    samples: int, chunk_samples: int, window: int, *, seed: int, epoch: int, shuffle: bool
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

    Returns
    -------
    int64 [samples]
    """
    if not shuffle:
        return np.arange(samples, dtype=np.int64)
    random = np.random.default_rng([seed, epoch])
    chunks = -(-samples // chunk_samples)
    if window >= chunks:
        return random.permutation(samples).astype(np.int64, copy=False)
    shuffled = random.permutation(chunks)
    parts = []
    for start in range(0, chunks, window):
        rows = shuffled[start : start + window, None] * chunk_samples + np.arange(chunk_samples)
        parts.append(random.permutation(rows[rows < samples]))
    return np.concatenate(parts).astype(np.int64, copy=False)


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
