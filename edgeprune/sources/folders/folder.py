"""A folder of image files, one sub-folder per class."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from ...errors import SourceError
from ..base import Rows
from ..columns.requests import parse_targets
from ..decoding.encoded import EncodedSource, first_shape
from ..decoding.files import as_text, images_below, sub_folders, unread_text, visible
from ..decoding.images import IMAGE_SUFFIXES
from ..naming.options import with_targets
from ..tables.csv_table import CsvSource, open_listed
from .metadata import FILE_COLUMN, METADATA, metadata_targets
from .splits import find_class_root, refuse_splits_in_classes

__all__ = ["FolderSource", "open_imagefolder"]


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderSource(EncodedSource):
    """Image files of one folder; implements `Source`.

    Attributes
    ----------
    root : str
        The folder whose sub-folders are the classes.
    files : tuple[str, ...]
        [N], relative to `root`.
    """

    root: str
    files: tuple[str, ...]

    def name(self, row: int) -> str:
        """Return the file of image `row` relative to the folder."""
        return as_text(self.files[row])

    def content(self, row: int) -> str:
        """Return the path of image `row`."""
        return f"{self.root}{os.sep}{self.files[row]}"

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes that some files take in all."""
        return sum(Path(self.content(row)).stat().st_size for row in rows)


def open_imagefolder(spec: str, split: str, size: int | None) -> FolderSource | CsvSource:
    """Open a folder of image files in torchvision's arrangement: ``PATH/cat/any/depth/1.jpg``.

    Classes are the sub-folders in the order of their names; hidden files and folders and files without
    an image suffix are passed over. If PATH holds folders for splits, such as train and test, the one for
    `split` is used, see `edgeprune.sources.folders.splits.find_class_root`, and the classes of a test split
    are those of the train folder where there is one. Otherwise PATH serves either split.

    A ``metadata.csv`` in the folder of the classes, or in PATH, tells more of each image: its columns become
    targets where they are named, such as ``imagefolder:PATH?target=age:value``. Its column ``file_name`` has
    the paths of the images. Where images lie directly in the folder, it tells their labels too, see
    `edgeprune.sources.tables.csv_table.open_csv`; with targets there need not be labels.

    Parameters
    ----------
    spec : str
        ``"imagefolder:PATH"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        See `edgeprune.sources.decoding.scaling.resize_and_crop`; None takes the shape of the first image that
        can be read.

    Raises
    ------
    ConfigError
        PATH is missing in `spec`.
    SourceError
        PATH is no folder, or holds no class folders, or what is no class, or (split ``"train"``) a class
        has no images.
    """
    place, options = with_targets(spec)
    argument = place.partition(":")[2]
    if not argument:
        raise ConfigError("imagefolder needs a folder; write imagefolder:PATH")
    path = str(Path(argument).expanduser())
    found = find_class_root(path, split)
    table = f"{found.path}{os.sep}{METADATA}"
    if not sub_folders(found.path) and Path(table).is_file():
        listed = open_listed(spec, table, split, size, replace(options, image_column=FILE_COLUMN))
        return replace(listed, undivided=found.path == path)
    root, classes = found.path, _class_folders(found.path)
    if found.train is not None:
        classes = _train_classes(found.train, root, classes)
    unread: Counter[str] = Counter()
    files, labels = _files(root, classes, split, unread)
    found_files = ((as_text(file), partial("{}{}{}".format, root, os.sep, file)) for file in files)
    shape, model = first_shape(size, found_files, as_text(root))
    refuse_splits_in_classes(root, files)
    names = tuple(as_text(name) for name in classes)
    notes = (*found.notes, *([f"{as_text(root)}: {unread_text(unread)}"] if unread else []))
    return FolderSource(
        spec=spec,
        split=split,
        class_names=names,
        labels=labels,
        shape=shape,
        size=size,
        model=model,
        undivided=root == path,
        notes=notes,
        root=root,
        files=files,
        targets=metadata_targets(parse_targets(options.target), root, path, files),
    )


def _class_folders(root: str) -> list[str]:
    folders = sub_folders(root)
    if folders:
        return folders
    shown = as_text(root)
    if any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in visible(root)):
        raise SourceError(
            f"{shown}: images lie directly in this folder; "
            f"put those of each class in a folder of its own, such as {shown}/cat and {shown}/dog"
        )
    raise SourceError(f"{shown}: is empty; it needs one folder of images per class")


def _train_classes(train: str, root: str, found: list[str]) -> list[str]:
    # Numbering the test folders by themselves would shift the labels when one class is absent.
    classes = _class_folders(train)
    unknown = [name for name in found if name not in classes]
    if unknown:
        where = as_text(f"{root}{os.sep}{unknown[0]}")
        raise SourceError(f"{where}: is a class that {as_text(train)} does not have")
    return classes


def _files(
    root: str, classes: list[str], split: str, unread: Counter[str]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    files: list[str] = []
    counts: list[int] = []
    for name in classes:
        before, unread_before = len(files), unread.copy()
        # A class that only the train folder has is no folder here.
        if split == "train" or (Path(root) / name).is_dir():
            files += images_below(root, name, unread)
        counts.append(len(files) - before)
        if split == "train" and not counts[-1]:
            where, suffixes = as_text(f"{root}{os.sep}{name}"), " ".join(IMAGE_SUFFIXES)
            other = unread_text(unread - unread_before)
            remedy = f"it holds {other}" if other else "add some or remove the folder"
            raise SourceError(f"{where}: class without images ({suffixes}); {remedy}")
    if not files:
        other = f"; {unread_text(unread)}" if unread else ""
        raise SourceError(f"{as_text(root)}: no images in any of its {len(classes)} class folders{other}")
    return tuple(files), np.repeat(np.arange(len(classes), dtype=np.int64), counts)
