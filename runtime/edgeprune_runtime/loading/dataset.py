"""`PackDataset`: a pack as a map-style dataset, for torch's DataLoader and anything alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune_formats import Pack, open_pack

from ..decode.backends import make_decoder
from ..decode.plan import Normalize, Resolution, check_batch, make_plan
from .cache import DEFAULT_CACHE_BYTES, ChunkCache

__all__ = ["PackDataset"]


class PackDataset:
    """Decoded images of a pack by index: ``dataset[i] -> (image [C, h, w], label)``.

    Works with workers that are forked or spawned: it can be pickled, and each process opens the file for
    itself. Threads may share one; they decode in turn. `PackLoader` is faster where a plain loop over
    batches is all that is needed.

    Parameters
    ----------
    path : path or Pack
        The pack.
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
        path: str | Path | Pack,
        *,
        backend: str = "auto",
        dtype: Any = "float32",
        normalize: Normalize = False,
        resolution: Resolution = None,
        transform: Callable[[Any], Any] | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.pack = path if isinstance(path, Pack) else open_pack(path)
        self.transform = transform
        plan = make_plan(self.pack.header, normalize=normalize, resolution=resolution)
        self._decoder = make_decoder(backend, plan, device="cpu", dtype=dtype)
        self._cache = ChunkCache(self.pack, cache_bytes)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.pack)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return (image [C, h, w], label) number `index`; negative indices count from the end.

        Raises
        ------
        IndexError
            There is no such image.
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
        rows = np.asarray(indices, np.int64)
        outside = (rows < -len(self)) | (rows >= len(self))
        if outside.any():
            raise IndexError(f"index {rows[outside][0]} of a pack of {len(self)} images")
        rows = np.where(rows < 0, rows + len(self), rows)
        if not len(rows):
            return []
        check_batch(self._decoder.plan, len(rows))
        with self._lock:
            images = self._decoder.images(*self._cache.find(rows))
        if self.transform is not None:
            images = [self.transform(image) for image in images]
        return list(zip(images, self.pack.labels[rows].tolist(), strict=True))
