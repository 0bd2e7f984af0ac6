"""The batches of an epoch: which images each has, read, decoded, augmented, and with their targets."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack, PackChecksumError, PackFormatError, Problem

from ..decode.augmentation import Augmentation, LoaderAugment, draw, geometry
from .chunks.buffers import Ring
from .chunks.reader import Reader
from .mixture import Mixture
from .order.ranks import RankShare
from .order.replay import ReplayOrder
from .order.sampling import Sampling
from .order.skipping import EpochRows, OnCorrupt, SkippedChunk
from .targets import TargetReader

if TYPE_CHECKING:
    from ..decode.torch_recipes import RecipeTransform

__all__ = ["Batch", "BatchMaker"]

# How often a chunk is tried again that can be read by itself and not with the others of its batch.
_RETRIES = 3

Batch = tuple[Any, tuple[Any, ...], tuple[SkippedChunk, ...]]
"""Images, targets, and what was left out up to here."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchMaker:
    """Makes batches, each from the numbers of its epoch and of itself alone.

    Attributes
    ----------
    pack, batch_size, shuffle, seed, sampling, on_corrupt, augment
        As of `PackLoader`.
    reader : Reader
        Of the images.
    targets : TargetReader
        Of what batches have beside them.
    ranks : RankShare
        Which images this process takes.
    replay : ReplayOrder, optional
        The order of epochs with old images beside new ones.
    recipe : RecipeTransform, optional
        What a preset of augmentation does to decoded batches.
    looks_ahead : bool
        Read the chunks that come next, while a batch is decoded.
    """

    pack: Pack | Mixture
    reader: Reader[Any]
    targets: TargetReader
    ranks: RankShare
    replay: ReplayOrder | None
    recipe: RecipeTransform | None
    batch_size: int
    shuffle: bool
    seed: int
    sampling: Sampling
    on_corrupt: OnCorrupt
    augment: LoaderAugment
    looks_ahead: bool

    def __len__(self) -> int:
        """Return the batches in an epoch."""
        images = len(self.pack) if self.replay is None else len(self.replay)
        full, rest = divmod(self.ranks.count(images), self.batch_size)
        return full + (rest > 0 and not self.ranks.drop_rest)

    def decoded(
        self, epoch: int, first: int, skipped: tuple[SkippedChunk, ...], ring: Ring | None
    ) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from number `first` on, into memory of `ring` where there is one.

        Raises
        ------
        PackFormatError
            A chunk is damaged, and all others too or `on_corrupt` is ``"fail"``.
        """
        epoch_rows = self._epoch_rows(epoch, skipped)
        for batch in range(first, len(self)):
            out = None if ring is None else ring.take(len(epoch_rows.take(*self._span(batch))))
            images, rows = self._read(epoch_rows, epoch, batch, out)
            targets = self.targets.batch(rows, self.reader.decoder)
            if self.recipe is not None:
                number = self.ranks.batch_number(batch)
                keys = self._augmentation_keys(epoch_rows, rows, batch)
                images, targets = self.recipe(images, targets, keys, epoch, number)
            yield images, targets, epoch_rows.skipped

    def images_in_chunks(self) -> list[int]:
        """Return how many images each chunk holds."""
        counts: list[int] = np.bincount(self.reader.cache.chunk_of(np.arange(len(self.pack)))).tolist()
        return counts

    def _augmentation_keys(
        self, epoch_rows: EpochRows, rows: NDArray[np.int64], batch: int
    ) -> NDArray[np.int64]:
        """Return what a preset's random numbers go by, so that an image that repeats differs each time."""
        first = self._span(batch)[0]
        if self.replay is not None or self.sampling == "balanced":
            return self.ranks.places(first, len(rows))
        # Where chunks are left out, an epoch takes its first images again.
        rounds = (first + np.arange(len(rows))) // len(epoch_rows)
        return rows + rounds * len(self.pack)

    def _epoch_rows(self, epoch: int, skipped: tuple[SkippedChunk, ...]) -> EpochRows:
        cache = self.reader.cache
        labels = self.pack.labels if self.sampling == "balanced" else None
        draw: Callable[..., NDArray[np.int64]] = partial(cache.order, labels=labels)
        if self.replay is not None:
            assert isinstance(cache.window, list)
            draw = partial(self.replay.epoch, cache.window)
        order = self.ranks.of(draw(seed=self.seed, epoch=epoch, shuffle=self.shuffle))
        old = None if self.replay is None else self.replay.is_old(order)
        return EpochRows(order, cache.chunk_of(order), skipped, old)

    def _span(self, batch: int) -> tuple[int, int]:
        """Return the places of a batch in the epoch."""
        return batch * self.batch_size, (batch + 1) * self.batch_size

    def _read(
        self, epoch_rows: EpochRows, epoch: int, batch: int, out: Any | None
    ) -> tuple[Any, NDArray[np.int64]]:
        """Return the images of a batch and their rows, without chunks that cannot be read."""
        retries = _RETRIES
        while True:
            start, stop = self._span(batch)
            rows = epoch_rows.take(start, stop)
            augmentation = self._augmentation(epoch, batch, rows)
            try:
                upcoming = epoch_rows.upcoming(stop) if self.looks_ahead else None
                return self.reader.images(rows, augmentation, upcoming, out), rows
            except PackFormatError as error:
                if self.on_corrupt == "fail" or not retries:
                    raise
                found = self.reader.unreadable(rows)
                for chunk, reason in found.items():
                    epoch_rows.leave_out(chunk, self.images_in_chunks()[chunk], str(reason))
                if not len(epoch_rows):
                    raise _nothing_left(error) from error
                retries = _RETRIES if found else retries - 1

    def _augmentation(self, epoch: int, batch: int, rows: NDArray[np.int64]) -> Augmentation | None:
        plan = self.reader.decoder.plan
        return draw(
            geometry(self.augment),
            seed=self.seed,
            epoch=epoch,
            batch=self.ranks.batch_number(batch),
            count=len(rows),
            height=plan.height,
            width=plan.width,
            images=rows,
        )


def _nothing_left(error: PackFormatError) -> PackFormatError:
    message = "none of the chunks can be read; copy the file again"
    return PackChecksumError(error.path, Problem("checksum", "/samples", message))
