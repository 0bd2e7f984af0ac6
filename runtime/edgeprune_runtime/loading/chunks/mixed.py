"""Batches out of several packs: what `ChunkCache` and a `Decoder` do for one, done for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, PackFormatError
from edgeprune_formats.codecs import memory_bytes
from edgeprune_formats.coefficients import Coefficients

from ...decode.augmentation import Augmentation
from ...decode.plan import DecodePlan, Decoder
from ..mixture import Mixture
from ..order.epochs import mixed_order
from .buffers import Ring
from .cache import ChunkCache, SmallCacheError, whole_bytes

__all__ = ["MixedCache", "MixedDecoder", "Share"]


@dataclass(frozen=True, eq=False)
class Share:
    """The images of a batch that are in one pack.

    Attributes
    ----------
    member : int
        Which pack.
    places : int64 [n]
        Their places in the batch, ascending.
    coefficients, where
        As `ChunkCache.find` gives them.
    """

    member: int
    places: NDArray[np.int64]
    coefficients: Coefficients
    where: NDArray[np.int64]


class MixedCache:
    """The caches of all packs of a mixture, with rows and chunks numbered one pack after another.

    The bound is shared out by what each pack takes decoded, so that each holds about the same part of its
    chunks.

    Parameters
    ----------
    mixture : Mixture
    cache_bytes, prefetch
        As in `ChunkCache`.

    Attributes
    ----------
    window : list of int
        For each pack, as in `ChunkCache`.
    """

    def __init__(self, mixture: Mixture, cache_bytes: int, *, prefetch: bool = False) -> None:
        headers = [pack.header for pack in mixture.packs]
        weights = [header.chunks * header.chunk_samples * memory_bytes(header) for header in headers]
        self._shares = [weight / sum(weights) for weight in weights]
        cache_bytes = whole_bytes(cache_bytes)
        self.members = [
            ChunkCache(pack, max(1, int(cache_bytes * share)), prefetch=prefetch)
            for pack, share in zip(mixture.packs, self._shares, strict=True)
        ]
        self._starts = np.cumsum([0, *(header.samples for header in headers)])
        self._first_chunks = np.cumsum([0, *(header.chunks for header in headers)])
        self._chunk_samples = np.array([header.chunk_samples for header in headers])

    @property
    def window(self) -> list[int]:
        """How many decoded chunks each pack holds for use."""
        return [member.window for member in self.members]

    def resume(self, window: object) -> None:
        """Hold as many decoded chunks of each pack for use as when a state was taken.

        Raises
        ------
        ConfigError
            It is no window of these packs, or, as `SmallCacheError`, one that does not fit the bound.
        """
        sizes = window if isinstance(window, list) else []
        members = list(zip(self.members, sizes, self._shares, strict=False))
        if len(sizes) != len(self.members) or not all(one.has_window(size) for one, size, _ in members):
            raise ConfigError(f"cannot resume: window is {window}")
        if any(size > member.slots for member, size, _ in members):
            # One chunk fits whatever the bound.
            need = max(math.ceil(one.bytes_for(size) / share) + 1 for one, size, share in members if size > 1)
            raise SmallCacheError(need)
        for member, size, _ in members:
            member.resume(size)

    def order(
        self, *, seed: int, epoch: int, shuffle: bool, labels: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[np.int64]:
        """Return the images of one epoch in visiting order, int64 [N]; see `mixed_order`."""
        sizes = [(member.pack.header.samples, member.pack.header.chunk_samples) for member in self.members]
        return mixed_order(sizes, self.window, seed=seed, epoch=epoch, shuffle=shuffle, labels=labels)

    def chunk_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the chunks that images are in."""
        member = self._member_of(rows)
        chunk = (rows - self._starts[member]) // self._chunk_samples[member]
        return np.asarray(self._first_chunks[member] + chunk)

    def prepare(self, chunks: NDArray[np.int64]) -> None:
        """Start to decode the chunks that are needed next, as `ChunkCache.prepare` in each pack."""
        member_of = np.searchsorted(self._first_chunks, chunks, side="right") - 1
        for number, member in enumerate(self.members):
            member.prepare(chunks[member_of == number] - self._first_chunks[number])

    def find(self, rows: NDArray[np.int64]) -> tuple[list[Share], NDArray[np.int64]]:
        """Return the images at `rows` pack by pack, and `rows`.

        Raises
        ------
        PackFormatError
            A chunk is damaged.
        """
        member_of, shares = self._member_of(rows), []
        for number in np.unique(member_of).tolist():
            places = np.nonzero(member_of == number)[0]
            coefficients, where = self.members[number].find(rows[places] - self._starts[number])
            shares.append(Share(number, places, coefficients, where))
        return shares, rows

    def unreadable(self, rows: NDArray[np.int64]) -> dict[int, PackFormatError]:
        """Return the chunks of the images at `rows` that cannot be read, as `ChunkCache.unreadable`."""
        member_of, found = self._member_of(rows), {}
        for number in np.unique(member_of).tolist():
            inside = rows[member_of == number] - self._starts[number]
            for chunk, error in self.members[number].unreadable(inside).items():
                found[int(self._first_chunks[number]) + chunk] = error
        return found

    def _member_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, rows, side="right") - 1


class MixedDecoder:
    """A decoder for each pack of a mixture, of the same backend, device and dtype.

    Attributes
    ----------
    plan : DecodePlan
        Of the first pack; all decode to the same size with the same normalization.
    """

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = list(decoders)
        self._parts = [Ring(decoder.room, 1) for decoder in decoders]

    @property
    def plan(self) -> DecodePlan:
        """How the first pack is decoded."""
        return self._decoders[0].plan

    @property
    def in_background(self) -> bool:
        """Whether another thread may decode, as `Decoder.in_background`."""
        return all(decoder.in_background for decoder in self._decoders)

    def room(self, count: int) -> Any | None:
        """Return memory for so many images, as `Decoder.room`."""
        return self._decoders[0].room(count)

    def images(
        self,
        shares: list[Share],
        rows: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        out: Any | None = None,
    ) -> Any:
        """Return the images of a batch, [n, C, h, w], in its order; `out`, if given."""
        if len(shares) == 1:
            share = shares[0]
            return self._decoders[share.member].images(share.coefficients, share.where, augmentation, out)
        batch = out
        for share in shares:
            part = None if augmentation is None else augmentation.take(share.places)
            room = None if out is None else self._parts[share.member].take(len(share.places))
            images = self._decoders[share.member].images(share.coefficients, share.where, part, room)
            batch = _room_for(images, len(rows)) if batch is None else batch
            batch[share.places] = images
        return batch

    def labels(self, labels: NDArray[np.int64]) -> Any:
        """Return labels beside the images."""
        return self._decoders[0].labels(labels)

    def receive(self, images: Any, labels: Any) -> None:
        """Make a batch that another thread decoded ready for use in this one."""
        self._decoders[0].receive(images, labels)


def _room_for(images: Any, count: int) -> Any:
    """Return room for so many images as these, arrays or tensors."""
    shape = (count, *images.shape[1:])
    return np.empty(shape, images.dtype) if isinstance(images, np.ndarray) else images.new_empty(shape)
