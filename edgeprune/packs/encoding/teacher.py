"""The probabilities that a trained network gives images, as a column of their pack."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.limits import MAX_COLUMNS
from edgeprune_formats.targets import Column, Target, decode_rows, encode_target, stored_shape
from edgeprune_runtime.class_names import class_numbers
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.system.devices import resolve_device
from edgeprune_runtime.training.run_folder.unfinished import open_run_network
from edgeprune_runtime.training.settings import TEACHER

from ...sources import Source, source_targets
from ...sources.check import Piece

__all__ = ["PackTeacher", "TeacherColumn", "teacher_column"]

# The likeliest classes that are stored: two or three bytes each. Of few classes all are, a byte each.
_TOP = 3
_TOP_OF_MANY, _MANY = 5, 256
_BATCH, _BATCH_BYTES = 256, 32 * 2**20


def teacher_column(class_names: Sequence[str]) -> Column:
    """Return the column of a teacher's probabilities: as few bytes an image as keep what they say.

    All classes in a byte each, up to six of them; else the three likeliest in two bytes each; of more than
    256 classes the five likeliest in three bytes each (Shen and Xing, 2022).
    """
    top = _TOP if len(class_names) <= _MANY else _TOP_OF_MANY
    whole = len(class_names) <= 2 * top
    return Column(TEACHER, "probabilities", tuple(class_names), dtype="uint8", top=0 if whole else top)


class PackTeacher:
    """The network of a run, and what it has said of images so far.

    Parameters
    ----------
    run : path
        The folder of a run of ``edgeprune train``, finished or not, see
        `edgeprune_runtime.training.run_folder.unfinished.open_run_network`.
    device : str
        Where it computes: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    remember : bool
        Keep what was said of each image, by its digest, for builds that follow, as with a budget.

    Raises
    ------
    ConfigError
        There is no such folder or device, or it has learned no classes, or does not say their names.
    TrainingError
        It holds no network, or a damaged one.
    """

    def __init__(self, run: str | Path, device: str = "auto", *, remember: bool = False) -> None:
        network = open_run_network(Path(run))
        if not network.task.is_ranked:
            raise ConfigError(f"{run}: has learned {network.task}; a teacher tells classes apart")
        if network.class_names is None:
            raise ConfigError(
                f"{run}: does not name its classes, and they are matched by name; train it from a pack"
            )
        self.path, self.class_names, self.image_shape = network.path, network.class_names, network.image_shape
        self.stage = network.stage
        self.identity = network.identity() | ({} if self.stage is None else {"stage": self.stage})
        self._device = resolve_device(device)
        self._network = network.on_images().to(self._device)
        # Threads that encode ask one after the other: the network takes all processors by itself.
        self._asked = threading.Lock()
        self._known: dict[bytes, bytes] | None = {} if remember else None
        self._column: Column | None = None

    def for_source(self, source: Source, class_names: Sequence[str] | None = None) -> TeacherColumn:
        """Return what gives the column of a source's images.

        Parameters
        ----------
        source : Source
        class_names : sequence of str, optional
            Of the pack, where they are not those of the source; the column has their order.

        Raises
        ------
        ConfigError
            Images of another shape, other classes, or a target of the source that has the column's name.
        """
        if source.shape != self.image_shape:
            raise ConfigError(
                f"{source.spec} has images {source.shape}, and {self.path} takes {self.image_shape}; give "
                "the `size` and `channels` that it was trained with, or train another"
            )
        names = tuple(source.class_names if class_names is None else class_names)
        order = class_numbers(names, self.class_names)
        lacking = [name for name, number in zip(names, order, strict=True) if number is None]
        more = set(range(len(self.class_names))) - set(order)
        if lacking or more:
            odd, knows = (lacking[0], "does not know") if lacking else (self.class_names[min(more)], "knows")
            raise ConfigError(
                f"{self.path}: {knows} class {odd!r}, which {source.spec} {'has' if lacking else 'lacks'}; a "
                "`teacher` has learned the very classes of the pack, matched by name"
            )
        self._require_room(source)
        column = teacher_column(names)
        with self._asked:
            if column != self._column:
                self._column, self._known = column, None if self._known is None else {}
        return TeacherColumn(self, column, np.array(order, np.int64))

    @staticmethod
    def _require_room(source: Source) -> None:
        own = [target.column.name for target in source_targets(source)]
        if TEACHER in own:
            raise ConfigError(f"{source.spec}: has target {TEACHER!r} already; leave it or `teacher` out")
        if len(own) == MAX_COLUMNS:
            raise ConfigError(f"{source.spec}: `teacher` would be target {MAX_COLUMNS + 1}; leave one out")

    def probabilities(self, pixels: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
        """Return the probabilities of the classes, averaged over each image and its mirror image.

        Parameters
        ----------
        pixels : uint8 or uint16 [n, C, H, W]

        Returns
        -------
        float32 [n, classes]
            In the order of `class_names`.

        Raises
        ------
        TrainingError
            They are not finite.
        """
        step = max(1, min(_BATCH, _BATCH_BYTES // (4 * math.prod(self.image_shape))))
        found = np.concatenate([self._ask(pixels[at : at + step]) for at in range(0, len(pixels), step)])
        if not np.isfinite(found).all():
            raise TrainingError(f"{self.path}: its probabilities are not finite; train it again")
        return found

    @torch.inference_mode()
    def _ask(self, pixels: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
        scaled = pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
        images = torch.from_numpy(scaled).to(self._device)
        both = [self._network(some).float().softmax(1) for some in (images, images.flip(3))]
        mean: NDArray[np.float32] = ((both[0] + both[1]) / 2).cpu().numpy()
        return mean

    def stored(self, piece: Piece, column: Column, order: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the rows of a column, as they are stored, of images that were read."""
        with self._asked:
            known = {} if self._known is None else self._known
            keys = [digest.tobytes() for digest in piece.digests]
            new = np.array([place for place, key in enumerate(keys) if key not in known], np.intp)
            if len(new):
                said = self.probabilities(piece.pixels[new])[:, order]
                rows = encode_target(Target(column, said), len(new))
                known |= {keys[place]: row.tobytes() for place, row in zip(new, rows, strict=True)}
        shape = (len(keys), *stored_shape(column, len(keys))[1:])
        return np.frombuffer(b"".join(known[key] for key in keys), np.uint8).reshape(shape)


@dataclass(frozen=True, eq=False)
class TeacherColumn:
    """A teacher's probabilities of the classes of one pack.

    Attributes
    ----------
    teacher : PackTeacher
    column : Column
    order : int64 [classes]
        The teacher's number of each class of the column.
    """

    teacher: PackTeacher
    column: Column
    order: NDArray[np.int64]

    def rows(self, piece: Piece) -> NDArray[np.uint8]:
        """Return the column's rows of images that were read, as they are stored; threads may share it."""
        return self.teacher.stored(piece, self.column, self.order)

    def target(self, rows: Sequence[NDArray[np.uint8]]) -> Target:
        """Return the column of all images, of which `rows` were told one after the other."""
        stored: NDArray[Any] = np.concatenate(rows)
        return Target(self.column, stored if self.column.top else decode_rows(self.column, stored))
