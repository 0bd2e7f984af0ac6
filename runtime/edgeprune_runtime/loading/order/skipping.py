"""The images of an epoch, of which those in chunks that cannot be read are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .epochs import first_needs

__all__ = ["ON_CORRUPT", "EpochRows", "OnCorrupt", "SkippedChunk"]

OnCorrupt = Literal["fail", "skip"]
ON_CORRUPT: tuple[OnCorrupt, ...] = get_args(OnCorrupt)


@dataclass(frozen=True)
class SkippedChunk:
    """A chunk that is left out, because it is damaged or cannot be read.

    Attributes
    ----------
    chunk : int
        Its number; those of several packs are numbered one pack after another.
    images : int
        How many images it holds.
    reason : str
        What is wrong with it; names the file.
    """

    chunk: int
    images: int
    reason: str


class EpochRows:
    """The images of an epoch in visiting order, without those of chunks that are left out.

    An epoch keeps its number of images: the images that follow move up, and in the end come its first ones
    again. Where images are of two groups, so it is in each: every place stays one of its group. A batch is a
    function of the order and of the chunks that were left out up to it. A damaged chunk is found at the first
    of its images, so it makes no difference when in the run it was found.

    Parameters
    ----------
    order : int64 [N]
        All images of the epoch in visiting order.
    chunk_of : int64 [N]
        The chunk of each.
    skipped : sequence of SkippedChunk
        What is left out from the start.
    group : bool [N], optional
        Of which of two groups each is.

    Attributes
    ----------
    skipped : tuple of SkippedChunk
        What is left out now.
    """

    def __init__(
        self,
        order: NDArray[np.int64],
        chunk_of: NDArray[np.int64],
        skipped: Sequence[SkippedChunk],
        group: NDArray[np.bool_] | None = None,
    ) -> None:
        self._order, self._chunk_of, self._group = order, chunk_of, group
        self._set(tuple(skipped))

    def _set(self, skipped: tuple[SkippedChunk, ...]) -> None:
        self.skipped = skipped
        lost = [one.chunk for one in skipped]
        kept = ~np.isin(self._chunk_of, lost) if lost else slice(None)
        self._rows, chunk_of = self._order[kept], self._chunk_of[kept]
        if lost and self._group is not None and len(self._rows):
            places = _filled(np.asarray(kept), self._group)
            self._rows, chunk_of = self._order[places], self._chunk_of[places]
        self._chunks, self._needed_at = first_needs(chunk_of)

    def __len__(self) -> int:
        """Return how many images are left."""
        return len(self._rows)

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the images at these places of the epoch; there must be some left."""
        stop = min(stop, len(self._order))
        if stop <= len(self._rows):
            return self._rows[start:stop]
        return self._rows[np.arange(start, stop) % len(self._rows)]

    def upcoming(self, place: int) -> NDArray[np.int64]:
        """Return the chunks that are first needed at this place or after it, the soonest first."""
        return self._chunks[np.searchsorted(self._needed_at, place) :]

    def leave_out(self, chunk: int, images: int, reason: str) -> None:
        """Leave a chunk of so many images out from now on."""
        self._set((*self.skipped, SkippedChunk(chunk, images, reason)))


def _filled(kept: NDArray[np.bool_], group: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each place which place's image comes there: the next one that is kept of its group."""
    places = np.empty(len(kept), np.int64)
    for own in (group, ~group):
        left = np.nonzero(kept & own)[0]
        left = left if len(left) else np.nonzero(kept)[0]
        count = np.count_nonzero(own)
        places[own] = left[np.arange(count) % len(left)]
    return places
