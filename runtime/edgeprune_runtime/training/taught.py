"""Batches that have the probabilities of a teacher beside the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import LABEL

from ..class_names import class_numbers
from ..loading.order.skipping import SkippedChunk
from .interfaces import TrainLoader
from .settings import TEACHER

__all__ = ["TaughtBatches"]


class TaughtBatches:
    """A `TrainLoader` whose labels and teacher's probabilities come as one, float32 [n, 2 classes].

    Parameters
    ----------
    loader : TrainLoader
        Gives images, labels or, where images are mixed, their probabilities, and the teacher's probabilities.
    num_classes : int
        Of the labels.

    Raises
    ------
    ConfigError
        A `PackLoader` gives something else, or the teacher's classes are not those of the labels.
    """

    def __init__(self, loader: TrainLoader, num_classes: int) -> None:
        self._loader, self._classes = loader, num_classes
        columns = getattr(loader, "targets", None)
        self._order: list[int] | None = None
        if columns is not None:
            self._order = _order(columns)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batches: Any = self._loader
        for images, labels, taught in batches:
            if labels.ndim == 1:
                labels = functional.one_hot(labels, self._classes)
            own = taught if self._order is None else taught[:, self._order]
            yield images, torch.cat([labels.float(), own.float()], dim=1)

    @property
    def skipped(self) -> Sequence[SkippedChunk]:
        """What the loader has left out."""
        found: Sequence[SkippedChunk] = getattr(self._loader, "skipped", ())
        return found

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's."""
        return self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give it to the loader."""
        self._loader.load_state_dict(state)


def _order(columns: Sequence[Any]) -> list[int] | None:
    """Return the teacher's number of each class of the labels; None where they are the same."""
    names = [column.name for column in columns]
    if names != [LABEL, TEACHER]:
        given = ", ".join(map(repr, names)) or "none"
        raise ConfigError(
            f"the loader hands out targets {given}; with `distill` it is to be made with "
            f"targets=({LABEL!r}, {TEACHER!r})"
        )
    label, teacher = columns
    if teacher.kind != "probabilities":
        raise ConfigError(f"target {TEACHER!r} is of kind {teacher.kind}; `distill` takes probabilities")
    order = class_numbers(label.classes, teacher.classes)
    known = [number for number in order if number is not None]
    if len(known) < len(order) or len(known) < len(teacher.classes):
        raise ConfigError(
            f"target {TEACHER!r} has {len(teacher.classes)} classes, which are not the {len(order)} of the "
            "labels; build the packs with a teacher that has learned these"
        )
    return None if known == list(range(len(known))) else known
