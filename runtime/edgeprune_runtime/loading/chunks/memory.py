"""Dividing a bound on memory among what loaders hold: batches, the training set's chunks, the test set's."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune_formats import ConfigError, Pack, PackHeader
from edgeprune_formats.codecs import memory_bytes

from ...system.machine import available_bytes
from ...system.threads import cores
from ..mixture import Mixture
from .cache import DEFAULT_CACHE_BYTES

__all__ = ["LoaderMemory", "default_limit", "divide_memory", "limit_for"]

_PREFETCH = 2
# One batch is being used and one is being made, whatever lies ready.
_BATCHES_UNDER_WAY = 2
_LEAST_DEFAULT = 2**25


@dataclass(frozen=True)
class LoaderMemory:
    """What a training loader and a test loader may hold.

    Attributes
    ----------
    limit : int
        The bound on all of it, in bytes.
    cache_bytes : int
        For `PackLoader` of the training pack.
    test_bytes : int
        For the test set's images.
    prefetch : int
        Batches to decode before they are asked for.
    """

    limit: int
    cache_bytes: int
    test_bytes: int
    prefetch: int


def default_limit() -> int:
    """Return the bound where none is asked for: 1 GiB, or the power of two within half of what is free.

    A power of two, so that it seldom depends on what else runs: it decides the order in which the images of a
    pack that does not fit are visited.
    """
    free = available_bytes()
    limit = DEFAULT_CACHE_BYTES
    while free is not None and limit > max(free // 2, _LEAST_DEFAULT):
        limit //= 2
    return limit


def divide_memory(
    limit: int, pack: Pack | Mixture, batch_size: int, *, test_images_bytes: int, test_least_bytes: int = 0
) -> LoaderMemory:
    """Divide `limit` bytes: first batches and what decoding needs for a moment, then the images themselves.

    Prefetched batches are given up before the images' part becomes smaller than the batches'. Of the
    images' part the test set gets what it needs, up to a quarter.

    Parameters
    ----------
    limit : int
        In bytes.
    pack : Pack or Mixture
        What is trained from.
    batch_size : int
        Images in a batch, of the test set as well.
    test_images_bytes : int
        What all images of the test set take in memory; 0 without one.
    test_least_bytes : int
        What its loader holds at least.

    Raises
    ------
    ConfigError
        If the bound is too small for one batch and the chunks that are decoded at a time.
    """
    batch, making, window = _sizes(pack, batch_size)
    need = _BATCHES_UNDER_WAY * batch + making + window + test_least_bytes
    if limit < need:
        raise ConfigError(
            f"{limit // 10**6:,} MB of memory are too little: batches of {batch_size} images and the chunks "
            f"that they come from take {math.ceil(need / 1e6):,} MB; raise `memory`, or lower `batch_size`"
        )
    prefetch = _PREFETCH
    while prefetch:
        ahead = (prefetch + _BATCHES_UNDER_WAY) * batch
        if ahead <= limit // 2 and ahead + making + test_least_bytes < limit:
            break
        prefetch -= 1
    images = limit - (prefetch + _BATCHES_UNDER_WAY) * batch - making
    test = max(min(test_images_bytes, images // 4), test_least_bytes)
    return LoaderMemory(limit, images - test, test, prefetch)


def limit_for(
    cache_bytes: int,
    pack: Pack | Mixture,
    batch_size: int,
    *,
    test_images_bytes: int,
    test_least_bytes: int = 0,
) -> int:
    """Return a bound in bytes of which `divide_memory` leaves so much for the training pack.

    It leaves as much of every larger bound: prefetched batches and the test set have their most.
    """
    batch, making, window = _sizes(pack, batch_size)
    moment = (_PREFETCH + _BATCHES_UNDER_WAY) * batch + making
    test = max(min(test_images_bytes, math.ceil(cache_bytes / 3)), test_least_bytes)
    return moment + max(cache_bytes, window) + test


def _sizes(pack: Pack | Mixture, batch_size: int) -> tuple[int, int, int]:
    """Return what a batch takes, what decoding chunks takes for a moment, and the least that is held."""
    headers = [one.header for one in pack.packs] if isinstance(pack, Mixture) else [pack.header]
    chunks = [header.chunk_samples * memory_bytes(header) for header in headers]
    # One chunk in the making in each thread; a window of one of each pack, and one that comes next.
    return batch_size * _decoded_bytes(headers[0]), cores() * max(chunks), 2 * sum(chunks)


def _decoded_bytes(header: PackHeader) -> int:
    return 4 * header.channels * header.height * header.width
