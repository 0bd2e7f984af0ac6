"""All images of a source where a training step can reach them: on the device if they fit."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_runtime.decode.augmentation import Augmentation
from edgeprune_runtime.system.machine import available_bytes

from ..sources import Source

__all__ = ["Batch", "ImageStore"]

Batch = tuple[NDArray[np.int64], Augmentation | None]
# The rest of the memory is for the network and its activations.
_SHARE_OF_MEMORY = 0.5
_LOAD_BYTES = 32 * 2**20
_AHEAD = 4


class ImageStore:
    """Images as uint8, gathered, cropped and mirrored in one indexing operation.

    Parameters
    ----------
    source : Source
        Where the images come from.
    rows : int64 [N]
        The rows of the source that the store holds; it counts them from 0.
    device : torch.device
        Where batches are to be.
    budget : int, optional
        Bytes that images may take on the device and in the host's memory; half of what is free there by
        default.

    Attributes
    ----------
    place : str
        ``"device"``, ``"host"`` (on a GPU, where only the host's memory has room) or ``"source"`` (read
        again for each batch, ahead of the step that needs it).
    shape : tuple of int
        (C, H, W).
    labels : int64 [N]
        On the device.
    """

    def __init__(
        self, source: Source, rows: NDArray[np.int64], device: torch.device, *, budget: int | None = None
    ) -> None:
        self._source, self._rows, self._device = source, rows, device
        self.shape = source.shape
        self.labels = torch.from_numpy(source.labels[rows]).to(device)
        size = len(rows) * math.prod(source.shape)
        self.place = _place(size, device, budget)
        self._pixels: torch.Tensor | None = None
        if self.place != "source":
            self._pixels = self._load(device if self.place == "device" else torch.device("cpu"))

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, batches: Iterable[Batch]) -> Iterator[torch.Tensor]:
        """Yield the images of each batch: uint8 [n, C, H, W] in channels-last order, on the device.

        Parameters
        ----------
        batches : iterable of (int64 [n], Augmentation or None)
            Numbers of the store's images, and where to crop and mirror them.

        Raises
        ------
        SourceError
            An image that was readable before no longer is.
        """
        if self.place == "device":
            for batch in batches:
                yield self._gather(batch)
            return
        # A source reads with threads of its own, and is not meant to be called from several.
        with ThreadPoolExecutor(1 if self.place == "source" else _AHEAD) as pool:
            waiting: deque[Future[torch.Tensor]] = deque()
            for batch in batches:
                waiting.append(pool.submit(self._fetch, batch))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result().to(self._device, non_blocking=True)
            while waiting:
                yield waiting.popleft().result().to(self._device, non_blocking=True)

    def _load(self, where: torch.device) -> torch.Tensor:
        channels, height, width = self.shape
        pixels = torch.empty((len(self), height, width, channels), dtype=torch.uint8, device=where)
        step = max(1, _LOAD_BYTES // math.prod(self.shape))
        for start in range(0, len(self), step):
            part = torch.from_numpy(self._source.read(self._rows[start : start + step]))
            pixels[start : start + step] = part.to(where).permute(0, 2, 3, 1)
        return pixels

    def _gather(self, batch: Batch) -> torch.Tensor:
        assert self._pixels is not None
        return _crop(self._pixels, *batch)

    def _fetch(self, batch: Batch) -> torch.Tensor:
        if self._pixels is not None:
            images = _crop(self._pixels, *batch)
        else:
            rows, augmentation = batch
            pixels = torch.from_numpy(self._source.read(self._rows[rows])).permute(0, 2, 3, 1).contiguous()
            images = _crop(pixels, np.arange(len(rows)), augmentation)
        return images.pin_memory() if self._device.type == "cuda" else images


def _crop(pixels: torch.Tensor, rows: NDArray[np.int64], augmentation: Augmentation | None) -> torch.Tensor:
    """Return rows of NHWC pixels, each cropped and mirrored, as NCHW in channels-last order."""
    chosen = torch.from_numpy(rows).to(pixels.device, non_blocking=True)
    if augmentation is None:
        return pixels[chosen].permute(0, 3, 1, 2)
    down = torch.from_numpy(augmentation.rows).to(pixels.device, non_blocking=True)
    across = torch.from_numpy(augmentation.columns).to(pixels.device, non_blocking=True)
    return pixels[chosen[:, None, None], down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def _place(size: int, device: torch.device, budget: int | None) -> str:
    if size <= (_free(device) if budget is None else budget):
        return "device"
    if device.type == "cuda" and size <= (_free(torch.device("cpu")) if budget is None else budget):
        return "host"
    return "source"


def _free(device: torch.device) -> int:
    """Return how many bytes images may take of a device's free memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_MEMORY)
    # Every process on this host holds images of its own.
    return int(_host_memory() * _SHARE_OF_MEMORY / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _host_memory() -> int:
    """Return how many bytes of the host's memory, or of the container's, are free."""
    free = available_bytes()
    # What is in use is not told everywhere; half of all memory stands in for what is free.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if free is None else free
