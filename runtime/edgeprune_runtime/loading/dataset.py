"""`PackDataset`: a pack, or several, as a map-style dataset, for torch's DataLoader and anything alike."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..decode.backends import Backend
from ..decode.plan import Normalize, Resolution, check_batch
from .cache import DEFAULT_CACHE_BYTES
from .reader import Packs, make_reader, open_given

__all__ = ["PackDataset"]


class PackDataset:
    """Decoded images of a pack by index: ``dataset[i] -> (image [C, h, w], label)``.

    Works with workers that are forked or spawned: it can be pickled, and each process opens the file for
    itself. Threads may share one; they decode in turn. `PackLoader` is faster where a plain loop over
    batches is all that is needed.

    Parameters
    ----------
    path : path or Pack, a sequence of them, or Mixture
        The pack; or several, whose images are numbered one pack after another.
    backend, dtype, normalize, resolution
        As in `PackLoader`; images stay on the CPU.
    transform : callable, optional
        Applied to each image.
    cache_bytes : int
        Bound on the memory for stored coefficients, in each worker.

    Raises
    ------
    OSError, ConfigError, PackFormatError
        As `PackLoader`.
    """

    def __init__(
        self,
        path: Packs,
        *,
        backend: Backend = "auto",
        dtype: Any = "float32",
        normalize: Normalize = False,
        resolution: Resolution = None,
        transform: Callable[[Any], Any] | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.pack = open_given(path)
        self.transform = transform
        self._reader = make_reader(
            self.pack,
            batch_size=1,
            backend=backend,
            device="cpu",
            dtype=dtype,
            normalize=normalize,
            resolution=resolution,
            cache_bytes=cache_bytes,
            prefetch=False,
        )

    def __len__(self) -> int:
        return len(self.pack)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return (image [C, h, w], label) number `index`; negative indices count from the end.

        Raises
        ------
        IndexError
            There is no such image.
        TypeError
            `index` is not an integer, of Python's or numpy's.
        PackFormatError
            Its chunk is damaged.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int]]:
        """Return several samples, decoded as one batch; torch's DataLoader calls this by itself.

        Raises
        ------
        IndexError
            An index outside the pack.
        ConfigError
            More images than can be decoded at once.
        PackFormatError
            A chunk is damaged.
        """
        rows = np.array([self._row(index) for index in indices], np.int64)
        if not len(rows):
            return []
        check_batch(self._reader.decoder.plan, len(rows))
        images = self._reader.images(rows)
        if self.transform is not None:
            images = [self.transform(image) for image in images]
        return list(zip(images, self.pack.labels[rows].tolist(), strict=True))

    def _row(self, index: int) -> int:
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            raise IndexError(f"index {number} of a pack of {count} images")
        return number % count
