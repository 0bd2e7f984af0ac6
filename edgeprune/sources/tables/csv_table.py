"""A table in a text file: paths of images and their labels, for folders in any arrangement."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import Target

from ...errors import SourceError
from ..base import Rows
from ..columns.requests import TargetRequest, are_enough, parse_targets
from ..columns.values import make_target
from ..decoding.encoded import EncodedSource, first_shape
from ..decoding.files import as_text
from ..decoding.packed import PackedTexts
from ..naming.classes import Classes, classes_of
from ..naming.labels import LabelError, Labels
from ..naming.options import SourceOptions, without_options
from ..naming.patterns import refuse_remote
from ..naming.split_names import NAMES, Division, divide_rows
from .column_names import IMAGE_NAMES, LABEL_NAMES, SPLIT_NAME, only_one, refuse_repeated

__all__ = ["open_csv", "open_listed", "read_csv"]

_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class _Table:
    """What a file holds, by rows; `lines` are those that editors show."""

    file: str
    paths: PackedTexts
    lines: array[int]
    labels: Labels
    splits: Labels
    label_column: str | None
    split_column: str | None
    targets: tuple[Target, ...] = ()

    def add(self, line: int, row: list[str], at: Mapping[str, int], path: str) -> None:
        """Add a row, whose columns are at the places `at`; `path` is that of paths."""
        try:
            if self.label_column is not None:
                self.labels.append(row[at[self.label_column]])
            if self.split_column is not None:
                self.splits.append(row[at[self.split_column]])
        except LabelError as error:
            raise SourceError(f"{as_text(self.file)}, line {line}: its label or split {error}") from error
        place = row[at[path]].strip()
        if not place or "\0" in place:
            raise SourceError(f"{as_text(self.file)}, line {line}: {path} is no path")
        self.paths.append(place)
        self.lines.append(line)

    def name(self, row: int) -> str:
        return f"{as_text(self.file)}, line {self.lines[row]}: {self.paths[row]}"

    def path(self, row: int) -> str:
        # An absolute path stands for itself.
        return str(Path(self.file).parent / self.paths[row])


@dataclass(frozen=True, eq=False, kw_only=True)
class CsvSource(EncodedSource):
    """Image files that a table lists; implements `Source`.

    Attributes
    ----------
    table : _Table
    rows : int64 [N]
        The rows of the table that are read.
    """

    table: _Table
    rows: NDArray[np.int64]

    def name(self, row: int) -> str:
        """Return the table, the line and the path of image `row`."""
        return self.table.name(int(self.rows[row]))

    def content(self, row: int) -> str:
        """Return the path of image `row`.

        Raises
        ------
        SourceError
            It is a URL.
        """
        place = int(self.rows[row])
        if "://" in self.table.paths[place]:
            raise SourceError(f"{self.name(row)}: is a URL; nothing is downloaded here")
        return self.table.path(place)

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes that some files take in all."""
        return sum(Path(self.content(int(row))).stat().st_size for row in rows)


def open_csv(spec: str, split: str, size: int | None) -> CsvSource:
    """Open a table of paths and labels: ``csv:FILE``.

    The first line names the columns; which ones hold paths, labels and, if there is one, splits, is found by
    usual names or said after the file, see `edgeprune.sources.naming.options`. Fields are divided by ``,``,
    ``;``, ``|`` or tabs; text is UTF-8. Paths are relative to the folder of the table. Labels that are all
    integers are the numbers of classes. Other columns become targets where they are named; then there need
    not be labels.

    Parameters
    ----------
    spec : str
        ``"csv:FILE"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        See `edgeprune.sources.decoding.scaling.resize_and_crop`; None takes the shape of the first image that
        can be read.

    Raises
    ------
    ConfigError
        FILE is missing in `spec`, or an option cannot be.
    SourceError
        The file is no such table, or its columns cannot be used. That an image is missing is found when it is
        read.
    """
    place, options = without_options(spec)
    file = place.partition(":")[2]
    if not file:
        raise ConfigError("csv needs a file; write csv:FILE")
    refuse_remote("csv", file)
    path = str(Path(file).expanduser())
    return open_listed(spec, path, split, size, options)


