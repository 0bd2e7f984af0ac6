"""Original pixels in memory as what `edgeprune_runtime.training.train` takes its batches from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.sources import Source
from edgeprune.work.image_store import ImageStore
from edgeprune_runtime.decode.augmentation import Augmentation, draw
from edgeprune_runtime.training import TrainLoader

__all__ = ["PixelLoader", "Stretched", "channel_statistics"]

Batch = tuple[torch.Tensor, torch.Tensor]


def channel_statistics(
    source: Source, rows: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of some images of a source, for pixels on [0, 1]."""
    sums = np.zeros((2, source.shape[0]))
    for part in np.array_split(rows, -(-len(rows) // 1000)):
        pixels = source.read(part) / 255
        sums += [pixels.sum((0, 2, 3)), np.square(pixels).sum((0, 2, 3))]
    mean, square = sums / (len(rows) * source.shape[1] * source.shape[2])
    return tuple(mean.tolist()), tuple(np.sqrt(square - mean**2).tolist())


class PixelLoader:
    """A `TrainLoader` over all images of a source as uint8: shuffled, cropped, mirrored, normalized.

    Parameters
    ----------
    source : Source
        The images.
    batch_size : int
        Images in a batch; the rest of an epoch is left out.
    mean, std : sequence of float
        Of each channel, on [0, 1].
    seed : int
        Of order and augmentation.
    device : torch.device
        Where batches are to be.
    augment : str
        As `PackLoader`.
    rows : int64 [n], optional
        Images of the source; all of them without.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        device: torch.device,
        augment: str = "crop+flip",
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._store = ImageStore(source, np.arange(len(source)) if rows is None else rows, device)
        self._batch_size, self._seed, self._augment = batch_size, seed, augment
        self._mean, self._std = (torch.tensor(of, device=device).view(1, -1, 1, 1) for of in (mean, std))
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return len(self._store) // self._batch_size

    def __iter__(self) -> Iterator[Batch]:
        planned = list(self._planned())
        for images, (rows, _) in zip(self._store.batches(planned), planned, strict=True):
            self._batch += 1
            labels = self._store.labels[torch.from_numpy(rows).to(self._store.labels.device)]
            yield (images.float() / 255 - self._mean) / self._std, labels

    def _planned(self) -> Iterator[tuple[NDArray[np.int64], Augmentation | None]]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._store))
        _, height, width = self._store.shape
        for batch in range(self._batch, len(self)):
            crops = draw(
                self._augment,
                seed=self._seed,
                epoch=self._epoch,
                batch=batch,
                count=self._batch_size,
                height=height,
                width=width,
            )
            yield order[batch * self._batch_size : (batch + 1) * self._batch_size], crops

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
    """

    def __init__(self, loader: TrainLoader, steps: int) -> None:
        self._loader, self._steps = loader, steps
        self._epoch = self._done = 0
        self._resumed = False

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        while self._done < self._steps:
            if not self._resumed:
                self._loader.set_epoch(self._epoch)
            self._resumed = False
            for batch in self._loader:
                self._done += 1
                yield batch
                if self._done == self._steps:
                    return
            self._epoch += 1

    def set_epoch(self, epoch: int) -> None:
        """There is one epoch, which begins when the loader is made."""
        if epoch:
            raise ValueError(f"epoch {epoch} of one")

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the last batch."""
        return {"epoch": self._epoch, "done": self._done, "loader": self._loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self._epoch, self._done, self._resumed = state["epoch"], state["done"], True
        self._loader.load_state_dict(state["loader"])
