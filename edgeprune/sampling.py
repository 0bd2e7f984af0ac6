"""Which images are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

__all__ = ["coreset_size", "random_coreset"]


def coreset_size(sample_prune: float, samples: int) -> int:
    """Return how many of `samples` images are kept, ``round((1 - sample_prune) * samples)``.

    Raises
    ------
    ConfigError
        The ratio is not at least 0 and below 1, or keeps no image.
    """
    if not 0 <= sample_prune < 1:
        raise ConfigError(f"the sample pruning ratio must be at least 0 and below 1, not {sample_prune}")
    count = round((1 - sample_prune) * samples)
    if count == 0:
        raise ConfigError(f"a sample pruning ratio of {sample_prune} keeps none of {samples} images")
    return count


def _quotas(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Share `count` among classes in proportion to their sizes, by largest remainder, one each at least."""
    exact = sizes * count / sizes.sum()
    quotas: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    if count >= np.count_nonzero(sizes):
        quotas = np.maximum(quotas, sizes > 0)
    while quotas.sum() > count:
        quotas[np.argmax(np.where(quotas > 1, quotas - exact, -np.inf))] -= 1
    order = np.argsort(quotas - exact, kind="stable")
    quotas[order[: count - quotas.sum()]] += 1
    return quotas


def random_coreset(labels: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Draw exactly `count` distinct samples, stratified by class.

    Classes keep their proportions to within one image; each keeps at least one if `count` allows it.

    Parameters
    ----------
    labels : int64 [N]
        Class of each sample.
    count : int
        ``1 .. N``.
    seed : int
        Non-negative.

    Returns
    -------
    int64 [count]
        Indices into `labels`, in random order.

    Raises
    ------
    ConfigError
        `count` is out of range.
    """
    if not 1 <= count <= len(labels):
        raise ConfigError(f"cannot draw {count} of {len(labels)} samples")
    random = np.random.default_rng(seed)
    sizes = np.bincount(labels)
    chosen = [
        random.choice(np.nonzero(labels == label)[0], quota, replace=False)
        for label, quota in enumerate(_quotas(sizes, count).tolist())
        if quota
    ]
    return random.permutation(np.concatenate(chosen)).astype(np.int64, copy=False)
