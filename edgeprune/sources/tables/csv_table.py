"""A table in a text file: paths of images and their labels, for folders in any arrangement."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from ...errors import SourceError
from ..base import Rows
from ..decoding.encoded import EncodedSource, first_shape
from ..decoding.files import as_text
from ..decoding.packed import PackedTexts
from ..naming.classes import classes_of
from ..naming.labels import LabelError, Labels
from ..naming.options import SourceOptions, without_options
from ..naming.patterns import refuse_remote
from ..naming.split_names import NAMES, Division, divide_rows
from .column_names import IMAGE_NAMES, LABEL_NAMES, SPLIT_NAME, only_one

__all__ = ["open_csv"]

_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class _Table:
    """What a file holds, by rows; `lines` are those that editors show."""

    file: str
    paths: PackedTexts
    lines: array[int]
    labels: Labels
    splits: Labels
    label_column: str
    split_column: str | None

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
        """Return the path of image `row`."""
        return self.table.path(int(self.rows[row]))

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes that some files take in all."""
        return sum(Path(self.content(int(row))).stat().st_size for row in rows)


def open_csv(spec: str, split: str, size: int | None) -> CsvSource:
    """Open a table of paths and labels: ``csv:FILE``.

    The first line names the columns; which ones hold paths, labels and, if there is one, splits, is found by
    usual names or said after the file, see `edgeprune.sources.naming.options`. Fields are divided by ``,``,
    ``;``, ``|`` or tabs; text is UTF-8. Paths are relative to the folder of the table. Labels that are all
    integers are the numbers of classes.

    Parameters
    ----------
    spec : str
        ``"csv:FILE"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        See `edgeprune.sources.decoding.images.resize_and_crop`; None takes the shape of the first image that
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
    table = _read(str(Path(file).expanduser()), options)
    division = _division(table, split, options)
    shown = as_text(table.file)
    classes = classes_of(
        table.labels,
        division,
        options,
        split=split,
        own_names=None,
        where=f"{shown}: {table.label_column}",
        row_name=table.name,
    )
    rows = np.flatnonzero(division.own)
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
        table=table,
        rows=rows,
    )


def _division(table: _Table, split: str, options: SourceOptions) -> Division:
    words = table.splits.texts
    if words and (options.split_column is not None or any(word.lower() in NAMES for word in words)):
        codes = np.array(table.splits.codes, np.int64)
        return divide_rows(codes, list(words), split, f"{as_text(table.file)}: {table.split_column}")
    return Division(np.ones(len(table.paths), np.bool_), None, True)


def _read(file: str, options: SourceOptions) -> _Table:
    shown = as_text(file)
    try:
        with Path(file).open(encoding="utf-8-sig", newline="") as stream:
            delimiter = max(_DELIMITERS, key=stream.readline(2**16).count)
            stream.seek(0)
            rows = csv.reader(stream, delimiter=delimiter, strict=True)
            return _table(file, ((rows.line_num, row) for row in rows), options)
    except OSError as error:
        raise SourceError(f"{shown}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{shown}: is not text in UTF-8; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise SourceError(f"{shown}, line {rows.line_num}: is no line of a table: {error}") from error


def _table(file: str, rows: Iterator[tuple[int, list[str]]], options: SourceOptions) -> _Table:
    shown = as_text(file)
    _, header = next(rows, (0, []))
    columns = [name.strip() for name in header]
    path, label, split = _columns(columns, options, shown)
    paths, lines, labels, splits = PackedTexts(), array("q"), Labels(), Labels()
    at = [columns.index(name) for name in (path, label, split) if name is not None]
    for line, row in rows:
        if not row:
            continue
        if len(row) != len(columns):
            raise SourceError(
                f"{shown}, line {line}: has {len(row)} fields, and the first line names {len(columns)}"
            )
        try:
            texts = [(name, row[place]) for name, place in zip((path, label, split), at, strict=False)]
            labels.append(texts[1][1])
            if split is not None:
                splits.append(texts[2][1])
        except LabelError as error:
            raise SourceError(f"{shown}, line {line}: its label or split {error}") from error
        if not texts[0][1].strip() or "\0" in texts[0][1]:
            raise SourceError(f"{shown}, line {line}: {path} is no path")
        paths.append(texts[0][1].strip())
        lines.append(line)
    if not len(paths):
        raise SourceError(f"{shown}: has no rows below its first line; it names the columns: path,label")
    try:
        labels = labels.numbered()
    except LabelError as error:
        raise SourceError(f"{shown}, line {lines[error.place]}: its label {error}") from error
    return _Table(file, paths, lines, labels, splits, label, split)


def _columns(columns: list[str], options: SourceOptions, shown: str) -> tuple[str, str, str | None]:
    for name in (options.image_column, options.label_column, options.split_column):
        if name is not None and columns.count(name) != 1:
            raise SourceError(f"{shown}: has no column {name!r}; its columns are {', '.join(columns)}")
    path = options.image_column or only_one(
        [name for name in columns if name.lower() in IMAGE_NAMES], (), columns, shown, "paths", "image_column"
    )
    label = options.label_column or only_one(
        [name for name in columns if name.lower() in LABEL_NAMES],
        ("label",),
        columns,
        shown,
        "labels",
        "label_column",
    )
    split = options.split_column or next((name for name in columns if name.lower() == SPLIT_NAME), None)
    return path, label, split
