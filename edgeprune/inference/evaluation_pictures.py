"""What was found of a network as a picture: by the kind of what it tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprune_formats import ConfigError
from edgeprune_runtime.training.objectives.average_precision import precision_recall

from ..pictures import label, picture
from .confusion import ClassEvaluation
from .evaluation import Evaluation
from .evaluation_text import unit_text
from .multilabel import MultilabelEvaluation
from .values import ValueEvaluation

__all__ = ["draw"]

_MOST, _NAMED, _NUMBERED = 2_000, 60, 20
_NAME = 16
_CURVES, _NUMBERS, _ACROSS = 10, 12, 4


def draw(evaluation: Evaluation, path: Path) -> None:
    """Draw a confusion matrix; of several labels precision by recall; of values those told by the true ones.

    Raises
    ------
    ConfigError
        The name does not end in .png, .svg or .pdf, or there are more than 2,000 classes.
    PackWriteError
        The file cannot be written.
    """
    if isinstance(evaluation, ClassEvaluation):
        _draw_confusion(evaluation, path)
    elif isinstance(evaluation, MultilabelEvaluation):
        _draw_precision(evaluation, path)
    else:
        _draw_values(evaluation, path)


def _draw_confusion(evaluation: ClassEvaluation, path: Path) -> None:
    """Draw the share of each class's images that is predicted as each class.

    Up to 60 classes have their names beside it, and up to 20 the counts in it.
    """
    count = len(evaluation.class_names)
    if count > _MOST:
        raise ConfigError(f"{count:,} classes are too many for a picture; the most are {_MOST:,}")
    matrix = evaluation.matrix()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 3.5 + 0.22 * min(count, _NAMED)
    with picture(path, (side + 1, side)) as figure:
        axes = figure.subplots()
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(shown, label="share of the class's images")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if count <= _NAMED:
            names = [label(name[:_NAME]) for name in evaluation.class_names]
            axes.set_xticks(range(count), names, rotation=90, fontsize=7, parse_math=False)
            axes.set_yticks(range(count), names, fontsize=7, parse_math=False)
        for (row, column), number in np.ndenumerate(matrix) if count <= _NUMBERED else ():
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{number:,}", ha="center", va="center", fontsize=6, color=color)


def _draw_precision(evaluation: MultilabelEvaluation, path: Path) -> None:
    """Draw precision by recall, of up to ten labels: those of least average precision."""
    ranked = [(one.average_precision, number) for number, one in enumerate(evaluation.labels())]
    known = sorted((ap, number) for ap, number in ranked if ap is not None)[:_CURVES]
    with picture(path, (6, 5)) as figure:
        axes = figure.subplots()
        for ap, number in known:
            precision, recall = precision_recall(evaluation.predicted[:, number], evaluation.true[:, number])
            name = label(evaluation.names[number][:_NAME])
            # From no recall on: the area below the line is the average precision.
            points = np.append(0, recall), np.append(precision[:1], precision)
            axes.step(*points, where="pre", label=f"{name}, {ap:.1%}")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        if known:
            legend = axes.legend(title="average precision", fontsize=7, title_fontsize=8)
            for text in legend.get_texts():
                text.set_parse_math(False)


def _draw_values(evaluation: ValueEvaluation, path: Path) -> None:
    """Draw the predicted numbers by the true ones, of the first twelve numbers of an image."""
    count = min(evaluation.true.shape[1], _NUMBERS)
    across, down = min(count, _ACROSS), -(-count // _ACROSS)
    unit = evaluation.task.unit and f",{unit_text(evaluation.task)}"
    with picture(path, (1 + 3.5 * across, 1 + 3.2 * down)) as figure:
        for number in range(count):
            true, told = evaluation.true[:, number], evaluation.predicted[:, number]
            axes = figure.add_subplot(down, across, number + 1)
            ends = [min(true.min(), told.min()), max(true.max(), told.max())]
            axes.plot(ends, ends, color="gray", linewidth=0.8)
            axes.plot(true, told, ".", markersize=3, alpha=0.5, rasterized=len(true) > _MOST)
            which = f" {number}" if evaluation.true.shape[1] > 1 else ""
            name = label(f"true {evaluation.task.target[:_NAME]}{which}{unit}")
            axes.set_xlabel(name, parse_math=False)
            axes.set_ylabel("predicted")
