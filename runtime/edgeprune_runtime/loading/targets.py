"""What batches hold beside the images: the named columns of a pack, or of several."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack
from edgeprune_formats.targets import LABEL, Column

from ..checks import shortened
from ..class_names import same_classes
from .mixture import Mixture

__all__ = ["DEFAULT_TARGETS", "TargetReader", "column_of"]

DEFAULT_TARGETS = (LABEL,)


class _Decoder(Protocol):
    def labels(self, labels: NDArray[Any], /) -> Any: ...

    def receive(self, images: Any, labels: Any, /) -> None: ...


class TargetReader:
    """Reads some columns of a pack or of several, by the numbers of images.

    Parameters
    ----------
    packs : Pack or Mixture
    names : sequence of str
        The columns, in the order in which batches have them.

    Attributes
    ----------
    columns : tuple of Column

    Raises
    ------
    ConfigError
        A pack lacks one, or two packs differ in its kind or classes.
    """

    def __init__(self, packs: Pack | Mixture, names: Sequence[str]) -> None:
        if isinstance(names, str):
            raise ConfigError(f'`targets` is a sequence of names; write targets=("{names}",)')
        if not isinstance(names, Iterable):
            raise ConfigError(f"`targets` is {shortened(names)}; it must be a sequence of names")
        self.columns = tuple(column_of(packs, name) for name in names)
        self._packs = packs
        self._members = packs.packs if isinstance(packs, Mixture) else (packs,)
        self._starts = np.cumsum([0, *map(len, self._members)])

    @cached_property
    def content(self) -> int | None:
        """CRC-32 of the columns other than the label, as they are stored; None where there are none."""
        names = [column.name for column in self.columns if column.name != LABEL]
        found = 0
        for member, name in itertools.product(self._members, names):
            found = member.targets[name].checksum(found)
        return found if names else None

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Return the values of some images, an array for each column.

        Raises
        ------
        PackFormatError
            A column is damaged.
        """
        return tuple(self._read(column, rows) for column in self.columns)

    def batch(self, rows: NDArray[np.int64], decoder: _Decoder) -> tuple[Any, ...]:
        """Return the values of some images as a batch has them: beside the images, and text as a list."""
        return tuple(
            values.tolist() if values.dtype == object else decoder.labels(values)
            for values in self.read(rows)
        )

    def samples(self, rows: NDArray[np.int64]) -> list[tuple[Any, ...]]:
        """Return the values of some images one by one; plain numbers and text as Python has them."""
        columns = [values.tolist() if values.ndim == 1 else list(values) for values in self.read(rows)]
        return list(zip(*columns, strict=True)) if columns else [()] * len(rows)

    def receive(self, decoder: _Decoder, images: Any, targets: Sequence[Any]) -> None:
        """Make a batch that another thread decoded ready for use in this one."""
        for values in [one for one in targets if not isinstance(one, list)] or [images]:
            decoder.receive(images, values)

    def _read(self, column: Column, rows: NDArray[np.int64]) -> NDArray[Any]:
        if column.name == LABEL:
            labels: NDArray[np.int64] = self._packs.labels[rows]
            return labels
        if len(self._members) == 1:
            return self._members[0].targets[column.name].read(rows)
        member_of = np.searchsorted(self._starts, rows, side="right") - 1
        batch: Any = None
        for number in np.unique(member_of).tolist() or [0]:
            places = np.nonzero(member_of == number)[0]
            values = self._members[number].targets[column.name].read(rows[places] - self._starts[number])
            batch = np.empty((len(rows), *values.shape[1:]), values.dtype) if batch is None else batch
            batch[places] = values
        return np.asarray(batch)


def column_of(packs: Pack | Mixture, name: str) -> Column:
    """Return a column that a pack has, or that all of several have alike.

    Raises
    ------
    ConfigError
        A pack lacks it, or two packs differ in its kind or classes.
    """
    if name == LABEL and packs.header.class_names:
        return Column(LABEL, "class", packs.header.class_names)
    members = packs.packs if isinstance(packs, Mixture) else (packs,)
    found: list[Column] = []
    for pack in members:
        targets = pack.targets
        if name not in targets:
            known = ", ".join(targets) or "none"
            raise ConfigError(f"{pack.path}: has no target {name!r}; those it has: {known}")
        found.append(targets[name].column)
        problem = _difference(found[0], found[-1])
        if problem is not None:
            raise ConfigError(f"{pack.path}: target {name!r} {problem} than in {members[0].path}")
    return found[0]


def _difference(first: Column, other: Column) -> str | None:
    if other.kind != first.kind:
        return f"is of kind {other.kind}, which is another"
    if not same_classes(other.classes, first.classes):
        return "has other classes, or another order,"
    if other.width != first.width:
        return f"has {other.width} numbers an image, which are others"
    return f"is in {other.unit or 'no unit'}, which is another" if other.unit != first.unit else None
