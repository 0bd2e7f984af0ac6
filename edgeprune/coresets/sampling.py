"""Which images are kept."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from .records import check_finite

__all__ = ["by_class", "ccs", "random_coreset", "stratum_budgets", "top_k"]


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


class _Share(NamedTuple):
    """The samples of a class, ascending, and how many of them are to be drawn."""

    name: str
    members: NDArray[np.int64]
    quota: int


def by_class(labels: NDArray[np.int64] | None, samples: int, count: int) -> list[_Share]:
    """Share `count` among the classes in proportion; without labels all samples are one class."""
    if not 1 <= count <= samples:
        raise ConfigError(f"cannot draw {count} of {samples} samples")
    if labels is None:
        return [_Share("the data", np.arange(samples), count)]
    if np.shape(labels) != (samples,):
        raise ConfigError(f"`labels` of shape {np.shape(labels)} do not go with {samples} scores")
    names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(sizes)[:-1])
    titles = [f"class {name}" for name in names]
    return [_Share(*share) for share in zip(titles, members, _quotas(sizes, count).tolist(), strict=True)]


def random_coreset(labels: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Draw exactly `count` distinct samples, stratified by class.

    Each class keeps at least one if `count` allows it. Otherwise classes keep their proportions, to within
    one image where none had to be raised to one.

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
    random = np.random.default_rng(seed)
    chosen = [
        random.choice(share.members, share.quota, replace=False)
        for share in by_class(labels, len(labels), count)
        if share.quota
    ]
    return random.permutation(np.concatenate(chosen)).astype(np.int64, copy=False)


def top_k(
    scores: NDArray[np.floating[Any]],
    count: int,
    *,
    keep: Literal["high", "low"],
    labels: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Keep the `count` samples at one end of a score; ties go to the lower index.

    Parameters
    ----------
    scores : float [N]
        Finite.
    count : int
        ``1 .. N``.
    keep : "high" or "low"
        The end to keep; `edgeprune.coresets.scores.SCORES` knows it for each score.
    labels : int64 [N], optional
        Class of each sample. If given, each class gets its proportion of `count`.

    Returns
    -------
    int64 [count]
        Indices into `scores`, the one nearest that end first.

    Raises
    ------
    ConfigError
        `scores` is not 1-D or not finite, another length differs, or a parameter is out of range.
    """
    values = check_finite("scores", np.asarray(scores, np.float64), 1)
    if keep not in ("high", "low"):
        raise ConfigError(f"`keep` must be high or low, not {keep!r}")
    ranks = -values if keep == "high" else values
    parts = [
        share.members[np.argsort(ranks[share.members], kind="stable")[: share.quota]]
        for share in by_class(labels, len(values), count)
    ]
    chosen = np.concatenate(parts)
    return chosen[np.lexsort((chosen, ranks[chosen]))].astype(np.int64, copy=False)


