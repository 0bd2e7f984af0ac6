"""Whether the folders in a folder are classes, or splits such as train and test that hold the classes.

This is the one rule for all who read ``imagefolder:PATH``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import SourceError
from ..decoding.files import as_text, has_images, images_below, is_folder, sub_folders, visible
from ..decoding.images import IMAGE_SUFFIXES
from ..naming.split_names import NAMES, SPLITS, split_word

__all__ = ["ClassRoot", "find_class_root", "refuse_splits_in_classes"]

_USUAL = {"train": "train", "test": "test or val"}


@dataclass(frozen=True)
class ClassRoot:
    """Where the class folders of a split lie.

    Attributes
    ----------
    path : str
        The folder that holds them.
    train : str or None
        The folder with those of the train split, whose numbers the classes of a test split have.
    notes : tuple of str
        What a user should know of how the folder was understood.
    """

    path: str
    train: str | None
    notes: tuple[str, ...]


def find_class_root(path: str, split: str) -> ClassRoot:
    """Find the folder whose sub-folders are the classes of a split.

    Sub-folders are splits if one has a name of a split: train, training, test, testing, eval, val, valid or
    validation. Folders beside them must hold no images. One exception: a folder called train with images
    directly in it, as the only such name beside others, is a class. Folders whose names speak of splits in
    other ways, such as training_set, are to be named.

    Parameters
    ----------
    path : str
        A folder.
    split : str
        ``"train"`` or ``"test"``.

    Raises
    ------
    SourceError
        There is no such split; splits and classes are mixed; `path` is too high. The message says what to
        name.
    """
    splits = _split_folders(path)
    root, train = path, None
    if splits:
        root = _chosen(path, splits, split)
        if split == "test" and any(name.lower() in SPLITS["train"][0] for name in splits):
            train = _chosen(path, splits, "train")
    for folder in filter(None, (train, root)):
        _refuse_splits_in_split(folder, path)
        _refuse_too_high(folder)
        _refuse_hidden_splits(folder)
    return ClassRoot(root, train, tuple(_notes(root)))


def _split_folders(path: str) -> list[str]:
    """Return the sub-folders that are splits; none where they are classes."""
    folders = sub_folders(path)
    named = [name for name in folders if name.lower() in NAMES]
    others = (
        [name for name in folders if name not in named and any(images_below(path, name))] if named else []
    )
    if not others or _is_vehicle(path, named):
        return [] if others else named
    train = [name for name in named if name.lower() in SPLITS["train"][0]]
    shown, first = as_text(path), as_text((train or named)[0])
    raise SourceError(
        f"{shown}: has {_listed(named)} beside {_listed(others)}; if {first} holds class folders, name it: "
        f"imagefolder:{shown}/{first}; if it is a class, give it another name; else move it elsewhere"
    )


def _is_vehicle(path: str, named: list[str]) -> bool:
    return [name.lower() for name in named] == ["train"] and has_images(f"{path}{os.sep}{named[0]}")


def _chosen(path: str, splits: list[str], split: str) -> str:
    shown = as_text(path)
    for group in SPLITS[split]:
        found = [name for name in splits if name.lower() in group]
        if len(found) > 1:
            named = f"imagefolder:{shown}/{as_text(found[0])}"
            raise SourceError(
                f"{shown}: has {_listed(found)} for the {split} split; name one, such as {named}"
            )
        if found:
            return f"{path}{os.sep}{found[0]}"
    raise SourceError(
        f"{shown}: has {_listed(splits)} but no {_USUAL[split]} folder for the {split} split; "
        f"to take a folder of classes as it is, name it: imagefolder:{shown}/{as_text(splits[0])}"
    )


def _refuse_splits_in_split(root: str, path: str) -> None:
    if root != path and (inner := _split_folders(root)):
        shown, first = as_text(root), as_text(inner[0])
        raise SourceError(
            f"{shown}: holds {_listed(inner)} in place of classes; name the folder that holds the classes, "
            f"such as imagefolder:{shown}/{first}"
        )


def _refuse_too_high(root: str) -> None:
    """Raise where the folders in `root` are no classes, but hold splits, or all the classes."""
    shown, folders = as_text(root), sub_folders(root)
    inner = root
    while len(inside := sub_folders(inner)) == 1 and not has_images(inner):
        inner = f"{inner}{os.sep}{inside[0]}"
    if inner != root and inside and not has_images(inner):
        raise SourceError(
            f"{shown}: holds nothing but {as_text(os.path.relpath(inner, root))}, which holds "
            f"{_listed(inside)}; name that folder: imagefolder:{as_text(inner)}"
        )
    for name in folders:
        folder = f"{root}{os.sep}{name}"
        if not has_images(folder) and (splits := _split_folders(folder)):
            raise SourceError(
                f"{as_text(folder)}: holds {_listed(splits)} in place of images; "
                f"if it holds the data set, name it: imagefolder:{as_text(folder)}; "
                f"if it is a class, arrange the folders as {as_text(splits[0])}/{as_text(name)}"
            )


def _refuse_hidden_splits(root: str) -> None:
    """Raise where folders speak of splits in other words than their usual names."""
    folders = sub_folders(root)
    speaking = [name for name in folders if split_word(name) is not None]
    holding = [name for name in speaking if not has_images(f"{root}{os.sep}{name}")]
    if holding or (len(speaking) == len(folders) > 1):
        name, shown = (holding or speaking)[0], as_text(root)
        raise SourceError(
            f"{shown}: {_listed(holding or speaking)} may be splits; if {as_text(name)} holds class folders, "
            f"name it: imagefolder:{shown}/{as_text(name)}; if it is a class, give it another name"
        )


def refuse_splits_in_classes(root: str, files: Iterable[str]) -> None:
    """Raise where the folder of a class holds splits, at any depth.

    Parameters
    ----------
    root : str
    files : iterable of str
        Image files relative to `root`, the folder of the class first.

    Raises
    ------
    SourceError
        The message says what to do.
    """
    deep = {file.rpartition(os.sep)[0] for file in files if file.count(os.sep) > 1}
    for folder in sorted(deep):
        parts = Path(folder).parts
        for depth, part in enumerate(parts[1:], 1):
            above = str(Path(root, *parts[:depth]))
            if part.lower() in NAMES and (splits := _split_folders(above)):
                raise SourceError(
                    f"{as_text(above)}: holds {_listed(splits)} inside a class; if it holds the data set, "
                    f"name it: imagefolder:{as_text(above)}; if it is a class, give its folders other names"
                )


def _notes(root: str) -> list[str]:
    """Return what may be other than a user thinks."""
    shown, folders = as_text(root), sub_folders(root)
    loose = [e.name for e in visible(root) if e.name.lower().endswith(IMAGE_SUFFIXES) and not is_folder(e)]
    notes = []
    if folders and loose:
        notes.append(f"{shown}: {len(loose):,} images beside the class folders are left out")
    notes += [
        f"{shown}: takes the folder {as_text(name)} for a class, as images lie directly in it"
        for name in folders
        if name.lower() in NAMES
    ]
    for name in folders:
        folder = f"{root}{os.sep}{name}"
        if not has_images(folder) and len(inside := sub_folders(folder)) > 1:
            notes.append(f"{shown}: all images below {as_text(name)} ({_listed(inside)}) are of one class")
            break
    return notes


def _listed(names: list[str]) -> str:
    shown = [as_text(name) for name in names[:3]] + (["..."] if len(names) > 3 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
