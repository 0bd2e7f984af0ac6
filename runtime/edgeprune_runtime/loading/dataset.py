"""`PackDataset`: a pack, or several, as a map-style dataset, for torch's DataLoader and anything alike."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ..decode.backends import Backend
from ..decode.plan import Normalize, Resolution, check_batch
from .arguments import check_transform
from .chunks.cache import DEFAULT_CACHE_BYTES
from .chunks.reader import Packs, make_reader, open_given
from .targets import DEFAULT_TARGETS, TargetReader

if TYPE_CHECKING:
    from ..decode.dtypes import Dtype

__all__ = ["PackDataset"]


class PackDataset:
    """Decoded images of a pack by index: ``dataset[i] -> (image [C, h, w], label)``, or other targets.

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
    targets : sequence of str
        The columns that follow the image, as in `PackLoader`.

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
        dtype: Dtype = "float32",
        normalize: Normalize = False,
        resolution: Resolution = None,
        transform: Callable[[Any], Any] | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        targets: Sequence[str] = DEFAULT_TARGETS,
    ) -> None:
        check_transform(transform)
        self.pack = open_given(path)
        self._targets = TargetReader(self.pack, targets)
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

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """Return (image [C, h, w], label) number `index`, or the batch that several indices ask for.

        Parameters
        ----------
        index : int, slice, or list, array or tensor of int
            Integers of Python, numpy or torch; negative ones count from the end. Several give (images
            [n, C, h, w], labels int64 [n]), as a BatchSampler with ``DataLoader(batch_size=None)`` wants
            them; the images are a list where `transform` makes something else than arrays or tensors.

        Raises
        ------
        IndexError
            There is no such image.
        TypeError
            `index` is something else, such as True, None, 1.7 or an array of two dimensions.
        ConfigError
            More images than can be decoded at once.
        PackFormatError
            A chunk is damaged.
        """
        if not (isinstance(index, slice | list | tuple | range) or getattr(index, "ndim", 0) == 1):
            return self.__getitems__([index])[0]
        several = range(*index.indices(len(self))) if isinstance(index, slice) else index
        rows = self._rows(several)
        return _stacked(self._images(rows)), *self._targets.read(rows)

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[tuple[Any, ...]]:
        """Return several samples, decoded as one batch; torch's DataLoader calls this by itself.

        Raises
        ------
        IndexError, TypeError, ConfigError, PackFormatError
            As for one.
        """
        rows = self._rows(indices)
        if not len(rows):
            return []
        samples = self._targets.samples(rows)
        return [(image, *values) for image, values in zip(self._images(rows), samples, strict=True)]

    def _images(self, rows: NDArray[np.int64]) -> Any:
        for plan in self._reader.plans:
            check_batch(plan, len(rows))
        # Of no image nothing would be read, and what an image is remain unknown.
        images = self._reader.images(rows if len(rows) else np.zeros(1, np.int64))[: len(rows)]
        return images if self.transform is None else [self.transform(image) for image in images]

    def _rows(self, indices: Iterable[SupportsIndex]) -> NDArray[np.int64]:
        return np.array([self._row(index) for index in indices], np.int64)

    def _row(self, index: Any) -> int:
        try:
            # To Python True is an integer, and to torch so is a list of one.
            is_flag = isinstance(index, bool) or "bool" in str(getattr(index, "dtype", ""))
            has_axes = hasattr(index, "ndim") and index.ndim > 0
            scalar: Any = None if is_flag or has_axes else index
            number = operator.index(scalar)
        except TypeError:
            shown = " ".join(repr(index).split())
            raise TypeError(f"the index of an image must be an integer, not {shown[:80]}") from None
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"index {number} of a pack of {count} images")
        return number % count


def _stacked(images: Any) -> Any:
    """Return images as one array or tensor; as a list where a transform made something else of them."""
    if not (isinstance(images, list) and images and hasattr(images[0], "shape")):
        return images
    if isinstance(images[0], np.ndarray):
        return np.stack(images)
    import torch

    return torch.stack(images)