def stratum_budgets(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Share `count` among strata as evenly as their sizes allow (Zheng et al. 2022, algorithm 1).

    Strata are visited from the smallest to the largest, equal ones by position, and each gets
    ``min(size, remaining // strata left)``. Empty strata come first and get nothing, so it does not
    matter whether they are counted. What a small stratum leaves unused goes to the larger ones, hence
    the sum is exact.

    Parameters
    ----------
    sizes : int64 [B]
        Samples in each stratum.
    count : int
        ``0 .. sum of sizes``.

    Returns
    -------
    int64 [B]
        At most `sizes`; the sum is `count`.

    Raises
    ------
    ConfigError
        A size is negative, or `count` is out of range.
    """
    available = np.asarray(sizes, np.int64)
    if (available < 0).any() or not 0 <= count <= available.sum():
        raise ConfigError(f"cannot draw {count} samples from strata of sizes {available.tolist()}")
    budgets = np.zeros_like(available)
    for visited, stratum in enumerate(np.argsort(available, kind="stable").tolist()):
        budgets[stratum] = min(int(available[stratum]), count // (len(available) - visited))
        count -= int(budgets[stratum])
    return budgets


def _strata(scores: NDArray[np.float64], strata: int) -> NDArray[np.int64]:
    """Return int64 [N], the stratum of each score: equal-width bins numbered without the empty ones."""
    # Scaling by a power of two is exact and keeps the range finite, which max - min of doubles need not be.
    scaled = np.ldexp(scores, -np.frexp(np.abs(scores).max())[1])
    low, high = scaled.min(), scaled.max()
    if low == high:
        return np.zeros(len(scores), np.int64)
    # The highest score is pulled into the last bin. A top edge of max * 1.0001 would exclude it if negative.
    bins = np.minimum(np.floor((scaled - low) * strata / (high - low)), strata - 1)
    return np.unique(bins, return_inverse=True)[1].astype(np.int64, copy=False)


def _first_of_each(groups: NDArray[np.int64], budgets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return bool [N], true for the first ``budgets[g]`` entries of each group g."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=len(budgets))
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks < budgets[groups]


def _draw(
    scores: NDArray[np.float64], count: int, strata: int, keys: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return int64 [count], the samples with the smallest keys in each stratum."""
    groups = _strata(scores, strata)
    budgets = stratum_budgets(np.bincount(groups), count)
    order = np.argsort(keys, kind="stable")
    return order[_first_of_each(groups[order], budgets)]


def ccs(
    scores: NDArray[np.floating[Any]],
    count: int,
    *,
    hardness: NDArray[np.floating[Any]],
    beta: float,
    strata: int = 50,
    seed: int,
    labels: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Draw exactly `count` distinct samples, spread over the range of a score (CCS, Zheng et al. 2022).

    The ``round(beta * N)`` hardest samples are dropped, of equally hard ones those of higher index. The
    range of the others' scores is split into bins of equal width, the highest score belonging to the
    last one; `stratum_budgets` says how many are drawn, uniformly, in each bin.

    Each sample draws one key, whatever its score, and a bin gives the samples with its smallest keys: a
    score that changes a little changes the coreset a little.

    Parameters
    ----------
    scores : float [N]
        Finite, of any sign; their direction does not matter.
    count : int
        ``1 .. N - round(beta * N)``.
    hardness : float [N]
        Finite, higher is harder. The published results take it from AUM whatever `scores` are:
        ``edgeprune.coresets.scores.hardness(margins, "aum")``.
    beta : float
        Share of the samples dropped as too hard, at least 0 and below 1.
    strata : int
        Number of bins, at least 1.
    seed : int
        Non-negative.
    labels : int64 [N], optional
        Class of each sample. If given, each class gets its proportion of `count`, and `beta` and
        `strata` apply within the class.

    Returns
    -------
    int64 [count]
        Indices into `scores`, in uniformly random order.

    Raises
    ------
    ConfigError
        Scores or hardness are not 1-D or not finite, lengths differ, a parameter is out of range, or
        `beta` leaves fewer samples than are to be drawn.
    """
    values = check_finite("scores", np.asarray(scores, np.float64), 1)
    hard = check_finite("hardness", np.asarray(hardness, np.float64), 1)
    if len(hard) != len(values):
        raise ConfigError(f"`hardness` of {len(hard)} samples does not go with {len(values)} scores")
    _check_ccs(beta, strata, seed)
    # Keys that are the smallest of a large bin are smaller than those of a small one: to sort by them
    # would put the crowded bins first, so the order has keys of its own.
    draw_keys, order_keys = np.random.default_rng(seed).random((2, len(values)))
    parts = []
    for share in by_class(labels, len(values), count):
        if share.quota == 0:
            continue
        left = _easier(hard, share, beta)
        parts.append(left[_draw(values[left], share.quota, strata, draw_keys[left])])
    chosen = np.concatenate(parts)
    return chosen[np.argsort(order_keys[chosen], kind="stable")].astype(np.int64, copy=False)


def _check_ccs(beta: float, strata: int, seed: int) -> None:
    if not 0 <= beta < 1:
        raise ConfigError(f"`beta` must be at least 0 and below 1, not {beta}")
    if strata < 1:
        raise ConfigError(f"`strata` must be at least 1, not {strata}")
    if seed < 0:
        raise ConfigError(f"`seed` must not be negative: {seed}")


def _easier(hardness: NDArray[np.float64], share: _Share, beta: float) -> NDArray[np.int64]:
    """Return the members, ascending, that are left when the hardest are dropped; enough for the share."""
    samples = len(share.members)
    left = samples - round(beta * samples)
    if left < share.quota:
        raise ConfigError(
            f"`beta` {beta} leaves {left} of the {samples} samples of {share.name}, fewer than the "
            f"{share.quota} to draw from it; lower `beta`, or draw fewer"
        )
    order = np.argsort(hardness[share.members], kind="stable")
    return share.members[np.sort(order[:left])]
