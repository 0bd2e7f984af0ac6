"""How well a network tells the classes of labeled images apart: accuracies, and which it takes for which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .prediction import Prediction

__all__ = ["LEAST_PROBABILITY", "ClassEvaluation", "ClassScores", "ratio"]

LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""What a probability counts as at least, so that its logarithm is finite."""


@dataclass(frozen=True)
class ClassScores:
    """What was found of one class.

    Attributes
    ----------
    name : str
    images : int
        That are of it.
    recall : float, optional
        The share of its images that are told to be of it; None where there are none.
    precision : float, optional
        The share of images told to be of it that are; None where there are none.
    f1 : float, optional
        The harmonic mean of both; None where there are neither.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass
class ClassEvaluation:
    """Counts of classified images; memory grows with the pairs of classes that occur.

    Attributes
    ----------
    class_names : tuple of str
        Of the network, in the order of its outputs.
    pairs : Counter
        Images by (true class, class told).
    loss : float
        Sum of the cross entropy of all images, in nats.
    """

    class_names: tuple[str, ...]
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    loss: float = 0.0

    def add(self, true: int, prediction: Prediction) -> None:
        """Count one image."""
        self.pairs[true, int(prediction.probabilities.argmax())] += 1
        self.loss -= float(np.log(max(float(prediction.probabilities[true]), LEAST_PROBABILITY)))

    @property
    def images(self) -> int:
        """How many were counted."""
        return sum(self.pairs.values())

    @property
    def accuracy(self) -> float:
        """The share of images whose class was told."""
        return sum(count for (true, told), count in self.pairs.items() if true == told) / self.images

    @property
    def mean_recall(self) -> float:
        """The mean recall of the classes that there are images of, each counted once."""
        return float(np.mean([one.recall for one in self.classes() if one.recall is not None]))

    def classes(self) -> list[ClassScores]:
        """Return the scores of each class, in the network's order."""
        count = len(self.class_names)
        right, images, told = (np.zeros(count, np.int64) for _ in range(3))
        for (true, found), number in self.pairs.items():
            images[true] += number
            told[found] += number
            right[true] += number * (true == found)
        return [
            ClassScores(name, int(n), ratio(r, n), ratio(r, t), ratio(2 * r, n + t))
            for name, r, n, t in zip(self.class_names, right, images, told, strict=True)
        ]

    def confused(self) -> list[tuple[int, int, int]]:
        """Return (true class, class told, images) of all errors, the most frequent first."""
        wrong = [(true, told, count) for (true, told), count in self.pairs.items() if true != told]
        return sorted(wrong, key=lambda entry: (-entry[2], entry[:2]))

    def matrix(self) -> NDArray[np.int64]:
        """Return the confusion matrix, int64 [classes, classes]: rows are true, columns told."""
        matrix = np.zeros((len(self.class_names),) * 2, np.int64)
        for place, count in self.pairs.items():
            matrix[place] = count
        return matrix

    def record(self) -> dict[str, Any]:
        """Return all of it, ready for JSON; of the confusion matrix what is not 0."""
        names = self.class_names
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            "mean_recall": self.mean_recall,
            "cross_entropy": self.loss / self.images,
            "classes": [vars(one) for one in self.classes()],
            "confusion": [
                {"true": names[true], "predicted": names[told], "images": count}
                for (true, told), count in sorted(self.pairs.items())
            ],
        }


def ratio(part: int | np.int64, whole: int | np.int64) -> float | None:
    """Return a share; None of nothing."""
    return float(part / whole) if whole else None
