"""The files that a user names after ``parquet:`` or ``webdataset:``: one, a folder of them, or a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from edgeprune_formats import ConfigError

from ...errors import SourceError
from ..decoding.files import as_text, is_inner_folder, visible

__all__ = ["FoundFiles", "files_below", "find_files", "only_once", "refuse_remote"]

_MAX_FILES = 2**17
_RANGE = re.compile(r"(?<!\\)\{(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?\}")


@dataclass(frozen=True)
class FoundFiles:
    """Files that a pattern names.

    Attributes
    ----------
    files : tuple of str
        Paths, in the order of the pattern, and of names where it leaves an order open.
    base : str
        The folder that all of them lie below.
    is_folder : bool
        Whether a folder was named, so that the files in it may be of several splits.
    """

    files: tuple[str, ...]
    base: str
    is_folder: bool


def find_files(kind: str, pattern: str, suffixes: tuple[str, ...]) -> FoundFiles:
    """Find the files of a source: those of a folder at any depth, or those that a pattern names.

    A pattern has ``*``, ``?``, ``[...]`` and ``**`` of a shell, braces such as ``{000..015}`` and ``{a,b}``,
    and joins others by ``::``.

    Parameters
    ----------
    kind : str
        What stands before the colon.
    pattern : str
    suffixes : tuple of str
        The endings of files in a folder, in lower case.

    Raises
    ------
    ConfigError
        The pattern is a URL, or its braces cannot be read.
    SourceError
        A file is missing, or named twice, or nothing is found.
    """
    refuse_remote(kind, pattern)
    path = str(Path(pattern).expanduser())
    # A pattern may be longer than a path, which pathlib takes for an error.
    if os.path.isdir(path):  # noqa: PTH112
        files = tuple(files_below(path, suffixes))
        if not files:
            raise SourceError(f"{as_text(path)}: holds no files that end in {' or '.join(suffixes)}")
        return FoundFiles(files, path, True)
    named = [path] if os.path.isfile(path) else _expanded(kind, pattern)  # noqa: PTH113
    files = only_once(named, "is named twice", "name each file once")
    return FoundFiles(files, os.path.commonpath([os.path.dirname(file) or "." for file in files]), False)  # noqa: PTH120


def refuse_remote(kind: str, pattern: str) -> None:
    """Raise `ConfigError` for what is no path on this machine."""
    if "://" in pattern or pattern.startswith("pipe:"):
        raise ConfigError(
            f"{kind}:{pattern}: is no path; nothing is downloaded here: fetch the files, name those"
        )


def files_below(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the visible files with these endings in a folder, at any depth, in the order of names.

    Raises
    ------
    SourceError
        A folder cannot be listed, or a link leads nowhere or to a folder around it.
    """
    found: list[str] = []
    for entry in visible(folder):
        if is_inner_folder(entry, folder):
            found += files_below(entry.path, suffixes)
        elif entry.name.lower().endswith(suffixes) and (
            _is_file(entry.path) if entry.is_symlink() else entry.is_file()
        ):
            found.append(entry.path)
    return found


def only_once(files: Iterable[str], what: str, remedy: str) -> tuple[str, ...]:
    """Return files as they are.

    Raises
    ------
    SourceError
        One of them is another one, maybe by a link: its images would come twice.
    """
    seen: dict[str, str] = {}
    # To resolve each path as a whole takes long.
    real_folder = cache(os.path.realpath)
    for file in files:
        folder, name = os.path.split(file)
        is_link = os.path.islink(file)  # noqa: PTH114
        real = os.path.realpath(file) if is_link else os.path.join(real_folder(folder), name)  # noqa: PTH118
        if real in seen:
            raise SourceError(f"{as_text(file)}: {what} ({as_text(seen[real])}); {remedy}")
        seen[real] = file
    return tuple(seen.values())


def _is_file(path: str) -> bool:
    """Tell whether there is a file, and refuse a link that leads nowhere: its images would be missing."""
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
        raise SourceError(f"{as_text(path)}: the link leads nowhere; mend it, or remove it")
    return os.path.isfile(path)  # noqa: PTH113


def _expanded(kind: str, pattern: str) -> list[str]:
    files: list[str] = []
    for part in pattern.split("::"):
        for name in _braces(kind, part) if "{" in part else [part]:
            path = str(Path(name).expanduser())
            is_glob = not os.path.exists(path) and glob.has_magic(path)  # noqa: PTH110
            found = sorted(glob.glob(path, recursive=True)) if is_glob else [path]  # noqa: PTH207
            found = [file for file in found if _is_file(file)]
            if not found:
                shown, reason = as_text(path), "names no file" if is_glob else "No such file"
                raise SourceError(f"{shown}: {reason}; {kind} takes a file, a folder or a pattern")
            files += found
    return files


def _braces(kind: str, pattern: str) -> list[str]:
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise ConfigError("braces need braceexpand; pip install 'edgeprune[webdataset]'") from error
    too_many = f"{kind}:{as_text(pattern)}: names more than {_MAX_FILES:,} files; name fewer"
    try:
        # Each range is expanded before the first name is there.
        for first, last, step in _RANGE.findall(pattern):
            if abs(int(last) - int(first)) // max(1, int(step or 1)) >= _MAX_FILES:
                raise ConfigError(too_many)
        names = list(islice(braceexpand(pattern), _MAX_FILES + 1))
    except ValueError as error:
        raise ConfigError(
            f"{kind}:{pattern}: braces without a partner; write {{000..015}} or {{a,b}}"
        ) from error
    if len(names) > _MAX_FILES:
        raise ConfigError(too_many)
    return names
