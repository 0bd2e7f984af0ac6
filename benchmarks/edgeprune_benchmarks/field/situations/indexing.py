"""`PackDataset` and `PackLoader` indexed and wrapped in ways of their users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..place import Place
from .registry import situation

KIND = "indexing"


def _dataset() -> Any:
    from edgeprune_runtime import PackDataset

    return PackDataset(Path("pack.h5"))


def _is_batch(index: Any, rows: list[int]) -> None:
    """Fail unless an index gives the batch of these rows, as they come one by one."""
    dataset = _dataset()
    images, labels = dataset[index]
    expected = [dataset[row] for row in rows]
    assert np.asarray(labels).tolist() == [label for _, label in expected]
    assert len(images) == len(rows)
    for image, (one, _) in zip(images, expected, strict=True):
        assert np.allclose(np.asarray(image), np.asarray(one), atol=1e-6)


def _gives(name: str, make: Callable[[], Any], rows: list[int]) -> None:
    @situation(KIND, f"{name} gives a batch")
    def check(place: Place) -> str:
        place.take("pack.h5")
        return place.right(place.script(lambda: _is_batch(make(), rows)))


def _refuses(name: str, make: Callable[[], Any], kind: type[Exception] = TypeError) -> None:
    @situation(KIND, f"{name} is no index")
    def check(place: Place) -> str:
        place.take("pack.h5")
        return place.refused(place.script(lambda: _dataset()[make()], kind), "index")


def _tensor(value: Any) -> Any:
    import torch

    return torch.tensor(value)


_gives("a tuple of five", lambda: (5, 0, 23, 5, 2), [5, 0, 23, 5, 2])
_gives("a tensor of three", lambda: _tensor([7, 1, -1]), [7, 1, 23])
_gives("an array of uint8", lambda: np.array([9, 8], np.uint8), [9, 8])
_gives("a slice backwards", lambda: slice(20, 2, -6), [20, 14, 8])
_gives("a range", lambda: range(0, 9, 4), [0, 4, 8])
_refuses("a tensor of 2.0", lambda: _tensor(2.0))
_refuses("a numpy flag", lambda: np.True_)
_refuses("bytes", lambda: b"12")
_refuses("a list of fractions", lambda: [0, 1.5])
_refuses("24 of 24", lambda: 24, IndexError)
_refuses("-25 of 24", lambda: np.int64(-25), IndexError)


@situation(KIND, "a BatchSampler and two workers")
def _sampler(place: Place) -> str:
    place.take("sparse.h5")

    def read() -> None:
        from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

        from edgeprune_runtime import PackDataset

        dataset: Any = PackDataset(Path("sparse.h5"))
        sampler = BatchSampler(SequentialSampler(dataset), 7, drop_last=False)
        loader: Any = DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=2)
        labels = [np.asarray(batch).tolist() for _, batch in loader]
        assert [len(batch) for batch in labels] == [7, 7, 7, 3]
        assert [label for batch in labels for label in batch] == dataset.pack.labels.tolist()

    return place.right(place.script(read))


@situation(KIND, "a PackLoader of two packs in a DataLoader with workers")
def _wrapped(place: Place) -> str:
    packs = [place.take("pack.h5"), place.take("sparse.h5")]

    def read() -> None:
        from torch.utils.data import DataLoader

        from edgeprune_runtime import PackLoader

        loader: Any = PackLoader(packs, 4)
        next(iter(DataLoader(loader, batch_size=None, num_workers=0)))

    return place.refused(place.script(read, TypeError), "PackDataset")
