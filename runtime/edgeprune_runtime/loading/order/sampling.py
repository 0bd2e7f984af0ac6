"""How often an epoch shows the images of each class. Needs no torch."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAMPLINGS", "Sampling", "balanced_rows"]

Sampling = Literal["uniform", "balanced"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


def balanced_rows(
    rows: NDArray[np.int64], labels: NDArray[np.integer], random: np.random.Generator
) -> NDArray[np.int64]:
    """Return as many of some images, in random order, with each of their classes equally often.

    Classes differ by one image at most, and so do the images of a class in how often they are there: those of
    a large class are drawn without replacement, those of a small one repeat.

    Parameters
    ----------
    rows : int64 [n]
        The images to draw from.
    labels : int [N]
        Of all images, by row.
    random : numpy.random.Generator

    Returns
    -------
    int64 [n]
    """
    by_class = rows[np.argsort(labels[rows], kind="stable")]
    _, starts = np.unique(labels[by_class], return_index=True)
    own = np.split(by_class, starts[1:])
    share, extra = divmod(len(rows), len(own))
    counts = random.permutation(np.arange(len(own)) < extra) + share
    drawn = []
    for images, count in zip(own, counts.tolist(), strict=True):
        rounds, rest = divmod(count, len(images))
        drawn += [np.tile(images, rounds), random.permutation(images)[:rest]]
    return random.permutation(np.concatenate(drawn)).astype(np.int64, copy=False)
