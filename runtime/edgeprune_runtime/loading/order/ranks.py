"""The images of an epoch shared out to the processes of a group."""

from __future__ import annotations

import functools
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from ...checks import whole_number

__all__ = ["RankShare", "rank_share"]


@dataclass(frozen=True)
class RankShare:
    """Which images of an epoch one process takes: every `world_size`-th, from number `rank` on.

    So the batches of all processes at one step are together a batch of `world_size` times the size.

    Attributes
    ----------
    rank, world_size : int
    given : bool
        Whether the caller said so, and knows what each process gets.
    drop_rest : bool
        Leave out the last images of the epoch where their number cannot be divided. Otherwise the first ones
        are taken again, so that all processes have equally many, as torch's DistributedSampler does.
    """

    rank: int
    world_size: int
    given: bool
    drop_rest: bool

    def count(self, samples: int) -> int:
        """Return how many of so many images this process takes."""
        return (samples if self.drop_rest else samples + self.world_size - 1) // self.world_size

    def of(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's images of an epoch, in visiting order."""
        if self.world_size == 1:
            return order
        return order[self.places(0, self.count(len(order))) % len(order)]

    def places(self, first: int, count: int) -> NDArray[np.int64]:
        """Return the places in the epoch of so many of this process's images, from number `first` on."""
        return self.rank + self.world_size * np.arange(first, first + count, dtype=np.int64)

    def batch_number(self, batch: int) -> int:
        """Return a number that no other batch of the epoch has in any process."""
        return batch * self.world_size + self.rank

    def warn_if_alone(self) -> None:
        """Warn once where there are other processes, and nobody said what this one is to take."""
        # Asked of torch only where it is loaded: otherwise there is no group.
        group: Any = sys.modules.get("torch.distributed")
        if self.given or group is None or not (group.is_available() and group.is_initialized()):
            return
        if group.get_world_size() > 1:
            _warn(group.get_world_size())


@functools.cache
def _warn(count: int) -> None:
    warnings.warn(
        f"each of the {count} processes gets the same images; pass `rank` and `world_size` to PackLoader to "
        "share them out, or rank=0 and world_size=1 if that is what you want",
        stacklevel=4,
    )


def rank_share(rank: int | None, world_size: int | None, *, drop_rest: bool) -> RankShare:
    """Return the share of a process; that of the only one, if neither is given.

    Raises
    ------
    ConfigError
        One is given without the other, or there is no such process.
    """
    if rank is None and world_size is None:
        return RankShare(0, 1, given=False, drop_rest=drop_rest)
    if rank is None or world_size is None:
        raise ConfigError("`rank` and `world_size` go together; give both or none")
    rank, world_size = whole_number("rank", rank), whole_number("world_size", world_size)
    if world_size < 1:
        raise ConfigError(f"`world_size` must be at least 1, not {world_size}")
    if not 0 <= rank < world_size:
        raise ConfigError(
            f"`rank` is {rank} and `world_size` {world_size}; it must be from 0 to {world_size - 1}"
        )
    return RankShare(rank, world_size, given=True, drop_rest=drop_rest)
