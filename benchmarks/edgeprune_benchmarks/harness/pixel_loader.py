"""Original pixels in memory as what `edgeprune_runtime.training.train` takes its batches from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_runtime.decode.augmentation import Augment, Augmentation, draw
from edgeprune_runtime.training import TrainLoader

__all__ = ["PixelLoader", "PixelStore", "Statistics", "Stretched", "normalized"]

Batch = tuple[torch.Tensor, torch.Tensor]
_Chosen = tuple[NDArray[np.int64], Augmentation | None]
Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of each channel, on [0, 1]."""


class PixelStore(Protocol):
    """Images by number, such as `edgeprune.work.image_store.ImageStore`: uint8, or float32 on [0, 1]."""

    shape: tuple[int, int, int]
    labels: torch.Tensor

    def __len__(self) -> int: ...

    def batches(self, batches: Iterable[_Chosen]) -> Iterator[torch.Tensor]:
        """Yield the images of each batch, [n, C, H, W]."""
        ...


def normalized(
    store: PixelStore,
    rows: Sequence[NDArray[np.int64]],
    crops: Iterable[Augmentation | None],
    statistics: Statistics | None,
) -> Iterator[Batch]:
    """Yield some batches of a store: float32 images, normalized if statistics are given, and labels.

    Parameters
    ----------
    store : PixelStore
    rows : sequence of int64 [n]
        Numbers of the images of each batch.
    crops : iterable of Augmentation or None
        For each batch; taken as batches are.
    statistics : (sequence of float, sequence of float) or None
        None leaves images on [0, 1].
    """
    where = store.labels.device
    scale = [torch.tensor(of, device=where).view(1, -1, 1, 1) for of in statistics or ()]
    for images, chosen in zip(store.batches(zip(rows, crops, strict=False)), rows, strict=True):
        pixels = images if images.is_floating_point() else images.float() / 255
        if statistics is not None:
            pixels = (pixels - scale[0]) / scale[1]
        yield pixels, store.labels[torch.from_numpy(chosen).to(where, non_blocking=True)]


class PixelLoader:
    """A `TrainLoader` over all images of a store: shuffled, cropped, mirrored, normalized.

    Parameters
    ----------
    store : PixelStore
        The images.
    batch_size : int
        Images in a batch; the rest of an epoch is left out.
    statistics : (sequence of float, sequence of float) or None
        To normalize with; None leaves images on [0, 1].
    seed : int
        Of order and augmentation.
    augment : str
        As `PackLoader`.
    steps : int, optional
        Batches of an epoch, whatever the number of images: shuffled orders of all of them follow each other,
        and none leaves a rest.
    """

    def __init__(
        self,
        store: PixelStore,
        batch_size: int,
        statistics: Statistics | None,
        *,
        seed: int,
        augment: Augment = "crop+flip",
        steps: int | None = None,
    ) -> None:
        self._store, self._statistics, self._steps = store, statistics, steps
        self._batch_size, self._seed, self._augment = batch_size, seed, augment
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return len(self._store) // self._batch_size if self._steps is None else self._steps

    def __iter__(self) -> Iterator[Batch]:
        rows = list(self._order()[self._batch :])
        # One after the other: all of a long epoch would take gigabytes.
        crops = map(self._crops, range(self._batch, len(self)))
        for batch in normalized(self._store, rows, crops, self._statistics):
            self._batch += 1
            yield batch

    def _order(self) -> NDArray[np.int64]:
        """Return the images of each batch of the epoch, [len(self), batch_size]."""
        count, taken = len(self._store), len(self) * self._batch_size
        if self._steps is None:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(count)
        else:
            random = np.random.default_rng(self._seed)
            order = np.concatenate([random.permutation(count) for _ in range(-(-taken // count))])
        return order[:taken].reshape(-1, self._batch_size)

    def _crops(self, batch: int) -> Augmentation | None:
        _, height, width = self._store.shape
        sizes: dict[str, Any] = {"count": self._batch_size, "height": height, "width": width}
        return draw(self._augment, seed=self._seed, epoch=self._epoch, batch=batch, **sizes)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._epoch, self._batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the last batch."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self._epoch, self._batch = state["epoch"], state["batch"]


class Stretched:
    """So many batches of a `TrainLoader`, over as many of its epochs as they take, as a single epoch.

    A learning rate that falls over the epochs of a run then ends with the time that a run is given.

    Raises
    ------
    ConfigError
        An epoch of the loader has no batch.
    """

    def __init__(self, loader: TrainLoader, steps: int) -> None:
        if not len(loader):
            raise ConfigError("there are fewer images than a batch takes; choose a smaller batch_size")
        self._loader, self._steps = loader, steps
        self._done = 0
        self._resumed = False

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        while self._done < self._steps:
            epoch, begun = divmod(self._done, len(self._loader))
            if not (begun and self._resumed):
                self._loader.set_epoch(epoch)
            self._resumed = False
            for batch in itertools.islice(self._loader, self._steps - self._done):
                self._done += 1
                yield batch

    def set_epoch(self, epoch: int) -> None:
        """There is one epoch, which begins when the loader is made."""
        if epoch:
            raise ValueError(f"epoch {epoch} of one")

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the last batch."""
        return {"done": self._done, "loader": self._loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self._done, self._resumed = state["done"], True
        self._loader.load_state_dict(state["loader"])
