"""Dividing a bound on memory among what loaders hold: batches, the training set's chunks, the test set's."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune_formats import ConfigError, Pack, PackHeader
from edgeprune_formats.codecs import memory_bytes

from ...system.machine import available_bytes
from ...system.threads import cores
from ..mixture import Mixture
from .cache import DEFAULT_CACHE_BYTES

__all__ = ["LoaderMemory", "default_limit", "divide_memory"]

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
    headers = [one.header for one in pack.packs] if isinstance(pack, Mixture) else [pack.header]
    batch = batch_size * _decoded_bytes(headers[0])
    chunks = [header.chunk_samples * memory_bytes(header) for header in headers]
    # A window of one chunk of each pack, one that comes next, and one in the making in each thread.
    least = 2 * sum(chunks) + cores() * max(chunks) + test_least_bytes
    prefetch = _PREFETCH
    while prefetch and (prefetch + _BATCHES_UNDER_WAY) * batch > limit // 2:
        prefetch -= 1
    moment = (prefetch + _BATCHES_UNDER_WAY) * batch + cores() * max(chunks)
    need = _BATCHES_UNDER_WAY * batch + least
    if limit < need or limit <= moment:
        raise ConfigError(
            f"{limit / 1e6:,.0f} MB of memory are too little: batches of {batch_size} images and the chunks "
            f"that they come from take {max(need, moment + 1) / 1e6:,.0f} MB; raise `memory`, or lower "
            "`batch_size`"
        )
    images = limit - moment
    test = max(min(test_images_bytes, images // 4), test_least_bytes)
    return LoaderMemory(limit, images - test, test, prefetch)


def _decoded_bytes(header: PackHeader) -> int:
    return 4 * header.channels * header.height * header.width
