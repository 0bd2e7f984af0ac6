"""The confusion matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprune_formats import ConfigError

from ..pictures import label, picture
from .confusion import Evaluation

__all__ = ["draw_confusion"]

_MOST, _NAMED, _NUMBERED = 2_000, 60, 20
_NAME = 16


def draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """Draw the share of each class's images that is taken for each class.

    Up to 60 classes have their names beside it, and up to 20 the counts in it.

    Raises
    ------
    ConfigError
        The name does not end in .png, .svg or .pdf, or there are more than 2,000 classes.
    PackWriteError
        The file cannot be written.
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
