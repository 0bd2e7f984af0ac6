"""Images that look mislabeled: the tail of the area under the margin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..coresets.config import CoresetConfig
from ..coresets.selection import compute_scores
from ..scoring.scores_file import ScoresFile

__all__ = ["THRESHOLD", "Suspects", "find_suspects"]

THRESHOLD = 0.0


@dataclass(frozen=True, eq=False)
class Suspects:
    """Images whose label the network did not come to believe.

    Attributes
    ----------
    rows, labels : int64 [n]
        Rows of the source, and their labels, the lowest margin first.
    margins : float64 [n]
        Mean over all epochs of the probability of the label minus the largest of the others.
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


def find_suspects(scores: ScoresFile, threshold: float = THRESHOLD) -> Suspects:
    """Return the images with a mean margin (AUM, Pleiss et al. 2020) below a threshold.

    A network learns the rule before the exceptions: over training it gives a wrong label less probability
    than the class that the image shows. With 0, an image is listed where another class had the upper hand,
    averaged over all epochs. The paper takes its threshold from images with a class of their own that are
    trained along; here nothing is trained again.

    Raises
    ------
    ArtifactError
        The margins are damaged.
    """
    margins = compute_scores(scores, CoresetConfig(score="aum"))
    order = np.argsort(margins, kind="stable")
    order = order[margins[order] < threshold]
    return Suspects(scores.rows[order], scores.labels[order], margins[order], threshold, len(margins))
