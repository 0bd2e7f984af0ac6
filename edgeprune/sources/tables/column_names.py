"""The usual names of columns, and what to do where several could be meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import SourceError

__all__ = ["IMAGE_NAMES", "LABEL_NAMES", "SPLIT_NAME", "only_one", "refuse_repeated"]

# Compared in lower case.
IMAGE_NAMES = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "image_file"),
    *("img", "img_path", "image_name"),
)
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "cls", "y")
SPLIT_NAME = "split"


def only_one(
    found: Sequence[str],
    first: Iterable[str],
    columns: Iterable[str],
    where: str,
    kind: str,
    option: str,
) -> str:
    """Return the one column that was found.

    Parameters
    ----------
    found : sequence of str
        Columns that may be meant.
    first : iterable of str
        Names, in lower case, that come before all others, the first before the second.
    columns : iterable of str
        All columns there are, for messages.
    where, kind, option : str
        The file, what the column holds, and the option that names it, for messages.

    Raises
    ------
    SourceError
        There is none, or several.
    """
    for name in first:
        alike = [column for column in found if column.lower() == name]
        found = alike if len(alike) == 1 else found
    if len(found) == 1:
        return found[0]
    for name in found:
        refuse_repeated(name, found, where)
    flag = option.replace("_", "-")
    remedy = f"name it with `{option}`, or add ?{flag}=NAME to the source"
    if found:
        raise SourceError(f"{where}: {' and '.join(found)} may hold the {kind}; {remedy}")
    raise SourceError(f"{where}: has no column of {kind}; its columns are {', '.join(columns)}; {remedy}")


def refuse_repeated(name: str, columns: Sequence[str], where: str) -> None:
    """Raise SourceError if several columns have a name that is asked for."""
    if columns.count(name) > 1:
        raise SourceError(f"{where}: has {columns.count(name)} columns {name!r}; give each a name of its own")
