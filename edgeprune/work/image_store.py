"""All images of a source where a training step can reach them: in memory if they fit, or read ahead of it."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_runtime.decode.augmentation import Augmentation
from edgeprune_runtime.system.machine import available_bytes, cpu_quota

from ..sources import Source
from ..sources.base import source_bits
from ..sources.ordered import in_order
from .image_cache import CachedSource, cached, channels_last
from .processes import Workers, local_processes

__all__ = ["Batch", "ImageStore", "cached_if_large"]

_T = TypeVar("_T")
Batch = tuple[NDArray[np.int64], Augmentation | None]
_LOAD_BYTES = 32 * 2**20
_AHEAD = 4
# Images that a thread takes at a time: enough to outweigh handing them over, and all threads busy in a batch.
_LEAST_ROWS, _MOST_ROWS = 8, 32


class ImageStore:
    """Images as uint8 or uint16, cropped and mirrored by several threads ahead of the step that needs them.

    Which images a batch has, and their pixels, do not depend on the number of threads.

    Parameters
    ----------
    source : Source
        Where the images come from; read by several threads at once.
    rows : int64 [N]
        The rows of the source that the store holds; it counts them from 0.
    device : torch.device
        Where batches are to be.
    budget : int, optional
        Bytes that images may take on the device and in the host's memory; by default `share_of_memory` of
        what is free there.
    jobs : int, optional
        Threads; by default as many as there are processors for this process.

    Attributes
    ----------
    place : str
        ``"device"``, ``"host"`` (on a GPU, where only the host's memory has room), ``"disk"`` (decoded, see
        `cached_if_large`) or ``"source"`` (decoded again for each batch).
    shape : tuple of int
        (C, H, W).
    labels : int64 [N]
        On the device.
    share_of_memory : float
        Of all stores; the rest of the memory is for the network and its activations.

    Raises
    ------
    ConfigError
        `jobs` is below 1.
    SourceError
        Images that fit in memory cannot be read.
    """

    share_of_memory: ClassVar[float] = 0.5

    def __init__(
        self,
        source: Source,
        rows: NDArray[np.int64],
        device: torch.device,
        *,
        budget: int | None = None,
        jobs: int | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ConfigError(f"`jobs` must be at least 1, not {jobs}")
        self._source, self._rows, self._device = source, rows, device
        self._jobs = jobs or max(1, cpu_quota() // local_processes())
        self.shape = source.shape
        self._dtype = torch.uint16 if source_bits(source) == 16 else torch.uint8
        self.labels = torch.from_numpy(source.labels[rows]).to(device)
        self.place = _place(len(rows) * _image_bytes(source), device, budget)
        self._pixels: torch.Tensor | None = None
        if self.place != "source":
            self._pixels = self._load(device if self.place == "device" else torch.device("cpu"))
        elif isinstance(source, CachedSource):
            self.place = "disk"

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, batches: Iterable[Batch]) -> Iterator[torch.Tensor]:
        """Yield the images of each batch: uint8 or uint16 [n, C, H, W] in channels-last order, on the device.

        Parameters
        ----------
        batches : iterable of (int64 [n], Augmentation or None)
            Numbers of the store's images, and where to crop and mirror them.

        Raises
        ------
        SourceError
            An image that was readable before no longer is.
        """
        if self._pixels is not None and self._pixels.device.type != "cpu":
            for batch in batches:
                yield _crop_on_device(self._pixels, *batch)
            return
        with _threads(self._jobs) as pool:
            for images, parts in _ahead((self._begin(pool, batch) for batch in batches), _AHEAD):
                for part in parts:
                    part.result()
                yield images.permute(0, 3, 1, 2).to(self._device, non_blocking=True)

    def _load(self, where: torch.device) -> torch.Tensor:
        channels, height, width = self.shape
        pixels = torch.empty((len(self), height, width, channels), dtype=self._dtype, device=where)
        step = max(1, min(_MOST_ROWS, _LOAD_BYTES // math.prod(self.shape)))
        parts = np.split(np.arange(len(self)), range(step, len(self), step))
        for rows, part in zip(parts, in_order(self._read, parts, self._jobs), strict=True):
            pixels[rows[0] : rows[-1] + 1] = torch.from_numpy(part).to(where)
        return pixels

    def _begin(self, pool: ThreadPoolExecutor, batch: Batch) -> tuple[torch.Tensor, list[Future[None]]]:
        """Let threads fill a batch, a few images each."""
        rows, augmentation = batch
        channels, height, width = self.shape
        shape, pinned = (len(rows), height, width, channels), self._device.type == "cuda"
        images = torch.empty(shape, dtype=self._dtype, pin_memory=pinned)
        step = min(_MOST_ROWS, max(_LEAST_ROWS, -(-len(rows) // self._jobs)))
        parts = np.split(np.arange(len(rows)), range(step, len(rows), step))
        return images, [
            pool.submit(
                self._fill,
                images[part[0] : part[-1] + 1].numpy(),
                rows[part],
                augmentation and augmentation.take(part),
            )
            for part in parts
        ]

    def _fill(self, target: NDArray[Any], rows: NDArray[np.int64], augmentation: Augmentation | None) -> None:
        """Write some images to [n, H, W, C]."""
        if self._pixels is None:
            images, rows = self._read(rows), np.arange(len(rows))
        else:
            images = self._pixels.numpy()
        if augmentation is None:
            # Indices are in range: "clip" writes to the target without a buffer.
            images.take(rows, axis=0, out=target, mode="clip")
            return
        for at, row in enumerate(rows.tolist()):
            cropped = images[row].take(augmentation.rows[at], axis=0)
            cropped.take(augmentation.columns[at], axis=1, out=target[at], mode="clip")

    def _read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read some of the store's images from the source, [n, H, W, C]."""
        if isinstance(self._source, CachedSource):
            return self._source.read_channels_last(self._rows[rows])
        return channels_last(self._source.read(self._rows[rows]))


