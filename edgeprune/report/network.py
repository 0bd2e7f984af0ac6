"""What a run learned: its curves, and on which images its network is wrong."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgeprune_formats import Pack

from ..inference.confusion import ClassEvaluation
from ..inference.evaluation import Evaluation, compare_target
from ..inference.evaluation_text import Table, summary, table, unit_text
from ..inference.labeled import Labeled, match_classes, require_outputs
from ..inference.multilabel import LABEL_THRESHOLD, MultilabelEvaluation
from ..inference.prediction import Prediction, as_told
from ..inference.predictors import Predictor
from ..inference.values import ValueEvaluation
from ..sources.decoding.kinds import to_integers
from ..training.curves import MEASURES, measure_of, read_metrics, scale_of, series
from .album import evenly
from .charts import lines
from .names import shown
from .pictures import Card, picture
from .preview import in_color

__all__ = ["Cell", "Tested", "curves"]

_TESTED, _BATCH, _SHOWN, _MANY, _PAIRS, _SOME = 2000, 64, 24, 20, 20, 4
_SHADES = 9


@dataclass(frozen=True)
class Cell:
    """A number of the confusion matrix, and its shade, 0 to 9."""

    images: int
    shade: int


@dataclass(frozen=True)
class Tested:
    """How well a network tells what it has learned.

    Attributes
    ----------
    images, of : int
        How many were tried, of how many.
    summary : list of str
        The figures of all of them.
    table : Table or None
        A row for each class, label or number.
    names : list of str
        Of classes.
    matrix : list of list of Cell
        Rows are true classes, columns those told; empty where there are many.
    pairs : list of (str, str, int)
        True class, class told, images; the most frequent first.
    title : str
        Of the cards.
    cards : list of Card
        The images of which it tells the wrong class with the least doubt, or has the largest errors.
    """

    images: int
    of: int
    summary: list[str]
    table: Table | None
    names: list[str]
    matrix: list[list[Cell]]
    pairs: list[tuple[str, str, int]]
    title: str
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
        if model.task.is_ranked and not tried.class_names:
            return None
        judge = _Classes(tried, model) if model.task.is_ranked else _Target(tried, model)
        worst = _Worst()
        rows = evenly(len(tried.labels), _TESTED)
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            images = tried.read(some)
            outputs = as_told(model, model.logits(images))
            for row, image, told in zip(some.tolist(), images, outputs, strict=True):
                error, lines = judge.add(row, told)
                worst.add(error, image, (*lines, _name(tried, row)))
            if progress is not None:
                progress(f"classifying images, {min(start + _BATCH, len(rows)):,} of {len(rows):,}")
        return cls._made(judge.found(), judge.title, worst.cards(), len(tried.labels))

    @classmethod
    def _made(cls, found: Evaluation, title: str, cards: Sequence[Card], of: int) -> Tested:
        common = found.images, of, summary(found), _shown(table(found))
        if not isinstance(found, ClassEvaluation):
            return cls(*common, [], [], [], title, cards)
        names = [shown(name) for name in found.class_names]
        matrix = _cells(found.matrix()) if len(names) <= _MANY else []
        pairs = [(names[true], names[told], count) for true, told, count in found.confused()[:_PAIRS]]
        return cls(*common, names, matrix, pairs, title, cards)


class _Classes:
    """Compares classes that are told with the true ones."""

    title = "Most surely taken for another class"

    def __init__(self, tried: Labeled, model: Predictor) -> None:
        self._tried, self._model = tried, model
        names, self._numbers = match_classes(tried, model)
        self._names, self._found = [shown(name) for name in names], ClassEvaluation(names)

    def add(self, row: int, told: NDArray[np.float32]) -> tuple[float, tuple[str, ...]]:
        """Take an image; return how surely another class is told of it, and what to write below it."""
        require_outputs(told, self._names, self._tried, self._model)
        true, taken = self._numbers[self._tried.labels[row]], int(told.argmax())
        self._found.add(true, Prediction("", told))
        lines = (
            f"label {self._names[true]}, {told[true]:.0%}",
            f"taken for {self._names[taken]}, {told[taken]:.0%}",
        )
        return float(told[taken] - told[true]), lines

    def found(self) -> ClassEvaluation:
        return self._found


class _Target:
    """Compares labels, or values, that are told with the true ones."""

    title = "Largest errors"

    def __init__(self, tried: Labeled, model: Predictor) -> None:
        self._tried, self._model = tried, model
        self._rows: list[int] = []
        self._told: list[NDArray[np.float32]] = []

    def add(self, row: int, told: NDArray[np.float32]) -> tuple[float, tuple[str, ...]]:
        """Take an image; return how large its error is, and what to write below it."""
        self._rows.append(row)
        self._told.append(told)
        found = compare_target(self._model, self._tried, np.array([row]), [told])
        return _value_error(found) if isinstance(found, ValueEvaluation) else _label_error(found)

    def found(self) -> Evaluation:
        return compare_target(self._model, self._tried, np.array(self._rows), self._told)


def _value_error(found: ValueEvaluation) -> tuple[float, tuple[str, ...]]:
    """Return the largest error of one image, in standard deviations in training, and its numbers."""
    true, told = found.true[0], found.predicted[0]
    errors = np.abs(told - true) / np.array(found.task.std)
    lines = (
        f"{f'number {one}: ' if len(true) > 1 else ''}true {true[one]:.4g}, predicted {told[one]:.4g}"
        f"{unit_text(found.task)}"
        for one in (-errors).argsort(kind="stable")[:_SOME]
    )
    return float(errors.max()), tuple(lines)


def _label_error(found: MultilabelEvaluation) -> tuple[float, tuple[str, ...]]:
    """Return how far the wrong labels of one image are from right, in all, and which these are."""
    true, told = found.true[0], found.predicted[0]
    errors = np.abs(told - true) * ((told >= LABEL_THRESHOLD) != true)
    wrong = (-errors).argsort(kind="stable")[: np.count_nonzero(errors)]
    lines = (
        f"{shown(found.names[one])} {'missed' if true[one] else 'is predicted wrongly'}, {told[one]:.0%}"
        for one in wrong[:_SOME]
    )
    return float(errors.sum()), tuple(lines)


class _Worst:
    """The images with the largest errors."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, NDArray[np.float32], tuple[str, ...]]] = []
        self._seen = 0

    def add(self, error: float, image: NDArray[np.float32], lines: tuple[str, ...]) -> None:
        self._seen += 1
        if error > 0:
            heapq.heappush(self._heap, (error, -self._seen, image, lines))
            if len(self._heap) > _SHOWN:
                heapq.heappop(self._heap)

    def cards(self) -> list[Card]:
        ordered = sorted(self._heap, reverse=True, key=lambda entry: entry[:2])
        return [
            Card((picture(in_color(to_integers(image[None]))[0], ", ".join(lines)),), lines)
            for _, _, image, lines in ordered
        ]


def _shown(found: Table | None) -> Table | None:
    if found is None:
        return None
    return replace(found, rows=[(shown(name), *figures) for name, *figures in found.rows])


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
