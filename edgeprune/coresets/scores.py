"""How much each image matters, from what a training run recorded about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from .records import BLOCK, check_records
from .uncertainty import dual, dyn_unc

__all__ = [
    "SCORES",
    "Score",
    "aum",
    "dual",
    "dyn_unc",
    "el2n",
    "entropy",
    "forgetting",
    "hardness",
    "joint_entropy",
    "random",
]


@dataclass(frozen=True)
class Score:
    """What a score is made from, and which end of it matters.

    Attributes
    ----------
    name : str
        Also the name of the function that computes it.
    records : str
        The recorded array it needs: ``"entropies"`` (softmax entropy, every few epochs), ``"correct"``,
        ``"errors"`` (L2 norm of p - onehot(y)), ``"margins"`` (p_y - largest other p), ``"probabilities"``
        (p_y), all four every epoch, ``"final_entropies"`` (one record, of the final model), or ``""`` for
        none.
    keep_end : "high" or "low"
        The end that a plain top-k keeps: the hard end, or the important one.
    describes : str
        One line for a user.
    sampling : str
        How it was published to be sampled: ``"ccs"``, ``"top-k"`` or ``"beta"``.
    """

    name: str
    records: str
    keep_end: Literal["high", "low"]
    describes: str
    sampling: Literal["ccs", "top-k", "beta"] = "ccs"


SCORES = {
    score.name: score
    for score in (
        Score("joint_entropy", "entropies", "low", "entropy that varies early and settles late (JE)"),
        Score("forgetting", "correct", "high", "how often a learned image was forgotten"),
        Score("el2n", "errors", "high", "error norm, averaged over the first epochs"),
        Score("aum", "margins", "low", "margin of the true class, averaged over training"),
        Score("entropy", "final_entropies", "high", "uncertainty of the final model"),
        Score(
            "dyn_unc",
            "probabilities",
            "high",
            "variation of p, the probability of the true class (Dyn-Unc)",
            "top-k",
        ),
        Score("dual", "probabilities", "high", "early variation of this p, times 1 - p (DUAL)", "beta"),
        Score("random", "", "high", "uniform noise"),
    )
}


def hardness(scores: NDArray[np.floating[Any]], name: str) -> NDArray[np.float64]:
    """Turn scores so that higher is harder, that is, kept first by a plain top-k.

    Joint entropy, Dyn-Unc and DUAL rank importance and not hardness; the higher end is then the more
    important one.

    Parameters
    ----------
    scores : float [N]
        As the function `name` gives them.
    name : str
        A key of `SCORES`.

    Returns
    -------
    float64 [N]

    Raises
    ------
    ConfigError
        There is no such score.
    """
    if name not in SCORES:
        raise ConfigError(f"`name` must be one of {', '.join(SCORES)}, not {name!r}")
    values = np.asarray(scores, np.float64)
    return values if SCORES[name].keep_end == "high" else -values


def joint_entropy(
    entropies: NDArray[np.floating[Any]], *, tau: float = 2 / 3, gamma: float = 0.99, window: int = 3
) -> NDArray[np.float64]:
    """Score images by how their entropy varies during training (paper, §3.3); **lower is more important**.

    ``V(t)`` is the population variance of the records in ``[max(0, t - window // 2),
    min(T, t + window // 2 + 1))`` (eq. 9), ``R(t) = -V(t)`` if ``t < tau * T`` and ``+V(t)`` otherwise
    (eq. 10), and ``S = sum of gamma^t R(t) over t = 0 .. T - 1, plus gamma^T Var(all records)``
    (eqs. 11 and 12).

    Parameters
    ----------
    entropies : float [T, N]
        Entropy of each image's softmax, one row for each record.
    tau : float
        Share of the records that count as early, 0 to 1.
    gamma : float
        Discount for each record, above 0 and at most 1.
    window : int
        Records in a local variance, at least 1. Half of it, rounded down, lies on each side, so an even
        window is the next odd one.

    Returns
    -------
    float64 [N]

    Raises
    ------
    ConfigError
        `entropies` is not 2-D, has no rows or is not finite, or a parameter is out of range.
    """
    records = check_records("entropies", entropies)
    if not 0 <= tau <= 1:
        raise ConfigError(f"`tau` must be between 0 and 1, not {tau}")
    if not 0 < gamma <= 1:
        raise ConfigError(f"`gamma` must be above 0 and at most 1, not {gamma}")
    if window < 1:
        raise ConfigError(f"`window` must be at least 1, not {window}")
    scores = np.empty(records.shape[1])
    for start in range(0, records.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        scores[part] = _discounted_variances(records[:, part].astype(np.float64), tau, gamma, window // 2)
    return scores


def _discounted_variances(
    records: NDArray[np.float64], tau: float, gamma: float, reach: int
) -> NDArray[np.float64]:
    count = len(records)
    total: NDArray[np.float64] = gamma**count * records.var(axis=0)
    for t in range(count):
        reward = records[max(0, t - reach) : t + reach + 1].var(axis=0)
        total += gamma**t * (-reward if t < tau * count else reward)
    return total


def forgetting(correct: NDArray[Any]) -> NDArray[np.float64]:
    """Count how often each image went from right to wrong (Toneva et al. 2019); higher is harder.

    An image that was never right is hardest: it gets one more than the highest count of the others. A
    huge sentinel would do for ranking, but it would stretch the range so far that equal-width strata
    put all other images in one.

    Parameters
    ----------
    correct : bool [E, N]
        Whether each image was classified correctly, one row for each epoch; numbers must be 0 or 1.

    Returns
    -------
    float64 [N]
        Whole numbers.

    Raises
    ------
    ConfigError
        `correct` is not 2-D, has no rows or holds other values.
    """
    records = check_records("correct", correct)
    if not np.isin(records, (0, 1)).all():
        raise ConfigError("`correct` must be true or false, 1 or 0")
    records = records.astype(bool)
    counts = np.count_nonzero(records[:-1] & ~records[1:], axis=0)
    learned = records.any(axis=0)
    never = counts.max(initial=0, where=learned) + 1
    scores: NDArray[np.float64] = np.where(learned, counts, never).astype(np.float64)
    return scores


def el2n(errors: NDArray[np.floating[Any]], *, epochs: int = 10) -> NDArray[np.float64]:
    """Average the error norm over the first epochs (Paul et al. 2021); higher is harder.

    Parameters
    ----------
    errors : float [E, N]
        ``||p - onehot(y)||_2`` of each image, one row for each epoch.
    epochs : int
        How many of the first rows count, at least 1; all of them if there are fewer.

    Returns
    -------
    float64 [N]

    Raises
    ------
    ConfigError
        `errors` is not 2-D, has no rows or is not finite, or `epochs` is out of range.
    """
    if epochs < 1:
        raise ConfigError(f"`epochs` must be at least 1, not {epochs}")
    means: NDArray[np.float64] = check_records("errors", errors)[:epochs].mean(axis=0, dtype=np.float64)
    return means


def aum(margins: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Average the margin over all epochs (area under the margin, Pleiss et al. 2020); lower is harder.

    Parameters
    ----------
    margins : float [E, N]
        ``p_y - max of the other p`` of each image, one row for each epoch.

    Returns
    -------
    float64 [N]
        Negative for images that were mostly wrong.

    Raises
    ------
    ConfigError
        `margins` is not 2-D, has no rows or is not finite.
    """
    means: NDArray[np.float64] = check_records("margins", margins).mean(axis=0, dtype=np.float64)
    return means


def entropy(entropies: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the last record of the entropy, which should be the final model's; higher is harder.

    Parameters
    ----------
    entropies : float [T, N]
        Entropy of each image's softmax; only the last row counts, so ``T = 1`` is enough.

    Returns
    -------
    float64 [N]

    Raises
    ------
    ConfigError
        `entropies` is not 2-D, has no rows or is not finite.
    """
    last: NDArray[np.float64] = check_records("entropies", entropies)[-1].astype(np.float64)
    return last


def random(samples: int, *, seed: int) -> NDArray[np.float64]:
    """Score `samples` images by uniform noise in [0, 1).

    Parameters
    ----------
    samples : int
        At least 1.
    seed : int
        Non-negative.

    Returns
    -------
    float64 [samples]

    Raises
    ------
    ConfigError
        A parameter is out of range.
    """
    if samples < 1:
        raise ConfigError(f"`samples` must be at least 1, not {samples}")
    if seed < 0:
        raise ConfigError(f"`seed` must not be negative: {seed}")
    # A stream of its own: `edgeprune.coresets.sampling.ccs` draws from the plain seed, and strata of a score
    # that equals its drawing keys would always give their lowest samples.
    return np.random.default_rng([seed, 1]).random(samples)
