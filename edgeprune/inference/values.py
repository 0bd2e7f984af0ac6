"""How near the numbers that a network tells of images are to the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_runtime.task import Task

__all__ = ["ValueEvaluation", "ValueScores"]

_MOST_OF = 95


@dataclass(frozen=True)
class ValueScores:
    """What was found of one number; all but `r2` are in the unit of the data.

    Attributes
    ----------
    mae, rmse : float
        The mean absolute error, and the root of the mean squared error.
    mean_error : float
        Told less true: above 0, too much is told.
    p95 : float
        95% of the absolute errors are at most so large.
    r2 : float, optional
        ``1 - sum (y - p)^2 / sum (y - mean y)^2``; None where all true numbers are the same.
    """

    mae: float
    rmse: float
    mean_error: float
    p95: float
    r2: float | None


class ValueEvaluation:
    """Numbers that were told of images beside the true ones.

    Attributes
    ----------
    task : Task
        Whose numbers they are.
    predicted, true : float64 [N, width]
    """

    def __init__(self, task: Task, predicted: NDArray[np.float64], true: NDArray[np.float64]) -> None:
        self.task, self.predicted, self.true = task, predicted, true

    @property
    def images(self) -> int:
        """How many were tried."""
        return len(self.true)

    def values(self) -> list[ValueScores]:
        """Return the scores of each number."""
        return [_scores(told, true) for told, true in zip(self.predicted.T, self.true.T, strict=True)]

    def record(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        about = {"target": self.task.target, "unit": self.task.unit}
        return {"images": self.images, **about, "values": [vars(one) for one in self.values()]}


def _scores(told: NDArray[np.float64], true: NDArray[np.float64]) -> ValueScores:
    error = told - true
    square, spread = float((error**2).sum()), float(((true - true.mean()) ** 2).sum())
    return ValueScores(
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(square / len(error))),
        mean_error=float(error.mean()),
        p95=float(np.percentile(np.abs(error), _MOST_OF)),
        r2=None if (true == true[0]).all() else 1 - square / spread,
    )
