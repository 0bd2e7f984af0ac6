"""Images that look mislabeled: the tail of the area under the margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..scoring.scores_file import ScoresFile

__all__ = ["Suspects", "find_suspects"]

# Below so much, a probability in single precision says nothing of its logarithm.
_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class Suspects:
    """Images whose label the network did not come to believe.

    Attributes
    ----------
    rows, labels : int64 [n]
        Rows of the source, and their labels, the lowest margin first.
    margins : float64 [n]
        Mean over all epochs of the logit of the label minus the largest of the others.
    threshold : float
        The margin that all of them are below.
    scored : int
        How many images were scored.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    margins: NDArray[np.float64]
    threshold: float
    scored: int


def find_suspects(scores: ScoresFile, threshold: float | None = None) -> Suspects:
    """Return the images whose area under the margin (AUM, Pleiss et al. 2020, eq. 1) is below a threshold.

    A network learns the rule before the exceptions: over training it gives a wrong label less probability
    than the class that the image shows. The margin is that of the logits, ``log(p_y / largest other p)``;
    the score ``aum`` takes the probabilities themselves, as CCS does.

    Parameters
    ----------
    scores : ScoresFile
    threshold : float, optional
        By default ``-log(classes - 1)``: another class was more than classes - 1 times as probable as the
        label (geometric mean over the epochs). The paper takes its threshold from images with a class of
        their own that are trained along; here nothing is trained again.

    Raises
    ------
    ArtifactError
        The records are damaged.
    """
    own = scores.array("probabilities").astype(np.float64)
    other = own - scores.array("margins")
    margins = np.log(np.maximum(own, _LEAST) / np.maximum(other, _LEAST)).mean(axis=0)
    if threshold is None:
        threshold = 0.0 - float(np.log(max(int(scores.labels.max()), 1)))
    order = np.argsort(margins, kind="stable")
    order = order[margins[order] < threshold]
    return Suspects(scores.rows[order], scores.labels[order], margins[order], threshold, len(margins))
