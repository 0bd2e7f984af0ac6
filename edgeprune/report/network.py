"""What a run learned: its curves, and which images its network takes for another class."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgeprune_formats import Pack

from ..inference.confusion import ClassEvaluation
from ..inference.labeled import Labeled, match_classes, require_outputs
from ..inference.prediction import Prediction, softmax
from ..inference.predictors import Predictor
from ..sources.decoding.kinds import to_integers
from ..training.curves import MEASURES, measure_of, read_metrics, scale_of, series
from .album import evenly
from .charts import lines
from .names import shown
from .pictures import Card, picture
from .preview import in_color

__all__ = ["Cell", "Tested", "curves"]

_TESTED, _BATCH, _SHOWN, _MANY, _PAIRS = 2000, 64, 24, 20, 20
_SHADES = 9


@dataclass(frozen=True)
class Cell:
    """A number of the confusion matrix, and its shade, 0 to 9."""

    images: int
    shade: int


@dataclass(frozen=True)
class Tested:
    """How well a network tells images apart.

    Attributes
    ----------
    images, of : int
        How many were tried, of how many.
    accuracy, mean_recall : float
    names : list of str
        Of the classes.
    matrix : list of list of Cell
        Rows are true classes, columns those told; empty where there are many.
    pairs : list of (str, str, int)
        True class, class told, images; the most frequent first.
    cards : list of Card
        The images that it takes for another class with the least doubt.
    """

    images: int
    of: int
    accuracy: float
    mean_recall: float
    names: list[str]
    matrix: list[list[Cell]]
    pairs: list[tuple[str, str, int]]
    cards: Sequence[Card]

    @classmethod
    def on(
        cls, tried: Labeled, model: Predictor, progress: Callable[[str], None] | None = None
    ) -> Tested | None:
        """Try a network on up to 2,000 images, evenly spaced; None of what has no classes to compare.

        Raises
        ------
        ConfigError
            Classes that the network lacks.
        SourceError, PackFormatError
            An image cannot be read.
        """
        if not tried.class_names or not model.task.is_ranked:
            return None
        names, numbers = match_classes(tried, model)
        evaluation, worst = ClassEvaluation(names), _Worst()
        rows = evenly(len(tried.labels), _TESTED)
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            images = tried.read(some)
            told = softmax(model.logits(images))
            require_outputs(told, names, tried, model)
            for row, image, probabilities in zip(some.tolist(), images, told, strict=True):
                true = numbers[tried.labels[row]]
                prediction = Prediction(_name(tried, row), probabilities)
                evaluation.add(true, prediction)
                worst.add(image, true, prediction)
            if progress is not None:
                progress(f"classifying images, {min(start + _BATCH, len(rows)):,} of {len(rows):,}")
        return cls._made(evaluation, worst, len(tried.labels))

    @classmethod
    def _made(cls, evaluation: ClassEvaluation, worst: _Worst, of: int) -> Tested:
        names = [shown(name) for name in evaluation.class_names]
        return cls(
            evaluation.images,
            of,
            evaluation.accuracy,
            evaluation.mean_recall,
            names,
            _cells(evaluation.matrix()) if len(names) <= _MANY else [],
            [(names[true], names[told], count) for true, told, count in evaluation.confused()[:_PAIRS]],
            worst.cards(names),
        )


class _Worst:
    """The images that a network takes for another class with the least doubt."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, NDArray[np.float32], int, Prediction]] = []
        self._seen = 0

    def add(self, image: NDArray[np.float32], true: int, told: Prediction) -> None:
        self._seen += 1
        sure = float(told.probabilities.max() - told.probabilities[true])
        if sure > 0:
            heapq.heappush(self._heap, (sure, -self._seen, image, true, told))
            if len(self._heap) > _SHOWN:
                heapq.heappop(self._heap)

    def cards(self, names: Sequence[str]) -> list[Card]:
        return [
            self._card(names, *entry[2:]) for entry in sorted(self._heap, reverse=True, key=lambda e: e[:2])
        ]

    @staticmethod
    def _card(names: Sequence[str], image: NDArray[np.float32], true: int, told: Prediction) -> Card:
        lines = (
            f"label {names[true]}, {told.probabilities[true]:.0%}",
            f"taken for {names[int(told.probabilities.argmax())]}, {told.probabilities.max():.0%}",
            told.image,
        )
        return Card((picture(in_color(to_integers(image[None]))[0], ", ".join(lines)),), lines)


def _cells(matrix: NDArray[np.int64]) -> list[list[Cell]]:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shades = np.ceil(shares * _SHADES).astype(int)
    return [
        [Cell(int(n), int(shade)) for n, shade in zip(*row, strict=True)]
        for row in zip(matrix, shades, strict=True)
    ]


def _name(tried: Labeled, row: int) -> str:
    return f"row {row}" if isinstance(tried.origin, Pack) else shown(tried.name(row))


def curves(run: Path) -> list[Markup]:
    """Draw loss, and accuracy or what stands in its place, over the epochs of a run.

    Raises
    ------
    TrainingError
        Its metrics are missing or damaged.
    """
    epochs = read_metrics(run)
    what = measure_of(epochs)
    scale = scale_of(what)
    loss = {part: series(epochs, f"{part}_loss") for part in ("test", "train")}
    measure = {part: series(epochs, f"{part}_{what}", scale) for part in ("test", "train")}
    return [
        lines("loss over the epochs", loss, "epoch", "loss"),
        lines(f"{MEASURES[what]} over the epochs", measure, "epoch", MEASURES[what]),
    ]
