"""Lower resolutions for the first epochs of a run. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from edgeprune_formats import ConfigError

from ...checks import shortened

__all__ = ["ResolutionSchedule"]

_STAGE = re.compile(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?:([1-9]\d{0,5})", re.ASCII)


@dataclass(frozen=True)
class ResolutionSchedule:
    """Which resolution each epoch is decoded at (progressive resizing).

    Attributes
    ----------
    stages : tuple of (size, epochs)
        Sizes that rise, a side in pixels or (height, width), and for how many epochs each. The epochs that
        follow are not reduced, so without any stage none is.
    """

    stages: tuple[tuple[int | tuple[int, int], int], ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> ResolutionSchedule:
        """Return the schedule that ``SIZE:EPOCHS,...`` names, such as ``32:6,48:3`` or ``24x32:6``.

        Raises
        ------
        ConfigError
            It names none, or sizes do not rise.
        """
        if text is None:
            return cls()
        found = [_STAGE.fullmatch(part) for part in text.split(",")] if isinstance(text, str) else [None]
        stages = tuple(
            ((int(one[1]), int(one[2])) if one[2] else int(one[1]), int(one[3])) for one in found if one
        )
        if len(stages) < len(found):
            raise ConfigError(
                f"`resolution_schedule` is {shortened(text)}; it is SIZE:EPOCHS, or several with commas, "
                "of whole numbers from 1 and without spaces, such as 32:6,48:3; or 24x32:6 for images that "
                "are not square"
            )
        sizes = cls(stages).sizes
        if not all(a != b and a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(sizes)):
            raise ConfigError(
                f"`resolution_schedule` is {shortened(text)}; each size must be larger than the last"
            )
        return cls(stages)

    def __str__(self) -> str:
        return ",".join(
            f"{size if isinstance(size, int) else 'x'.join(map(str, size))}:{epochs}"
            for size, epochs in self.stages
        )

    @property
    def epochs(self) -> int:
        """How many epochs the stages have together."""
        return sum(epochs for _, epochs in self.stages)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each stage."""
        return tuple((size, size) if isinstance(size, int) else size for size, _ in self.stages)

    def size(self, epoch: int) -> int | tuple[int, int] | None:
        """Return the size of an epoch, counted from 0; None after the stages."""
        for size, epochs in self.stages:
            if epoch < epochs:
                return size
            epoch -= epochs
        return None