def cached_if_large(
    source: Source,
    path: Path,
    device: torch.device,
    *,
    workers: Workers | None = None,
    tell: Callable[[str], None] | None = None,
) -> AbstractContextManager[Source]:
    """Give a source that decodes each image once, if all of them do not fit in memory.

    Whatever reads the source inside of the block fills the cache, a check of all images included.

    Parameters
    ----------
    source : Source
    path : Path
        The output of the run; the images are kept beside it.
    device : torch.device
        Where batches are to be.
    workers, tell
        See `edgeprune.work.image_cache.cached`.
    """
    is_large = _place(len(source) * _image_bytes(source), device, None) == "source"
    return cached(source, path, wanted=is_large, workers=workers, tell=tell)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads that drop what has not begun when the block ends."""
    pool = ThreadPoolExecutor(count, "edgeprune-images")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(begun: Iterable[_T], count: int) -> Iterator[_T]:
    """Take `count` items more than are given, which begins the work on them."""
    waiting: deque[_T] = deque()
    for item in begun:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _crop_on_device(
    pixels: torch.Tensor, rows: NDArray[np.int64], augmentation: Augmentation | None
) -> torch.Tensor:
    """Return rows of NHWC pixels, each cropped and mirrored, as NCHW in channels-last order."""
    chosen = torch.from_numpy(rows).to(pixels.device, non_blocking=True)
    if pixels.dtype == torch.uint16:
        # Torch takes no rows of unsigned ones.
        return _crop_on_device(pixels.view(torch.int16), rows, augmentation).view(torch.uint16)
    if augmentation is None:
        return pixels[chosen].permute(0, 3, 1, 2)
    down = torch.from_numpy(augmentation.rows).to(pixels.device, non_blocking=True)
    across = torch.from_numpy(augmentation.columns).to(pixels.device, non_blocking=True)
    return pixels[chosen[:, None, None], down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def _image_bytes(source: Source) -> int:
    return math.prod(source.shape) * source_bits(source) // 8


def _place(size: int, device: torch.device, budget: int | None) -> str:
    if size <= (_free(device) if budget is None else budget):
        return "device"
    if device.type == "cuda" and size <= (_free(torch.device("cpu")) if budget is None else budget):
        return "host"
    return "source"


def _free(device: torch.device) -> int:
    """Return how many bytes images may take of a device's free memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * ImageStore.share_of_memory)
    # Every process on this host holds images of its own.
    return int(_host_memory() * ImageStore.share_of_memory / local_processes())


def _host_memory() -> int:
    """Return how many bytes of the host's memory, or of the container's, are free."""
    free = available_bytes()
    # What is in use is not told everywhere; half of all memory stands in for what is free.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if free is None else free
