"""A folder of image files, one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune.sources.base import Rows
from edgeprune.sources.images import IMAGE_SUFFIXES, decode_image, pillow_guard
from edgeprune_formats import ConfigError

from ..errors import SourceError

__all__ = ["FolderSource", "open_imagefolder"]

_THREADS = min(8, os.cpu_count() or 1)
_FILES_PER_TASK = 32
_SPLITS = {"train": ("train",), "test": ("test", "val")}


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files of one folder; implements `Source`.

    Attributes
    ----------
    spec, split, license, class_names, labels, shape
        As in `Source`.
    root : str
        The folder whose sub-folders are the classes.
    files : tuple[str, ...]
        [N], relative to `root`.
    size : int or None
        Side to which the images are scaled and cropped; None demands that all have `shape`.
    model : str
        The file that `shape` was taken from.
    undivided : bool
        Whether the source has no halves, so that either split is all of it.
    """

    spec: str
    split: str
    license: str | None
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    shape: tuple[int, int, int]
    root: str
    files: tuple[str, ...]
    size: int | None
    model: str
    undivided: bool = False

    def __len__(self) -> int:
        """Return the number of image files."""
        return len(self.files)

    def name(self, row: int) -> str:
        """Return the file of image `row` relative to the folder."""
        return _printable(self.files[row])

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Decode some files, [n, 3, H, W], in a few threads; see `Source.read`."""
        images = np.empty((len(rows), *self.shape), dtype=np.uint8)
        with pillow_guard(), ThreadPoolExecutor(_THREADS) as pool:
            tasks = [
                pool.submit(self._fill, images[start:][:_FILES_PER_TASK], rows[start:][:_FILES_PER_TASK])
                for start in range(0, len(rows), _FILES_PER_TASK)
            ]
            for task in tasks:
                task.result()
        return images

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes that some files take in all."""
        return sum(Path(f"{self.root}{os.sep}{self.files[row]}").stat().st_size for row in rows)

    def _fill(self, images: NDArray[np.uint8], rows: Rows) -> None:
        for image, row in zip(images, rows, strict=True):
            path = f"{self.root}{os.sep}{self.files[row]}"
            pixels = decode_image(path, self.size, name=self.name(row))
            if pixels.shape[:2] != self.shape[1:]:
                raise SourceError(self._other_size(row, pixels))
            image[:] = pixels.transpose(2, 0, 1)

    def _other_size(self, row: int, pixels: NDArray[np.uint8]) -> str:
        height, width = pixels.shape[:2]
        usual = f"{self.shape[2]}x{self.shape[1]}"
        return (
            f"{self.name(row)}: has {width}x{height} pixels, but {self.model} has {usual}; "
            "pass `size` to scale all images to one size"
        )


def open_imagefolder(spec: str, split: str, size: int | None) -> FolderSource:
    """Open a folder of image files in torchvision's arrangement: ``PATH/cat/any/depth/1.jpg``.

    Classes are the sub-folders in the order of their names; hidden files and folders and files without
    an image suffix are passed over. If PATH holds nothing but folders named train, test and val, the
    one for `split` is used ("test" falls back to val), and the classes of a test split are those of the
    train folder where there is one. Otherwise PATH serves either split.

    Parameters
    ----------
    spec : str
        ``"imagefolder:PATH"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        See `edgeprune.sources.images.resize_and_crop`; None takes the shape of the first readable image.

    Raises
    ------
    ConfigError
        PATH is missing in `spec`.
    SourceError
        PATH is no folder, or holds no class folders, or (split ``"train"``) a class has no images.
    """
    argument = spec.partition(":")[2]
    if not argument:
        raise ConfigError("imagefolder needs a folder; write imagefolder:PATH")
    path = str(Path(argument).expanduser())
    root = _split_root(path, split)
    classes = _class_folders(root)
    if split == "test" and root != path and (Path(path) / "train").is_dir():
        classes = _train_classes(Path(path) / "train", root, classes)
    files, labels = _files(root, classes, split)
    shape, model = ((3, size, size), "") if size else _first_shape(root, files)
    names = tuple(_printable(name) for name in classes)
    return FolderSource(spec, split, None, names, labels, shape, root, files, size, model, root == path)


def _split_root(path: str, split: str) -> str:
    folders = {entry.name for entry in _visible(path) if entry.is_dir()}
    if not folders or not folders <= {"train", "test", "val"}:
        return path
    for name in _SPLITS[split]:
        if name in folders:
            return f"{path}{os.sep}{name}"
    found, wanted = ", ".join(sorted(folders)), " or ".join(_SPLITS[split])
    raise SourceError(f"{_printable(path)}: has {found} but no {wanted} folder for the {split} split")


def _class_folders(root: str) -> list[str]:
    entries = _visible(root)
    folders = [entry.name for entry in entries if entry.is_dir()]
    if folders:
        return folders
    shown = _printable(root)
    if any(_is_image(entry.name) for entry in entries):
        raise SourceError(
            f"{shown}: images lie directly in this folder; "
            f"put those of each class in a folder of its own, such as {shown}/cat and {shown}/dog"
        )
    raise SourceError(f"{shown}: is empty; it needs one folder of images per class")


def _train_classes(train: Path, root: str, found: list[str]) -> list[str]:
    # Numbering the test folders by themselves would shift the labels when one class is absent.
    classes = _class_folders(str(train))
    unknown = [name for name in found if name not in classes]
    if unknown:
        where = _printable(f"{root}{os.sep}{unknown[0]}")
        raise SourceError(f"{where}: is a class that {_printable(str(train))} does not have")
    return classes


def _files(root: str, classes: list[str], split: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    files: list[str] = []
    counts: list[int] = []
    for name in classes:
        before = len(files)
        # A class that only the train folder has is no folder here.
        files += _images_below(root, name) if split == "train" or (Path(root) / name).is_dir() else ()
        counts.append(len(files) - before)
        if split == "train" and not counts[-1]:
            where, suffixes = _printable(f"{root}{os.sep}{name}"), " ".join(IMAGE_SUFFIXES)
            raise SourceError(f"{where}: class without images ({suffixes}); add some or remove the folder")
    if not files:
        raise SourceError(f"{_printable(root)}: no images in any of its {len(classes)} class folders")
    return tuple(files), np.repeat(np.arange(len(classes), dtype=np.int64), counts)


def _images_below(root: str, folder: str) -> Iterator[str]:
    for entry in _visible(f"{root}{os.sep}{folder}"):
        name = f"{folder}{os.sep}{entry.name}"
        if entry.is_dir():
            yield from _images_below(root, name)
        elif _is_image(entry.name) and (entry.is_file() or entry.is_symlink()):
            yield name


def _visible(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{_printable(folder)}: cannot be listed as a folder: {error.strerror}") from error
    return sorted(seen, key=lambda entry: entry.name)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _first_shape(root: str, files: tuple[str, ...]) -> tuple[tuple[int, int, int], str]:
    problem = ""
    with pillow_guard():
        for file in files:
            try:
                pixels = decode_image(f"{root}{os.sep}{file}", None, name=_printable(file))
            except SourceError as error:
                problem = problem or str(error)
                continue
            return (3, pixels.shape[0], pixels.shape[1]), _printable(file)
    raise SourceError(f"{_printable(root)}: none of {len(files)} images can be read; the first: {problem}")


def _printable(name: str) -> str:
    # File names need not be valid text, but messages and the names in a pack must be.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
