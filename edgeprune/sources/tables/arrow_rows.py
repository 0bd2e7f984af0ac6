"""What Parquet files and data sets of Hugging Face have in common: rows of tables in several files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgeprune_formats.targets import Target

from ...errors import SourceError
from ..columns.requests import TargetRequest, are_enough, parse_targets
from ..columns.values import make_target
from ..decoding.files import as_text
from ..naming.classes import Classes, classes_of
from ..naming.labels import LabelError, Labels
from ..naming.options import SourceOptions
from ..naming.split_names import NAMES, Division, SplitFiles, divide_rows
from .arrow_columns import Columns, add_labels, find_columns, values_of

__all__ = ["ARROW_ERRORS", "TableReader", "TableRows", "read_json", "read_rows"]

# Of damaged files pyarrow raises these; some are built-in errors as well.
ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, IndexError)

TableReader = Callable[[str, Sequence[str]], Mapping[str, pa.ChunkedArray]]
"""Returns some columns of a file, given its path and their names."""


@dataclass(frozen=True)
class TableRows:
    """The rows of a split.

    Attributes
    ----------
    columns : Columns
    counts : tuple of int
        The rows of each file of the split.
    rows : int64 [n]
        The rows that are read, counted through all files of the split.
    classes : Classes
        Of these rows.
    undivided : bool
        Whether there are no splits.
    targets : tuple of Target
        Of these rows.
    """

    columns: Columns
    counts: tuple[int, ...]
    rows: NDArray[np.int64]
    classes: Classes
    undivided: bool
    targets: tuple[Target, ...]


@dataclass
class _Gathered:
    """What the columns of all files hold, one file after the other; `codes` is the column of splits."""

    columns: Columns
    codes: str | None
    parts: dict[str, list[NDArray[Any]]]
    labels: Labels = field(default_factory=Labels)
    words: Labels = field(default_factory=Labels)
    counts: list[int] = field(default_factory=list)

    def add(self, read: TableReader, file: str) -> None:
        label, codes = self.columns.label, self.codes
        table = _table(read, file, list(dict.fromkeys(name for name in (label, codes, *self.parts) if name)))
        if label is not None:
            _add(self.labels, table[label], file, label)
        if codes is not None:
            _add(self.words, table[codes], file, codes)
        for name, values in self.parts.items():
            values.append(_values(table[name], file, self.columns.target_names.get(name)))
        self.counts.append(len(next(iter(table.values()))))

    def target(self, request: TargetRequest, where: str, row_name: Callable[[int], str]) -> Target:
        arrays = [np.concatenate(self.parts[name]) for name in request.columns]
        known = self.columns.target_names.get(request.columns[0])
        return make_target(request, arrays, where, row_name, known)


def read_rows(
    found: SplitFiles,
    schema_of: Callable[[str], pa.Schema],
    read: TableReader,
    options: SourceOptions,
    *,
    split: str,
    info: Mapping[str, Any] | None = None,
) -> TableRows:
    """Read the labels of a split, and by what column the rows are divided, but no images.

    Parameters
    ----------
    found : SplitFiles
    schema_of, read : callable
        Return the schema and columns of a file; may raise `ARROW_ERRORS`.
    options : SourceOptions
    split : str
        ``"train"`` or ``"test"``.
    info : mapping, optional
        Hugging Face's ``dataset_info.json``.

    Raises
    ------
    SourceError
        A file is damaged or unlike the first, or its columns cannot be used.
    """
    files = (*found.files, *found.training)
    first = as_text(files[0])
    columns = find_columns(_schema(schema_of, files[0]), options, first, info or {})
    codes = columns.split if found.undivided else None
    requests = parse_targets(options.target)
    gathered = _Gathered(columns, codes, {name: [] for request in requests for name in request.columns})
    for file in files:
        alike = find_columns(_schema(schema_of, file), _as_found(columns, options), as_text(file), info or {})
        if alike.class_names != columns.class_names:
            raise SourceError(f"{as_text(file)}: names other classes for {columns.label} than {first}")
        gathered.add(read, file)
    counts, row_name = gathered.counts, _namer(files, gathered.counts)
    where, is_named = f"{first}: {codes}", options.split_column is not None
    division = _division(found, counts, gathered.words, split, is_named, where)
    if not division.own.any():
        raise SourceError(f"{first}: holds no rows")
    rows = np.flatnonzero(division.own)
    targets = [gathered.target(request, first, row_name) for request in requests]
    classes = Classes(np.zeros(len(rows), np.int64), (), ())
    if columns.label is not None:
        classes = classes_of(
            gathered.labels,
            division,
            options,
            split=split,
            own_names=columns.class_names,
            where=f"{first}: {columns.label}",
            row_name=row_name,
        )
    elif not are_enough(target.column.kind for target in targets):
        raise SourceError(f"{first}: has no column of labels, and no target that can be learned")
    own = tuple(counts[: len(found.files)])
    taken = tuple(target.take(rows) for target in targets)
    return TableRows(columns, own, rows, classes, division.undivided, taken)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that Hugging Face wrote beside tables.

    Raises
    ------
    SourceError
        It is none, or cannot be read.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SourceError(f"{as_text(str(path))}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{as_text(str(path))}: is damaged: no JSON; save the data set again") from error
    if not isinstance(value, dict):
        raise SourceError(f"{as_text(str(path))}: is damaged: no object; save the data set again")
    return value


def _as_found(columns: Columns, options: SourceOptions) -> SourceOptions:
    return SourceOptions(columns.image, columns.label, columns.split, target=options.target)


def _values(column: pa.ChunkedArray, file: str, names: tuple[str, ...] | None) -> NDArray[Any]:
    try:
        return values_of(column, names)
    except ARROW_ERRORS as error:
        raise SourceError(_unreadable(file, error)) from error


def _schema(schema_of: Callable[[str], pa.Schema], file: str) -> pa.Schema:
    try:
        return schema_of(file)
    except ARROW_ERRORS as error:
        raise SourceError(_unreadable(file, error)) from error


def _table(read: TableReader, file: str, names: list[str]) -> Mapping[str, pa.ChunkedArray]:
    try:
        return read(file, names)
    except ARROW_ERRORS as error:
        raise SourceError(_unreadable(file, error)) from error


def _unreadable(file: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:160]
    return f"{as_text(file)}: is damaged, cut off or of another format: {reason}"


def _add(labels: Labels, column: pa.ChunkedArray, file: str, name: str) -> None:
    try:
        add_labels(labels, column)
    except LabelError as error:
        raise SourceError(f"{as_text(file)}[{error.place}]: {name} {error}") from error


def _namer(files: Sequence[str], counts: Iterable[int]) -> Callable[[int], str]:
    ends = np.cumsum(list(counts))

    def name(row: int) -> str:
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{as_text(files[file])}[{row - (int(ends[file - 1]) if file else 0)}]"

    return name


def _division(
    found: SplitFiles, counts: Sequence[int], words: Labels, split: str, is_named: bool, where: str
) -> Division:
    total, own = sum(counts), sum(counts[: len(found.files)])
    if words.texts and (is_named or any(word.lower() in NAMES for word in words.texts)):
        return divide_rows(np.array(words.codes, np.int64), list(words.texts), split, where)
    of_files = np.arange(total) < own
    return Division(of_files, ~of_files if found.training else None, found.undivided)
