"""Images of a pack and of its source as cards: original, decoded, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack

from ..sources import Source
from ..sources.decoding.kinds import reduced_to_8
from .names import shown
from .pictures import SIDE, Card, Picture, picture
from .preview import in_color, preview_rows

__all__ = ["Album", "Group"]

_MOST, _LEAST, _PIXELS = 240, 24, 2**21
# Values of all images that are decoded for one grid, and how many there are of the largest images.
_VALUES, _FEWEST = 2**24, 4
_LOST = "lost"


@dataclass(frozen=True)
class Group:
    """Cards of one class, or of all images where there are no classes."""

    name: str
    images: int
    cards: Sequence[Card]


@dataclass
class Album:
    """Makes cards of images.

    Attributes
    ----------
    pack : Pack
    source : Source, optional
        What it was built from.
    scores : dict
        Of rows of the source, where they are known.
    legends : dict
        What the pictures show, by their titles; filled as cards are made.
    """

    pack: Pack
    source: Source | None = None
    scores: dict[int, float] = field(default_factory=dict)
    legends: dict[str, str] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """How many images a page shows: fewer of large ones."""
        channels, height, width = self.pack.header.shape
        side = min(SIDE, max(height, width))
        count = min(_MOST, max(_LEAST, _PIXELS // side**2))
        return min(count, max(_FEWEST, _VALUES // (channels * height * width)))

    def of_pack(
        self,
        rows: Sequence[int],
        lines: Sequence[Sequence[str]] | None = None,
        only: Sequence[str] = (),
    ) -> list[Card]:
        """Return cards of rows of the pack.

        Parameters
        ----------
        rows : sequence of int
        lines : sequence of sequences of str, optional
            In place of those that say what an image is.
        only : sequence of str
            The titles of the pictures of a card; all by default.
        """
        if not rows:
            return []
        found = preview_rows(self.pack, np.array(rows, np.int64), self.source)
        kept = [row for row in found if (row.title in only if only else not row.title.startswith(_LOST))]
        self.legends.update({row.title: row.legend for row in kept})
        lines = [self.lines(row) for row in rows] if lines is None else lines
        columns = zip(*(row.images for row in kept), strict=True)
        titles = [row.title for row in kept]
        return [_card(images, titles, text) for images, text in zip(columns, lines, strict=True)]

    def of_source(self, rows: Sequence[int], lines: Sequence[Sequence[str]]) -> list[Card]:
        """Return cards of rows of the source, in the pack or not."""
        if not rows or self.source is None:
            return []
        images = in_color(reduced_to_8(self.source.read(np.array(rows, np.intp))))
        return [_card((image,), ("original",), text) for image, text in zip(images, lines, strict=True)]

    def lines(self, row: int) -> list[str]:
        """Return what stands below an image of the pack: its class, its row and its score."""
        names = self.pack.header.class_names
        lines = [shown(names[self.pack.labels[row]])] if names else []
        score = self.scores.get(int(self.pack.source_index[row]))
        return [*lines, f"row {row}", *([] if score is None else [f"score {score:.4g}"])]

    def groups(self) -> list[Group]:
        """Return images of each class; the first ones of the pack, whose order is random.

        Where there are more classes than room, so many of them, evenly spaced.
        """
        header, labels = self.pack.header, self.pack.labels
        if not header.class_names:
            rows = list(range(min(self.room, len(self.pack))))
            return [Group("all", len(self.pack), self.of_pack(rows))]
        counts = np.bincount(labels, minlength=len(header.class_names))
        present = np.nonzero(counts)[0]
        some = present[evenly(len(present), self.room)]
        first = _first_of_each(labels, some, max(1, self.room // len(some)))
        cards = iter(self.of_pack([row for rows in first for row in rows]))
        return [
            Group(shown(header.class_names[number]), int(counts[number]), [next(cards) for _ in rows])
            for number, rows in zip(some.tolist(), first, strict=True)
        ]


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` places of `count`, evenly spaced, in ascending order."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _first_of_each(labels: NDArray[np.int64], classes: NDArray[np.int64], most: int) -> list[list[int]]:
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], classes)
    ends = np.searchsorted(labels[order], classes, side="right")
    return [order[start : min(end, start + most)].tolist() for start, end in zip(starts, ends, strict=True)]


def _card(images: Sequence[NDArray[Any]], titles: Sequence[str], lines: Sequence[str]) -> Card:
    pictures: tuple[Picture, ...] = tuple(
        picture(image, f"{title}: {', '.join(lines)}") for image, title in zip(images, titles, strict=True)
    )
    return Card(pictures, tuple(lines))
