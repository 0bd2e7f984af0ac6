"""Replay: each batch has a fixed share of old images beside the new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack

from ...checks import check_types
from ..mixture import Mixture
from .epochs import mixed_order

__all__ = ["Replay", "ReplayOrder", "replay_order"]

# Of the draws of old images, which must not be those of the new ones. No other seed ends so.
_OLD_STREAM = (0, 5)


@dataclass(frozen=True)
class Replay:
    """How much of each batch is old images, and which packs are new.

    Attributes
    ----------
    share : float
        Of old images in each batch, above 0 and below 1, rounded to whole images; at least one old and one
        new image.
    new_packs : int
        So many packs, the last ones, are new; those before them are old.

    Raises
    ------
    ConfigError
        A value of another type than its field, or out of range.
    """

    share: float
    new_packs: int = field(
        default=1,
        metadata={
            "help": "With --replay: how many PACKs are new, counted from the last. The others are old."
        },
    )

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.share < 1:
            raise ConfigError(f"`Replay.share` must be above 0 and below 1, not {self.share:g}")
        if self.new_packs < 1:
            raise ConfigError(f"`Replay.new_packs` must be at least 1, not {self.new_packs}")


@dataclass(frozen=True)
class ReplayOrder:
    """Which images an epoch with replay visits: each new image once, and as many old ones as fill the share.

    Old images come from one endless sequence of shuffles of all of them. Each epoch goes on where the one
    before it ended, so over epochs each comes equally often.

    Parameters
    ----------
    packs : Mixture
    replay : Replay
    batch_size : int

    Attributes
    ----------
    old_in_batch : int
        Old images in a full batch. A last batch that is not full has the same share of them, rounded.
    old, new : int
        Images in the old packs, and in the new ones.

    Raises
    ------
    ConfigError
        There are no old packs, or a batch has no room for both.
    """

    packs: Mixture
    replay: Replay
    batch_size: int

    def __post_init__(self) -> None:
        packs, new = len(self.packs.packs), self.replay.new_packs
        if new >= packs:
            raise ConfigError(
                f"replay needs old packs beside new ones, and of {packs} packs the last {new} are new; give "
                "old packs before them, or lower `Replay.new_packs`"
            )
        if self.batch_size < 2:
            raise ConfigError("replay needs batches of an old and a new image; raise `batch_size`")

    @property
    def old_in_batch(self) -> int:
        """Old images in a full batch."""
        return min(max(round(self.replay.share * self.batch_size), 1), self.batch_size - 1)

    @property
    def old(self) -> int:
        """Images in the old packs."""
        return sum(samples for samples, _ in self._sizes[: -self.replay.new_packs])

    @property
    def new(self) -> int:
        """Images in the new packs."""
        return sum(samples for samples, _ in self._sizes[-self.replay.new_packs :])

    def __len__(self) -> int:
        """Return the images in an epoch, old and new."""
        return self.new + self._old_in_epoch

    def epoch(self, windows: Sequence[int], *, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
        """Return the images of an epoch in visiting order, int64 [len(self)]; arguments as `mixed_order`.

        Within a batch old and new images are shuffled with `shuffle`; without it the old ones come first.
        """
        count = self.replay.new_packs
        draw = partial(mixed_order, seed=seed, shuffle=shuffle)
        new = self.old + draw(self._sizes[-count:], windows[-count:], epoch=epoch)
        start = epoch * self._old_in_epoch
        passes = range(start // self.old, -(-(start + self._old_in_epoch) // self.old))
        draw_old = partial(draw, self._sizes[:-count], windows[:-count], stream=_OLD_STREAM)
        shuffles = [draw_old(epoch=one) for one in passes]
        skipped = start - passes.start * self.old
        old = np.concatenate([*shuffles, new[:0]])[skipped : skipped + self._old_in_epoch]
        full, per_batch = self._full_batches, self.old_in_batch
        fresh = self.batch_size - per_batch
        batches = np.concatenate(
            [old[: full * per_batch].reshape(full, per_batch), new[: full * fresh].reshape(full, fresh)],
            axis=1,
        )
        rest = np.concatenate([old[full * per_batch :], new[full * fresh :]])
        if shuffle:
            random = np.random.default_rng([seed, epoch, 1])
            batches, rest = random.permuted(batches, axis=1), random.permutation(rest)
        return np.concatenate([batches.ravel(), rest])

    def is_old(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which images are old."""
        return np.asarray(rows < self.old)

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        headers = [pack.header for pack in self.packs.packs]
        return [(header.samples, header.chunk_samples) for header in headers]

    @property
    def _full_batches(self) -> int:
        return self.new // (self.batch_size - self.old_in_batch)

    @property
    def _old_in_epoch(self) -> int:
        fresh = self.batch_size - self.old_in_batch
        rest = self.new % fresh
        return self._full_batches * self.old_in_batch + round(rest * self.old_in_batch / fresh)


def replay_order(packs: Pack | Mixture, replay: Replay | float | None, batch_size: int) -> ReplayOrder | None:
    """Return the order of epochs with replay over open packs; None without.

    Raises
    ------
    ConfigError
        As `Replay` and `ReplayOrder`, or one pack alone.
    """
    if replay is None:
        return None
    if not isinstance(packs, Mixture):
        raise ConfigError("replay needs packs of old images before the new ones, and one pack was given")
    return ReplayOrder(packs, replay if isinstance(replay, Replay) else Replay(replay), batch_size)
