"""Which files of a folder count as images, for the builder and for predictions alike."""

from __future__ import annotations

import difflib
import errno
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import SourceError
from .images import IMAGE_SUFFIXES, UNREAD_SUFFIXES

__all__ = [
    "as_text",
    "has_images",
    "images_below",
    "is_folder",
    "is_inner_folder",
    "sub_folders",
    "unread_text",
    "visible",
]

# What operating systems, network drives and editors leave in folders; hidden names are passed over anyway.
_NOT_OURS = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "__pycache__")


def visible(folder: str) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, in the order of names, without hidden entries and those of systems.

    Raises
    ------
    SourceError
        It cannot be listed; a similar name beside it is named.
    """
    with _listed(folder) as entries:
        return sorted(filter(_is_ours, entries), key=lambda entry: entry.name)


@contextmanager
def _listed(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        entries = os.scandir(folder)
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = _similar(Path(folder))
        elif isinstance(error, PermissionError):
            hint = "; give yourself the right to read it (chmod u+rx), or move it elsewhere"
        reason = f"cannot be listed as a folder: {error.strerror}{hint}"
        raise SourceError(f"{as_text(folder)}: {reason}") from error
    with entries:
        yield entries


def sub_folders(folder: str) -> list[str]:
    """Return the names of the visible folders in a folder."""
    return [entry.name for entry in visible(folder) if is_folder(entry)]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder, or links to one.

    Raises
    ------
    SourceError
        A link without a suffix, which may have led to a folder of images, leads nowhere.
    """
    try:
        found, reason = entry.is_dir(), os.strerror(errno.ENOENT)
    except OSError as error:
        found, reason = False, str(error.strerror)
    if not found and entry.is_symlink() and not _suffix(entry) and _is_lost(entry.path):
        raise SourceError(f"{as_text(entry.path)}: the link leads nowhere ({reason}); mend it, or remove it")
    return found


def _is_lost(link: str) -> bool:
    # The links of git-annex stand for files alone, which may not have been fetched.
    return not Path(link).exists() and "/annex/objects/" not in os.readlink(link)  # noqa: PTH115


def is_inner_folder(entry: os.DirEntry[str], path: str) -> bool:
    """Tell as `is_folder`, and refuse a link to a folder that holds `path`, where the entry lies."""
    found = is_folder(entry)
    if found and entry.is_symlink() and Path(path).resolve().is_relative_to(Path(entry.path).resolve()):
        raise SourceError(f"{as_text(entry.path)}: links to a folder that it lies in; remove the link")
    return found


def has_images(folder: str) -> bool:
    """Tell whether images lie directly in a folder; raises as `visible`."""
    # Most folders of classes hold nothing else: the first entry tells.
    with _listed(folder) as entries:
        return any(
            _is_ours(entry) and _suffix(entry) in IMAGE_SUFFIXES and not is_folder(entry) and _is_read(entry)
            for entry in entries
        )


def images_below(root: str, folder: str = "", unread: Counter[str] | None = None) -> Iterator[str]:
    """Give the image files below `root`/`folder`, at any depth, relative to `root`.

    Parameters
    ----------
    root, folder : str
    unread : Counter, optional
        Receives the suffixes of images in formats that are not read.

    Raises
    ------
    SourceError
        A folder cannot be listed, or is a link to one that it lies in, or nowhere.
    """
    path = f"{root}{os.sep}{folder}" if folder else root
    for entry in visible(path):
        name = f"{folder}{os.sep}{entry.name}" if folder else entry.name
        suffix = _suffix(entry)
        if is_inner_folder(entry, path):
            yield from images_below(root, name, unread)
        elif suffix in IMAGE_SUFFIXES and _is_read(entry):
            yield name
        elif suffix in UNREAD_SUFFIXES and unread is not None:
            unread[suffix] += 1


def unread_text(unread: Counter[str]) -> str:
    """Return a line on the images that are not read, empty where there are none."""
    if not unread:
        return ""
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in unread.most_common())
    return f"images in formats that are not read: {kinds}; convert them to JPEG or PNG"


def as_text(name: str) -> str:
    """Return a file name as valid text, which names need not be, but messages and names in packs must."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_ours(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.name.lower() not in _NOT_OURS


def _is_read(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is read; a link that leads nowhere is, and is an image that cannot be read."""
    return entry.is_symlink() or entry.is_file()


def _suffix(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path for each file takes long


def _similar(path: Path) -> str:
    """Return a hint at the folder that may have been meant."""
    try:
        beside = {entry.name.lower(): entry.name for entry in path.parent.iterdir() if entry.is_dir()}
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name.lower(), beside, 1)
    return f"; did you mean imagefolder:{as_text(str(path.parent / beside[close[0]]))}?" if close else ""
