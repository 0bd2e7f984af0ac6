"""The names that splits of a data set have, in folders, in names of files and in columns of tables."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import SourceError
from ..decoding.files import as_text
from .patterns import only_once

__all__ = [
    "NAMES",
    "SPLITS",
    "Division",
    "SplitFiles",
    "chosen_group",
    "divide_files",
    "divide_rows",
    "split_word",
]

# By split, in any case of letters; where there are several, those of the first group count.
SPLITS = {
    "train": (("train", "training"),),
    "test": (("test", "testing"), ("eval",), ("val", "valid", "validation")),
}
NAMES = frozenset(name for groups in SPLITS.values() for group in groups for name in group)
_WORD = re.compile(
    r"(?<![a-z])(" + "|".join(sorted(NAMES, key=len, reverse=True)) + r")(?:set|data|images?|imgs?)?(?![a-z])"
)


def split_word(name: str) -> str | None:
    """Return the split that a name speaks of, such as ``"train"`` for ``"train-00000-of-00002.parquet"``.

    None where it speaks of none, or of several.
    """
    words = set(_WORD.findall(name.lower()))
    return words.pop() if len(words) == 1 else None


def chosen_group(words: Iterable[str], split: str) -> tuple[str, ...] | None:
    """Return the names that stand for a split among those found; None if none of them does."""
    found = set(words)
    return next((group for group in SPLITS[split] if not found.isdisjoint(group)), None)


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split.

    Attributes
    ----------
    files : tuple of str
    training : tuple of str
        The files with the training images, where `files` are those of a test split.
    undivided : bool
        Whether the files have no splits, so that either split is all of them.
    """

    files: tuple[str, ...]
    training: tuple[str, ...]
    undivided: bool


def divide_files(files: Sequence[str], base: str, split: str, *, kind: str, must_divide: bool) -> SplitFiles:
    """Choose the files of a split by their names, or by those of the folders that they lie in.

    Parameters
    ----------
    files : sequence of str
    base : str
        A folder that all lie below; its own name does not count.
    split : str
        ``"train"`` or ``"test"``.
    kind : str
        What stands before the colon, for messages.
    must_divide : bool
        Whether files of one split alone are this split's only; otherwise they are taken for any.

    Raises
    ------
    SourceError
        There are none for the split, files of splits beside others, or a file of the split twice.
    """
    words = {file: _word_of(os.path.relpath(file, base)) for file in files}
    named = sorted({word for word in words.values() if word is not None})
    if not named or (not must_divide and len(named) == 1 and None not in words.values()):
        return SplitFiles(_once(files), (), True)
    first = {word: as_text(next(file for file in files if words[file] == word)) for word in named}
    other = next((as_text(file) for file in files if words[file] is None), None)
    if other is not None:
        raise SourceError(
            f"{as_text(base)}: has {os.path.basename(first[named[0]])} of a split beside "  # noqa: PTH119
            f"{os.path.basename(other)} of none; name the files of one, such as {kind}:{first[named[0]]}"  # noqa: PTH119
        )
    group = chosen_group(named, split)
    if group is None:
        raise SourceError(
            f"{as_text(base)}: has files of {' and '.join(named)}, but none of the {split} split; to take "
            f"some as they are, name them, such as {kind}:{first[named[0]]}"
        )
    training = SPLITS["train"][0] if split == "test" else ()
    return SplitFiles(
        _once(file for file in files if words[file] in group),
        tuple(file for file in files if words[file] in training),
        False,
    )


def _once(files: Iterable[str]) -> tuple[str, ...]:
    # Two splits may have the same file: a cache such as that of the Hub keeps equal files once.
    return only_once(files, "is there twice", "remove the link, or name a folder that holds it once")


def _word_of(path: str) -> str | None:
    # The name of the file comes before those of its folders.
    return next(filter(None, map(split_word, reversed(Path(path).parts))), None)


@dataclass(frozen=True)
class Division:
    """Which rows of a table are of a split.

    Attributes
    ----------
    own : bool [N]
    training : bool [N] or None
        The rows of the training images, where `own` are those of a test split.
    undivided : bool
        Whether the table has no splits.
    """

    own: NDArray[np.bool_]
    training: NDArray[np.bool_] | None
    undivided: bool


def divide_rows(codes: NDArray[np.int64], texts: Sequence[str], split: str, where: str) -> Division:
    """Choose the rows of a split by a column.

    Parameters
    ----------
    codes : int64 [N]
        Places in `texts`.
    texts : sequence of str
        What the column says, such as ``"train"`` and ``"Val"``.
    split : str
        ``"train"`` or ``"test"``.
    where : str
        What messages call the column.

    Raises
    ------
    SourceError
        It names something that is no split, or no row is of this one.
    """
    words = [text.strip().lower() for text in texts]
    used: Collection[int] = set(np.unique(codes).tolist())
    unknown = [texts[code] for code in sorted(used) if words[code] not in NAMES]
    if unknown:
        raise SourceError(f"{where}: says {unknown[0][:40]!r}, and splits are {', '.join(sorted(NAMES))}")
    found = sorted({words[code] for code in used})
    group = chosen_group(found, split)
    if group is None:
        raise SourceError(f"{where}: has {' and '.join(found)}, but no row of the {split} split")

    def rows_of(names: tuple[str, ...]) -> NDArray[np.bool_]:
        return np.array([word in names for word in words], np.bool_)[codes]

    training = rows_of(SPLITS["train"][0]) if split == "test" else None
    return Division(rows_of(group), training if training is not None and training.any() else None, False)
