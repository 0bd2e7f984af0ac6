"""Learning from labels and, beside them, from the probabilities of a teacher that a pack holds.

The loss of an image is ``(1 - a) H(y, S(x)) + a T^2 H(q_T, S_T(x))`` (Hinton et al., 2015, sec. 2): ``y`` is
the label, ``q`` what the teacher says, ``H`` the cross entropy, ``S_T`` the softmax of the network's logits
over T. The teacher's logits over T would give ``q_T``, which is ``q^(1/T)`` scaled to sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import LABEL

from ...class_names import class_numbers
from ...loading.order.skipping import SkippedChunk
from ..interfaces import TrainLoader
from ..settings import TEACHER
from .losses import Reduction

__all__ = ["DistillationLoss", "TaughtBatches"]


class DistillationLoss:
    """The loss of images whose labels come with the probabilities of a teacher, see `TaughtBatches`.

    Parameters
    ----------
    share : float
        The ``a`` above, in [0, 1].
    temperature : float
        The ``T`` above, at least 1.
    label_smoothing : float
        Share of each label, but not of the teacher's probabilities, that is spread evenly over all classes.
    class_weights : float32 [classes], optional
        Factors on the losses of images, by their labels; both terms have them.
    """

    def __init__(
        self,
        share: float,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> None:
        self._share, self._temperature = share, temperature
        self._label_smoothing, self._class_weights = label_smoothing, class_weights

    def __call__(self, outputs: torch.Tensor, wanted: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        """Return the loss, in nats; `wanted` is float32 [n, 2 classes]: labels, then the teacher's."""
        labels, taught = wanted.tensor_split(2, dim=1)
        temperature = self._temperature
        if temperature != 1:
            taught = taught.pow(1 / temperature)
            taught = taught / taught.sum(1, keepdim=True)
        hard = functional.cross_entropy(
            outputs, labels, reduction="none", label_smoothing=self._label_smoothing
        )
        soft = functional.cross_entropy(outputs / temperature, taught, reduction="none")
        each = (1 - self._share) * hard + self._share * temperature**2 * soft
        if self._class_weights is not None:
            each = each * (labels @ self._class_weights)
        return each.mean() if reduction == "mean" else each.sum()


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
