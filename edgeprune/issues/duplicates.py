"""Near duplicates: images whose perceptual hashes differ in few bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from .hashing import bit_counts

__all__ = ["DISTANCE", "MAX_DISTANCE", "Duplicates", "Fingerprints", "find_duplicates", "require_distance"]

# With more, the first words of many pairs are near by chance, and comparing the second takes far longer.
DISTANCE, MAX_DISTANCE = 20, 24
# Images compared with images at a time: a megabyte or two, which stays in the processor's cache.
_ROWS, _COLUMNS = 64, 4096
_PAIR = np.dtype([("one", np.int64), ("other", np.int64), ("bits", np.uint8), ("mirrored", bool)])


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """What is compared of N images.

    Attributes
    ----------
    rows : int64 [N]
        Ascending.
    hashes, mirrored, present : uint64 [N, words]
        See `edgeprune.issues.hashing.perceptual_hashes`.
    digests : uint64 [N, 2]
        Equal for equal pixels.
    """

    rows: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    present: NDArray[np.uint64]
    digests: NDArray[np.uint64]

    @classmethod
    def joined(cls, parts: Iterable[Fingerprints]) -> Fingerprints:
        """Return those of several parts in their order."""
        names = ("rows", "hashes", "mirrored", "present", "digests")
        columns = zip(*([getattr(part, name) for name in names] for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which of N images are near duplicates of one before them.

    Attributes
    ----------
    rows : int64 [N]
    first : int64 [N]
        For each image, the place in `rows` of the first image of its group: its own where there is none
        before it.
    distance : uint8 [N]
        Bits in which its hash, or that of its mirror image, differs from that of the first.
    mirrored : bool [N]
        Whether it is its mirror image that is nearer to the first.
    exact : bool [N]
        Whether its pixels are those of the first.
    """

    rows: NDArray[np.int64]
    first: NDArray[np.int64]
    distance: NDArray[np.uint8]
    mirrored: NDArray[np.bool_]
    exact: NDArray[np.bool_]

    def groups(self) -> list[NDArray[np.int64]]:
        """Return the places in `rows` of the images of each group of two or more, in ascending order."""
        order = np.argsort(self.first, kind="stable")
        starts = np.nonzero(np.diff(self.first[order], prepend=-1))[0]
        return [group for group in np.split(order, starts[1:]) if len(group) > 1]


def require_distance(distance: int) -> None:
    """Raise `ConfigError` for a distance that `find_duplicates` does not take."""
    if not 0 <= distance <= MAX_DISTANCE:
        raise ConfigError(f"`distance` is 0 to {MAX_DISTANCE} bits, not {distance}")


def find_duplicates(prints: Fingerprints, distance: int = DISTANCE) -> Duplicates:
    """Group images with near duplicates: each is within `distance` bits of the first of its group.

    So many of all bits of a hash; of those that say something, of one of the two images, the same share.
    An image joins the group of the first image before it that is near enough and has not joined another's
    itself. So it is not enough to be near to an image that is near to the first. All pairs are compared, some
    at a time, so that memory grows with the number of images, and only time with its square.

    Parameters
    ----------
    prints : Fingerprints
    distance : int
        0 to `MAX_DISTANCE` bits.

    Raises
    ------
    ConfigError
        `distance` is out of range.
    """
    require_distance(distance)
    count = len(prints.rows)
    first, nearest = np.arange(count), np.zeros(count, np.uint8)
    is_mirrored = np.zeros(count, bool)
    for start in range(0, count, _ROWS):
        pairs = _near(prints, start, distance)
        # Where a pair is near both ways, the nearer one, or that of the image itself, is written last.
        pairs = pairs[
            np.lexsort((-pairs["mirrored"].astype(np.int8), -pairs["bits"].astype(np.int8), pairs["one"]))
        ]
        for own in np.split(pairs, np.nonzero(np.diff(pairs["one"]))[0] + 1):
            if len(own) and first[own["one"][0]] == own["one"][0]:
                free = own[first[own["other"]] == own["other"]]
                first[free["other"]], nearest[free["other"]] = free["one"], free["bits"]
                is_mirrored[free["other"]] = free["mirrored"]
    exact = (prints.digests == prints.digests[first]).all(axis=1) & (first != np.arange(count))
    return Duplicates(prints.rows, first, nearest, is_mirrored, exact)


def _near(prints: Fingerprints, start: int, distance: int) -> NDArray[Any]:
    """Return the pairs of some images from `start` on with near ones after them."""
    found = [np.empty(0, _PAIR)]
    for mirrored, own in enumerate((prints.hashes, prints.mirrored)):
        own = own[start : start + _ROWS]
        for column in range(start, len(prints.rows), _COLUMNS):
            others = prints.hashes[column : column + _COLUMNS]
            # The first word tells most pairs apart.
            maybe = bit_counts(own[:, None, 0] ^ others[None, :, 0]) <= distance
            one, other = np.divmod(np.flatnonzero(maybe), len(others))
            later = column + other > start + one
            one, other = one[later], other[later]
            bits = bit_counts(own[one] ^ others[other]).sum(axis=1, dtype=np.uint8)
            present = bit_counts(prints.present[start + one] | prints.present[column + other])
            near = bits <= distance * present.sum(axis=1, dtype=np.int64) // (64 * own.shape[1])
            pairs = np.empty(np.count_nonzero(near), _PAIR)
            pairs["one"], pairs["other"] = start + one[near], column + other[near]
            pairs["bits"], pairs["mirrored"] = bits[near], bool(mirrored)
            found.append(pairs)
    return np.concatenate(found)
