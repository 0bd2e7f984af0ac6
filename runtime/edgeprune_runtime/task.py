"""What a network learns: one of a pack's targets, and how its outputs become predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import LABEL, TRAINABLE, Column

__all__ = ["Task", "task_of"]


@dataclass(frozen=True)
class Task:
    """What a network learns.

    Attributes
    ----------
    target : str
        The name of the column.
    kind : str
        One of `edgeprune_formats.targets.TRAINABLE`. It chooses loss and metrics, see
        `edgeprune_runtime.training.objectives.losses` and `edgeprune_runtime.training.objectives.metrics`.
    unit : str
        Of values.
    mean, std : tuple of float
        Of each value over the training images; a network gives ``(value - mean) / std``. Empty for other
        kinds.

    Raises
    ------
    ValueError
        The kind is none, or a value lacks its mean and its positive standard deviation.
    """

    target: str = LABEL
    kind: str = "class"
    unit: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in TRAINABLE:
            raise ValueError(f"a network does not learn a target of kind {self.kind!r}")
        scale = bool(self.mean) and all(math.isfinite(value) and value > 0 for value in self.std)
        if len(self.mean) != len(self.std) or scale != (self.kind == "value"):
            raise ValueError(f"a {self.kind} with mean {self.mean} and standard deviation {self.std}")

    def __str__(self) -> str:
        return f"{self.target!r}, of kind {self.kind}"

    @property
    def is_default(self) -> bool:
        """Whether it is the class of images, as runs have it that know no other."""
        return self == Task()

    @property
    def is_ranked(self) -> bool:
        """Whether outputs are logits of classes of which one is the likeliest."""
        return self.kind in ("class", "probabilities")

    def column(self, class_names: Sequence[str] | None = None) -> Column:
        """Return the column that it learns; its classes have these names."""
        return Column(self.target, self.kind, tuple(class_names or ()), len(self.mean) or 1, self.unit)

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def task_of(column: Column, values: NDArray[Any]) -> Task:
    """Return the task of learning a column.

    Parameters
    ----------
    column : Column
    values : array
        Of the training images, see `edgeprune_formats.targets.Target`.

    Raises
    ------
    ConfigError
        It is metadata, which no network learns.
    """
    if column.kind not in TRAINABLE:
        raise ConfigError(
            f"target {column.name!r} is of kind {column.kind}, which describes images; train on one of kind "
            f"{', '.join(TRAINABLE)}, or build the pack again, with another kind for this one"
        )
    if column.kind != "value":
        return Task(column.name, column.kind, column.unit)
    wide = values.astype(np.float64)
    std = wide.std(axis=0)
    # One that is the same everywhere is left as it is.
    std[std == 0] = 1.0
    return Task(column.name, "value", column.unit, tuple(wide.mean(axis=0).tolist()), tuple(std.tolist()))
