"""How well a network tells labels of which an image may have several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_runtime.training.objectives.average_precision import average_precision

from .confusion import LEAST_PROBABILITY, ClassScores, ratio

__all__ = ["LABEL_THRESHOLD", "LabelScores", "MultilabelEvaluation"]

LABEL_THRESHOLD = 0.5
"""The probability from which a label of several is predicted."""


@dataclass(frozen=True)
class LabelScores(ClassScores):
    """What was found of one label: as of a class, of the images that have it and those it is predicted for.

    Attributes
    ----------
    average_precision : float, optional
        Of all images, ranked by the probability of this label; None where no image has it.
    """

    average_precision: float | None


class MultilabelEvaluation:
    """Probabilities of labels beside the labels that images have; a label is predicted from 50% on.

    Attributes
    ----------
    names : tuple of str
        Of the labels, in the order of the network's outputs.
    predicted : float32 [N, labels]
    true : bool [N, labels]
    """

    def __init__(self, names: Sequence[str], predicted: NDArray[np.float32], true: NDArray[np.bool_]) -> None:
        self.names, self.predicted, self.true = tuple(names), predicted, true

    @property
    def images(self) -> int:
        """How many were tried."""
        return len(self.true)

    @cached_property
    def _labels(self) -> list[LabelScores]:
        said = self.predicted >= LABEL_THRESHOLD
        counts = ((said & self.true).sum(axis=0), self.true.sum(axis=0), said.sum(axis=0))
        each = zip(self.names, *(one.tolist() for one in counts), strict=True)
        ranked = map(average_precision, self.predicted.T, self.true.T)
        return [
            LabelScores(name, have, ratio(hit, have), ratio(hit, of), ratio(2 * hit, have + of), ap)
            for (name, hit, have, of), ap in zip(each, ranked, strict=True)
        ]

    def labels(self) -> list[LabelScores]:
        """Return the scores of each label, in the network's order."""
        return self._labels

    def record(self) -> dict[str, Any]:
        """Return all of it, ready for JSON; means are of the labels that images have."""
        labels = self.labels()
        present = [one for one in labels if one.average_precision is not None]
        right = np.where(self.true, self.predicted, 1 - self.predicted.astype(np.float64))
        return {
            "images": self.images,
            "map": _mean([one.average_precision for one in present]),
            "mean_f1": _mean([one.f1 for one in present]),
            "exact_match": float(((self.predicted >= LABEL_THRESHOLD) == self.true).all(axis=1).mean()),
            "cross_entropy": float(-np.log(np.maximum(right, LEAST_PROBABILITY)).mean()),
            "labels": [vars(one) for one in labels],
        }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