def open_listed(spec: str, path: str, split: str, size: int | None, options: SourceOptions) -> CsvSource:
    """Open the images that a table lists, see `open_csv`.

    Parameters
    ----------
    spec : str
        What the user named.
    path : str
        Of the table.
    split, size
        As in `open_csv`.
    options : SourceOptions
    """
    table = read_csv(path, partial(_table, path, options=options))
    division = _division(table, split, options)
    shown = as_text(table.file)
    rows = np.flatnonzero(division.own)
    classes = Classes(np.zeros(len(rows), np.int64), (), ())
    if table.label_column is not None:
        classes = classes_of(
            table.labels,
            division,
            options,
            split=split,
            own_names=None,
            where=f"{shown}: {table.label_column}",
            row_name=table.name,
        )
    images = ((table.name(row), partial(table.path, row)) for row in rows.tolist())
    shape, model = first_shape(size, images, shown)
    return CsvSource(
        spec=spec,
        split=split,
        class_names=classes.names,
        labels=classes.labels,
        shape=shape,
        size=size,
        model=model,
        undivided=division.undivided,
        notes=classes.notes,
        table=replace(table, targets=()),
        rows=rows,
        targets=tuple(target.take(rows) for target in table.targets),
    )


def _division(table: _Table, split: str, options: SourceOptions) -> Division:
    words = table.splits.texts
    if words and (options.split_column is not None or any(word.lower() in NAMES for word in words)):
        codes = np.array(table.splits.codes, np.int64)
        return divide_rows(codes, list(words), split, f"{as_text(table.file)}: {table.split_column}")
    return Division(np.ones(len(table.paths), np.bool_), None, True)


_Made = TypeVar("_Made")


def read_csv(file: str, make: Callable[[Iterator[tuple[int, list[str]]]], _Made]) -> _Made:
    """Return what `make` makes of the rows of a table, each with its line, the names of columns first.

    Raises
    ------
    SourceError
        It cannot be read, or is no text in UTF-8, or no table.
    """
    shown = as_text(file)
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as stream:
            delimiter = max(_DELIMITERS, key=stream.readline(2**16).count)
            stream.seek(0)
            rows = csv.reader(stream, delimiter=delimiter, strict=True)
            return make((rows.line_num, row) for row in rows)
    except OSError as error:
        raise SourceError(f"{shown}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{shown}: is not text in UTF-8; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise SourceError(f"{shown}, line {rows.line_num}: is no line of a table: {error}") from error


def _table(file: str, rows: Iterator[tuple[int, list[str]]], *, options: SourceOptions) -> _Table:
    shown = as_text(file)
    _, header = next(rows, (0, []))
    if not header:
        raise SourceError(f"{shown}: has no column of paths: its first line is empty; write path,label there")
    columns = [name.strip() for name in header]
    requests = parse_targets(options.target)
    path, label, split = _columns(columns, options, requests, shown)
    texts_of: dict[str, list[str]] = {name: [] for request in requests for name in request.columns}
    at = {name: columns.index(name) for name in (path, label, split, *texts_of) if name is not None}
    table = _Table(file, PackedTexts(), array("q"), Labels(), Labels(), label, split)
    for line, row in rows:
        if not row:
            continue
        if len(row) != len(columns):
            raise SourceError(
                f"{shown}, line {line}: has {len(row)} fields, and the first line names {len(columns)}"
            )
        table.add(line, row, at, path)
        for name, texts in texts_of.items():
            texts.append(row[at[name]])
    if not len(table.paths):
        raise SourceError(f"{shown}: has no rows below its first line; it names the columns: path,label")
    try:
        table = replace(table, labels=table.labels.numbered())
    except LabelError as error:
        raise SourceError(f"{shown}, line {table.lines[error.place]}: its label {error}") from error
    arrays = {name: np.array(texts, object) for name, texts in texts_of.items()}
    targets = tuple(
        make_target(request, [arrays[name] for name in request.columns], shown, table.name)
        for request in requests
    )
    if label is None and not are_enough(target.column.kind for target in targets):
        raise SourceError(f"{shown}: has no column of labels, and no target that can be learned")
    return replace(table, targets=targets)


def _columns(
    columns: list[str], options: SourceOptions, requests: Sequence[TargetRequest], shown: str
) -> tuple[str, str | None, str | None]:
    named = [name for request in requests for name in request.columns]
    plain = [request.name for request in requests if request.columns == (request.name,)]
    for name in (options.image_column, options.label_column, options.split_column, *named):
        if name is None:
            continue
        refuse_repeated(name, columns, shown)
        if name not in columns:
            other = f"; `target={name}=COLUMN` takes another" if name in plain else ""
            raise SourceError(f"{shown}: has no column {name!r}; its columns are {', '.join(columns)}{other}")
    path = options.image_column or only_one(
        [name for name in columns if name.lower() in IMAGE_NAMES], (), columns, shown, "paths", "image_column"
    )
    label = options.label_column
    found = [name for name in columns if name.lower() in LABEL_NAMES and name not in named]
    # A table whose targets are named needs no labels.
    if label is None and (found or not requests):
        label = only_one(found, ("label",), columns, shown, "labels", "label_column")
    split = options.split_column or next((name for name in columns if name.lower() == SPLIT_NAME), None)
    if split is not None:
        refuse_repeated(split, columns, shown)
    return path, label, split
