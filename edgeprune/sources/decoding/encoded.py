"""What sources have in common whose images are encoded, as JPEG or PNG for example."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.targets import Target
from edgeprune_runtime.system.threads import cores

from ...errors import SourceError
from ..base import Rows
from ..ordered import shares_threads
from .images import decode_image, pillow_guard
from .kinds import RGB_IF_COLOR, Wanted

__all__ = ["Content", "EncodedSource", "PerProcess", "first_shape"]

Content = str | bytes
"""An encoded image: the path of its file, or the bytes of one."""
_THREADS = min(8, cores())
_IMAGES_PER_TASK = 32

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedSource:
    """Images that are decoded when they are read; implements `Source` but for `name`.

    Attributes
    ----------
    spec, split, license, class_names, labels, shape
        As in `Source`.
    size : int or None
        Side to which the images are scaled and cropped; None demands that all have `shape`.
    model : str
        What the image is called that `shape` was taken from.
    undivided : bool
        Whether the source has no halves, so that either split is all of it.
    notes : tuple[str, ...]
        What a user should know: how the source was understood, images that are not read.
    targets : tuple of Target
        See `Source`.
    wanted : Wanted
        What the images are decoded to; its channels are those of `shape`.

    A class for one kind of source gives `name`, `stored_bytes`, and `contents` or `content`; all may be
    called from several threads at once, and in forked processes.
    """

    spec: str
    split: str
    license: str | None = None
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    shape: tuple[int, int, int]
    size: int | None
    model: str
    undivided: bool = False
    notes: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    wanted: Wanted = RGB_IF_COLOR
    fast_jpeg: bool = False

    @property
    def bits(self) -> int:
        """Of a channel of what is read."""
        return self.wanted.kind.bits

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return how a message calls image `row`."""
        raise NotImplementedError

    def content(self, row: int) -> Content:
        """Return image `row` as it is stored."""
        raise NotImplementedError

    def contents(self, rows: Rows) -> Generator[Content]:
        """Give the images of ascending rows as they are stored."""
        for row in rows:
            yield self.content(int(row))

    def read(self, rows: Rows) -> NDArray[np.uint8 | np.uint16]:
        """Decode some images, [n, C, H, W]; in a few threads, unless others do so too. See `Source`."""
        images = np.empty((len(rows), *self.shape), dtype=self.wanted.kind.dtype)
        wanted = np.asarray(rows, dtype=np.intp)
        # In the order in which they are stored.
        places = np.argsort(wanted, kind="stable")
        parts = [places[start:][:_IMAGES_PER_TASK] for start in range(0, len(places), _IMAGES_PER_TASK)]
        if len(parts) <= 1 or shares_threads():
            with pillow_guard():
                self._fill(images, places, wanted[places])
            return images
        with pillow_guard(), ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(self._fill, images, part, wanted[part]) for part in parts]:
                done.result()
        return images

    def _fill(self, images: NDArray[Any], places: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
        with closing(self.contents(rows)) as contents:
            for place, row, content in zip(places, rows.tolist(), contents, strict=True):
                pixels = decode_image(
                    content, self.size, name=self.name(row), wanted=self.wanted, fast_jpeg=self.fast_jpeg
                )
                if pixels.shape[:2] != self.shape[1:]:
                    raise SourceError(self._other_size(row, pixels))
                images[place] = pixels.transpose(2, 0, 1)

    def _other_size(self, row: int, pixels: NDArray[Any]) -> str:
        height, width = pixels.shape[:2]
        usual = f"{self.shape[2]}x{self.shape[1]}"
        return (
            f"{self.name(row)}: has {width}x{height} pixels, but {self.model} has {usual}; "
            "pass `size` to scale all images to one size"
        )


def first_shape(
    size: int | None, images: Iterable[tuple[str, Callable[[], Content]]], where: str
) -> tuple[tuple[int, int, int], str]:
    """Return the shape (3, H, W) of a source's images, as RGB, and the name of the one it was taken from.

    Parameters
    ----------
    size : int or None
        Given, it makes the shape, and no image is read.
    images : iterable of (str, callable)
        Names of images, and what returns them as they are stored.
    where : str
        What a message calls all of them.

    Raises
    ------
    SourceError
        None of them can be read.
    """
    if size is not None:
        return (3, size, size), ""
    problem, count = "", 0
    with pillow_guard():
        for name, content in images:
            try:
                pixels = decode_image(content(), None, name=name, wanted=None)
            except SourceError as error:
                problem, count = problem or str(error), count + 1
                continue
            return (3, pixels.shape[0], pixels.shape[1]), name
    raise SourceError(f"{where}: none of {count:,} images can be read; the first: {problem}")


class PerProcess(Generic[Made]):
    """What each process makes for itself when it first needs it, such as open files.

    A forked process makes its own, as locks and positions in files are not to be shared; in a pickle only
    `make` is.

    Parameters
    ----------
    make : callable
        Called without arguments.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: dict[int, Made] = {}

    def get(self) -> Made:
        """Return this process's own."""
        made = self._made.get(os.getpid())
        # Of two threads that come here at once, the first to set it decides.
        return self._made.setdefault(os.getpid(), self._make()) if made is None else made

    def __reduce__(self) -> tuple[type[PerProcess[Made]], tuple[Callable[[], Made]]]:
        return type(self), (self._make,)
