"""Which device of a fleet gets which image of a pack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

__all__ = ["IID", "Partition", "parse_by", "partition"]

# Of alpha; far below and above it the shares of a class cannot be drawn.
_LEAST, _MOST = 0.01, 1e6


@dataclass(frozen=True)
class Partition:
    """How images are shared out.

    Attributes
    ----------
    kind : str
        ``"iid"`` (uniformly at random), ``"class"`` (whole classes) or ``"dirichlet"`` (skewed labels).
    alpha : float or None
        Concentration of ``"dirichlet"``: the smaller, the fewer classes a part sees.
    """

    kind: str
    alpha: float | None = None

    def __str__(self) -> str:
        return self.kind if self.alpha is None else f"{self.kind}:{self.alpha:g}"


IID = Partition("iid")


def parse_by(text: str) -> Partition:
    """Return the partition that ``iid``, ``class`` or ``dirichlet:ALPHA`` names.

    Raises
    ------
    ConfigError
        None of them, or an alpha that is not in 0.01 to 1,000,000.
    """
    kind, colon, number = text.partition(":")
    if kind in ("iid", "class") and not colon:
        return Partition(kind)
    try:
        alpha = float(number)
    except ValueError:
        alpha = math.nan
    if kind != "dirichlet" or not _LEAST <= alpha <= _MOST:
        raise ConfigError(
            f"`by` {text!r} is none of iid, class, dirichlet:ALPHA with ALPHA from {_LEAST:g} to {_MOST:,.0f}"
        )
    return Partition(kind, alpha)


def partition(labels: NDArray[np.int64], parts: int, by: Partition, seed: int) -> NDArray[np.int64]:
    """Return the part of each image, 0 to `parts` - 1, as int64 [N]; none is empty.

    ``iid`` and ``dirichlet`` give parts of equal size, up to one image. With ``class``, classes go from the
    largest to the smallest to the part that has the fewest images. With ``dirichlet``, part k has a
    distribution over classes drawn as ``q_k ~ Dir(alpha C p)``, p being that of all images over their C
    classes, and takes its images by it, without replacement; once a class is used up, the others share its
    probability. That is the population of Hsu et al. 2019 (arXiv:1909.06335), whose parameter is
    ``alpha C`` in these terms: where classes are of equal size, each has the parameter alpha, as
    in Acar et al. 2021 (arXiv:2111.04263).

    Parameters
    ----------
    labels : int64 [N]
    parts : int
        At least 2.
    by : Partition
    seed : int
        Non-negative.

    Raises
    ------
    ConfigError
        Fewer images, or with ``class`` fewer classes, than parts.
    """
    if parts < 2:
        raise ConfigError(f"`parts` is {parts}, which splits nothing; give 2 or more")
    if seed < 0:
        raise ConfigError(f"`seed` must not be negative: {seed}")
    if parts > len(labels):
        raise ConfigError(f"{len(labels)} images do not fill {parts} parts; lower `parts`")
    random = np.random.default_rng(seed)
    if by.kind == "class":
        return _whole_classes(labels, parts, random)
    sizes = np.full(parts, len(labels) // parts)
    sizes[: len(labels) % parts] += 1
    if by.alpha is None:
        return random.permutation(np.repeat(np.arange(parts), sizes))
    return _skewed(labels, sizes, by.alpha, random)


def _whole_classes(labels: NDArray[np.int64], parts: int, random: np.random.Generator) -> NDArray[np.int64]:
    classes, images = np.unique(labels, return_counts=True)
    if parts > len(classes):
        raise ConfigError(
            f"images of {len(classes)} classes do not fill {parts} parts; lower `parts`, or "
            "use `by=dirichlet:0.1`"
        )
    shuffled = random.permutation(len(classes))
    part_of = np.zeros(int(classes.max()) + 1, np.int64)
    held = np.zeros(parts, np.int64)
    for place in shuffled[np.argsort(-images[shuffled], kind="stable")]:
        smallest = int(held.argmin())
        part_of[classes[place]] = smallest
        held[smallest] += images[place]
    return part_of[labels]


def _skewed(
    labels: NDArray[np.int64], sizes: NDArray[np.int64], alpha: float, random: np.random.Generator
) -> NDArray[np.int64]:
    classes, label, images = np.unique(labels, return_inverse=True, return_counts=True)
    concentration = alpha * len(classes) * images / len(labels)
    shares = random.dirichlet(concentration, len(sizes))
    counts = _drawn(shares, sizes, images, random)
    part_of = np.empty(len(labels), np.int64)
    for number in range(len(classes)):
        rows = random.permutation(np.nonzero(label == number)[0])
        part_of[rows] = np.repeat(np.arange(len(sizes)), counts[:, number])
    return part_of


def _drawn(
    shares: NDArray[np.float64],
    sizes: NDArray[np.int64],
    images: NDArray[np.int64],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Return how many images of each class each part gets, [parts, classes]: every image, and `sizes` each.

    In each round all parts draw what they lack at once, and where they draw more of a class than there is,
    chance decides who gets it; so no part is served before another.
    """
    counts = np.zeros(shares.shape, np.int64)
    while (lacking := sizes - counts.sum(axis=1)).any():
        left = images - counts.sum(axis=0)
        # What is left decides for a part whose own classes are all used up.
        odds = np.where(left > 0, shares + 1e-12 * left / left.sum(), 0)
        wanted: NDArray[Any] = random.multinomial(lacking, odds / odds.sum(axis=1, keepdims=True))
        for number, there in enumerate(left):
            asked = wanted[:, number]
            if asked.sum() > there:
                wanted[:, number] = random.multivariate_hypergeometric(asked, int(there))
        counts += wanted
    return counts
