"""From numbers of images to batches: the cache and the decoder that `PackLoader` and `PackDataset` share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack, PackFormatError
from edgeprune_formats.coefficients import Coefficients
from edgeprune_formats.remote.locations import PackPath, RemoteFile

from ...decode.augmentation import Augmentation
from ...decode.backends import Backend, make_decoder
from ...decode.plan import DecodePlan, Normalize, Resolution, check_batch, make_plan
from ...system.threads import ProcessLock
from ..mixture import Mixture, open_packs
from .cache import ChunkCache
from .mixed import MixedCache, MixedDecoder, Share

if TYPE_CHECKING:
    from ...decode.dtypes import Device, Dtype

__all__ = ["Packs", "Reader", "SampleCache", "SampleDecoder", "make_reader", "open_given"]

Packs = PackPath | Pack | Mixture | Sequence[PackPath | Pack]
"""What a loader or a dataset can be made of."""

Found = TypeVar("Found")
Takes = TypeVar("Takes", contravariant=True)
Gives = TypeVar("Gives", covariant=True)


class SampleCache(Protocol[Gives]):
    """The images of a pack or of several, as they are stored: `ChunkCache` or `MixedCache`."""

    @property
    def window(self) -> int | list[int]:
        """How many decoded chunks, of each pack, are held for use."""

    def resume(self, window: object) -> None:
        """Hold as many as when a state was taken; raises `ConfigError` where it is none, or too large."""

    def order(
        self, *, seed: int, epoch: int, shuffle: bool, labels: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[np.int64]:
        """Return the images of one epoch in visiting order, int64 [N]."""

    def chunk_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the chunks that images are in."""

    def prepare(self, chunks: NDArray[np.int64]) -> None:
        """Start to decode the chunks that are needed next."""

    def find(self, rows: NDArray[np.int64]) -> tuple[Gives, NDArray[np.int64]]:
        """Return what holds the images at `rows`, and where in it they are."""

    def unreadable(self, rows: NDArray[np.int64]) -> dict[int, PackFormatError]:
        """Return the chunks of the images at `rows` that cannot be read, and why not."""


class SampleDecoder(Protocol[Takes]):
    """Makes images of what a `SampleCache` finds: a `Decoder`, or `MixedDecoder`."""

    @property
    def plan(self) -> DecodePlan:
        """Size and normalization of the images."""

    @property
    def in_background(self) -> bool:
        """Whether another thread may decode, though this one may fork meanwhile."""

    def room(self, count: int) -> Any | None:
        """Return memory for so many images, or None where reusing it saves nothing."""

    def images(
        self,
        found: Takes,
        where: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        out: Any | None = None,
        /,
    ) -> Any:
        """Return images [n, C, h, w] as an array or tensor: `out`, if given."""

    def labels(self, labels: NDArray[np.int64], /) -> Any:
        """Return labels int64 [n] beside the images."""

    def receive(self, images: Any, labels: Any, /) -> None:
        """Make a batch that another thread decoded ready for use in this one."""


@dataclass(frozen=True, eq=False)
class Reader(Generic[Found]):
    """Reads images by number; threads take turns.

    Attributes
    ----------
    cache : SampleCache
    decoder : SampleDecoder
    plans : sequence of DecodePlan
        How each pack is decoded.
    """

    cache: SampleCache[Found]
    decoder: SampleDecoder[Found]
    plans: Sequence[DecodePlan]
    _lock: ProcessLock = field(default_factory=ProcessLock, repr=False)

    def images(
        self,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        upcoming: NDArray[np.int64] | None = None,
        out: Any | None = None,
    ) -> Any:
        """Return the images at `rows`, [n, C, h, w], and meanwhile prepare the chunks that come next.

        Parameters
        ----------
        rows : int64 [n]
        augmentation : Augmentation, optional
        upcoming : int64 [m], optional
            The chunks that are needed next, the soonest first.
        out : array or tensor, optional
            Room for the images, see `SampleDecoder.room`.

        Raises
        ------
        PackFormatError
            A chunk is damaged.
        """
        with self._lock:
            found, where = self.cache.find(rows)
            if upcoming is not None:
                self.cache.prepare(upcoming)
            return self.decoder.images(found, where, augmentation, out)

    def unreadable(self, rows: NDArray[np.int64]) -> dict[int, PackFormatError]:
        """Return the chunks of the images at `rows` that cannot be read, each tried twice, and why not."""
        with self._lock:
            return self.cache.unreadable(rows)

    def sharing(self, other: Reader[Any]) -> Reader[Found]:
        """Return what decodes as this reader does, from the cache of another one of the same packs."""
        return replace(self, cache=other.cache, _lock=other._lock)

    def resume(self, window: object) -> None:
        """Take over the window of a state; see `SampleCache.resume`."""
        with self._lock:
            self.cache.resume(window)


def open_given(packs: Packs) -> Pack | Mixture:
    """Open what a loader or a dataset is made of, where it is not open.

    Raises
    ------
    OSError, ConfigError, PackFormatError, RemoteError
        As `open_packs`.
    """
    if isinstance(packs, Pack | Mixture):
        return packs
    return open_packs([packs] if isinstance(packs, str | os.PathLike | RemoteFile) else packs)


def make_reader(
    packs: Pack | Mixture,
    *,
    batch_size: int,
    backend: Backend,
    device: Device,
    dtype: Dtype,
    normalize: Normalize,
    resolution: Resolution,
    cache_bytes: int,
    prefetch: bool,
) -> Reader[Coefficients] | Reader[list[Share]]:
    """Return what reads the images of a pack or of several; the arguments are those of `PackLoader`.

    Raises
    ------
    ConfigError
        An argument out of range, or a batch that takes too much memory to decode, see `check_batch`.
    """
    if normalize is True:
        normalize = packs.header.mean, packs.header.std
    members = packs.packs if isinstance(packs, Mixture) else (packs,)
    plans = [make_plan(pack.header, normalize=normalize, resolution=resolution) for pack in members]
    for plan in plans:
        # Before a decoder is made: its bases alone can be larger than memory.
        check_batch(plan, min(batch_size, len(packs)))
    decoders = [make_decoder(backend, plan, device=device, dtype=dtype) for plan in plans]
    if isinstance(packs, Mixture):
        return Reader(MixedCache(packs, cache_bytes, prefetch=prefetch), MixedDecoder(decoders), plans)
    return Reader(ChunkCache(packs, cache_bytes, prefetch=prefetch), decoders[0], plans)
