"""Sampling by a Beta distribution of difficulty that moves to easier images the more are left out (DUAL)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from .records import check_finite
from .sampling import by_class

__all__ = ["beta_parameters", "beta_sampling"]

# The constant C of the paper, and how many of the highest scores their difficulty is taken from.
CONCENTRATION, ANCHORS = 15, 10
# Where the density of a Beta distribution may be 0 or without bound.
_EDGE = 1e-6


def beta_parameters(anchor: float, sample_prune: float, c_d: float) -> tuple[float, float]:
    """Return alpha and beta of the distribution for a pruning ratio (Cho et al. 2025, §3.3).

    ``beta = C (1 - anchor) (1 - r^c_d)`` with C = 15, and ``alpha = C + 1 - beta`` as in the authors' code.
    The mean is near `anchor` where nothing is left out, and moves to 1, the easy end, as the ratio r does.

    Parameters
    ----------
    anchor : float
        Mean p_y of the images of the highest scores, 0 to 1.
    sample_prune : float
        r, the share of the images left out, at least 0 and below 1.
    c_d : float
        How late it moves; see `edgeprune.presets.beta_exponent`.
    """
    beta = CONCENTRATION * (1 - anchor) * (1 - sample_prune**c_d)
    return CONCENTRATION + 1 - beta, beta


def beta_sampling(
    scores: NDArray[np.floating[Any]],
    means: NDArray[np.floating[Any]],
    count: int,
    *,
    sample_prune: float,
    c_d: float,
    seed: int,
    labels: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Draw exactly `count` distinct samples, by score times Beta density (DUAL, Cho et al. 2025, §3.3).

    Samples are drawn one after the other without replacement: those with the highest ``log weight + Gumbel
    noise``, of which each sample has its own, so that a score that changes a little changes the coreset a
    little. A sample whose score is 0 comes after all others.

    Parameters
    ----------
    scores : float [N]
        Finite, at least 0, higher is more important.
    means : float [N]
        Mean p_y of each sample, cut to 0 to 1, at which the density is taken.
    count : int
        ``1 .. N``.
    sample_prune, c_d : float
        See `beta_parameters`.
    seed : int
        Non-negative.
    labels : int64 [N], optional
        Class of each sample. If given, each class gets its proportion of `count`.

    Returns
    -------
    int64 [count]
        Indices into `scores`, in uniformly random order.

    Raises
    ------
    ConfigError
        Scores or means are not 1-D or not finite, a score is negative, lengths differ, or a parameter is out
        of range.
    """
    values = check_finite("scores", np.asarray(scores, np.float64), 1)
    easy = check_finite("means", np.asarray(means, np.float64), 1)
    if len(easy) != len(values):
        raise ConfigError(f"`means` of {len(easy)} samples do not go with {len(values)} scores")
    shares = by_class(labels, len(values), count)
    if values.min() < 0:
        raise ConfigError("`scores` must not be negative")
    easy = np.clip(easy, _EDGE, 1 - _EDGE)
    anchor = float(easy[np.argsort(-values, kind="stable")[:ANCHORS]].mean())
    alpha, beta = beta_parameters(anchor, sample_prune, c_d)
    noise, order = np.random.default_rng(seed).random((2, len(values)))
    keys = _log_weights(values, easy, alpha, beta) - np.log(-np.log(np.maximum(noise, np.finfo("f8").tiny)))
    chosen = np.concatenate(
        [share.members[np.argsort(-keys[share.members], kind="stable")[: share.quota]] for share in shares]
    )
    return chosen[np.argsort(order[chosen], kind="stable")].astype(np.int64, copy=False)


def _log_weights(
    scores: NDArray[np.float64], means: NDArray[np.float64], alpha: float, beta: float
) -> NDArray[np.float64]:
    """Return log(score * Beta density), but for what all have in common; -inf for a score of 0."""
    density = (alpha - 1) * np.log(means) + (beta - 1) * np.log1p(-means)
    with np.errstate(divide="ignore"):
        weights: NDArray[np.float64] = np.log(scores) + density
    return weights
