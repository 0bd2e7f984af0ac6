"""What every source of images offers to the builder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.targets import Target

__all__ = ["Rows", "Source", "source_bits", "source_targets"]

Rows = Sequence[int] | NDArray[np.intp]


class Source(Protocol):
    """Labeled images of one size, read in pieces of any size and order.

    A source holds labels and names; pixels stay where they are, or in one array, until `read` asks for
    them. Rows count from 0 and never change while the files behind the source stay the same.

    A source may have ``notes``, a tuple of lines that a user should see of how it was understood, and
    ``targets``, a sequence of `edgeprune_formats.targets.Target`: columns of values for all N images. One
    that has such may have no classes: no names, and labels that are all 0. It may have ``bits``, 16 where
    `read` gives uint16.
    """

    @property
    def spec(self) -> str:
        """The text that `open_source` was given."""
        ...

    @property
    def split(self) -> str:
        """``"train"`` or ``"test"``."""
        ...

    @property
    def license(self) -> str | None:
        """The license of the images; None where it is not known."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, in the order of the labels."""
        ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N], each in ``0 .. len(class_names) - 1``."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    def __len__(self) -> int:
        """Return the number of images N."""
        ...

    def name(self, row: int) -> str:
        """Return how a message calls image `row`: its file or its place in an array."""
        ...

    def read(self, rows: Rows) -> NDArray[np.uint8 | np.uint16]:
        """Read some images; may be called from several threads at once, and after a fork.

        Parameters
        ----------
        rows : sequence of int or NDArray[np.intp]
            [n], in any order, repetitions allowed.

        Returns
        -------
        NDArray[np.uint8] or NDArray[np.uint16]
            [n, C, H, W], in the order of `rows`.

        Raises
        ------
        SourceError
            An image cannot be read; the message names it and says why.
        """
        ...


def source_targets(source: Source) -> tuple[Target, ...]:
    """Return the columns that a source has beside its labels."""
    return tuple(getattr(source, "targets", ()))


def source_bits(source: Source) -> int:
    """Return the bits of a channel, 8 or 16."""
    return int(getattr(source, "bits", 8))
