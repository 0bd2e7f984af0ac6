"""Average precision, the measure of one label of several; without torch, for those who only run a network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["average_precision", "precision_recall"]


def precision_recall(
    scores: NDArray[np.floating], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision and recall at each threshold, float64 [k], from the highest score to the lowest.

    Images of one score rank together. Where no image has the label, recall is NaN.

    Parameters
    ----------
    scores : float [n]
    wanted : bool [n]
        Whether an image has the label.
    """
    order = (-scores).argsort(kind="stable")
    ranked, found = scores[order], wanted[order].cumsum(dtype=np.float64)
    at = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else order
    with np.errstate(invalid="ignore"):
        return found[at] / (at + 1), found[at] / np.float64(wanted.sum())


def average_precision(scores: NDArray[np.floating], wanted: NDArray[np.bool_]) -> float | None:
    """Return the mean precision at each image that has a label; None where none has it.

    As in scikit-learn, ``sum_k (R_k - R_(k-1)) P_k`` over thresholds; see `precision_recall`.

    Parameters
    ----------
    scores : float [n]
    wanted : bool [n]
    """
    if not wanted.any():
        return None
    precision, recall = precision_recall(scores, wanted)
    return float((np.diff(recall, prepend=0) * precision).sum())
