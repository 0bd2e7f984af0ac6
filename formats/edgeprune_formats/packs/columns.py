"""The group ``targets`` of a pack: its description, and a dataset for each column."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DefectError
from ..hdf5 import TEXT, checksum, open_contiguous, open_group, read_array, write_array
from ..limits import MAX_COLUMNS, MAX_COLUMNS_BYTES, MAX_TEXT_BYTES
from ..strict_json import parse_json
from ..targets import (
    LABEL,
    Column,
    Target,
    alike_names,
    column_problem,
    decode_rows,
    encode_target,
    stored_dtypes,
    stored_problem,
    stored_shape,
)

__all__ = [
    "GROUP",
    "StoredTarget",
    "check_columns",
    "encode_targets",
    "inspect_columns",
    "read_column",
    "write_columns",
]

GROUP = "targets"
_DESCRIPTION = "columns"
Stored = tuple[Column, NDArray[Any]]


class StoredTarget:
    """A column of an open pack; its values are read when they are first asked for, and kept as stored.

    Attributes
    ----------
    column : Column
    name, kind, classes
        Of the column.
    """

    def __init__(self, column: Column, load: Callable[[], NDArray[Any]]) -> None:
        self.column = column
        self.name, self.kind, self.classes = column.name, column.kind, column.classes
        self._load = load

    def __repr__(self) -> str:
        return f"StoredTarget({self.name!r}, {self.kind})"

    def read(self, rows: Any = None) -> NDArray[Any]:
        """Return the values of some images, or of all, as `edgeprune_formats.targets.Target` has them.

        Parameters
        ----------
        rows : int [n] or slice, optional
            Which images.

        Raises
        ------
        PackFormatError
            The column is damaged, or holds what its kind does not allow.
        """
        return decode_rows(self.column, self._load()[slice(None) if rows is None else rows])

    def checksum(self, start: int = 0) -> int:
        """Return the CRC-32 of the values of all images as they are stored, continuing from `start`.

        Raises
        ------
        PackFormatError
            As `read`.
        """
        return checksum(self._load(), start)

    def take(self, rows: Any = None) -> Target:
        """Return the column of some images, or of all, to be written into another pack."""
        if self.column.top:
            # As it is stored: the same bytes again, and a fraction of the memory.
            return Target(self.column, self._load()[slice(None) if rows is None else rows])
        return Target(self.column, self.read(rows))


def encode_targets(targets: Sequence[Target], samples: int) -> list[Stored]:
    """Return the columns as they are stored.

    Raises
    ------
    ConfigError
        Too many, two of one name, one that is called as the label, or one that is not sound.
    """
    check_columns([target.column for target in targets])
    return [(target.column, encode_target(target, samples)) for target in targets]


def check_columns(columns: Sequence[Column]) -> None:
    """Raise `ConfigError` for too many columns, or two that are called alike."""
    if len(columns) > MAX_COLUMNS:
        raise ConfigError(f"{len(columns)} targets beside the label; a pack has {MAX_COLUMNS} at most")
    alike = alike_names([LABEL, *(column.name for column in columns)])
    if alike is not None:
        raise ConfigError(f"two targets are called {alike[1]!r}, or it is the name of the labels; rename it")


def write_columns(file: h5py.File, columns: Sequence[Stored]) -> None:
    """Write the group; nothing where there are no columns."""
    if not columns:
        return
    group = file.create_group(GROUP)
    text = json.dumps([column.to_json() for column, _ in columns], ensure_ascii=False).encode()
    if len(text) > MAX_COLUMNS_BYTES:
        raise ConfigError(f"the names of targets and classes take {len(text)} B, and {MAX_COLUMNS_BYTES} fit")
    write_array(group, _DESCRIPTION, np.array(text, h5py.string_dtype("utf-8", len(text))))
    for number, (_, stored) in enumerate(columns):
        if stored.dtype.kind == "S":
            stored = stored.astype(h5py.string_dtype("utf-8", stored.dtype.itemsize))
        write_array(group, str(number), stored)


def inspect_columns(file: h5py.File, samples: int, file_bytes: int) -> tuple[Column, ...]:
    """Return the columns of a pack, whose values are not read.

    Raises
    ------
    DefectError
        The description is not sound, or a dataset missing, of another type or shape.
    """
    if not file.id.links.exists(GROUP.encode()):
        return ()
    group = open_group(file, GROUP)
    columns = _described(group, file_bytes)
    found = []
    for number, column in enumerate(columns):
        dataset = _open(group, str(number), column, samples, file_bytes)
        kinds = {"probabilities", "float"}
        found.append(replace(column, dtype=dataset.dtype.name) if column.kind in kinds else column)
    return tuple(found)


def _described(group: h5py.Group, file_bytes: int) -> list[Column]:
    where = f"/{GROUP}/{_DESCRIPTION}"
    size = open_contiguous(group, _DESCRIPTION, TEXT, (), file_bytes).dtype.itemsize
    if size > MAX_COLUMNS_BYTES:
        raise DefectError("limit", where, f"{size} B")
    raw = bytes(read_array(group, _DESCRIPTION, TEXT, (), file_bytes)[()])
    try:
        listed = parse_json(raw)
        if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_COLUMNS:
            raise ValueError(f"not a list of 1 to {MAX_COLUMNS} columns")
        columns = [Column.from_json(facts) for facts in listed]
        problems = [problem for problem in map(column_problem, columns) if problem is not None]
        names = [column.name for column in columns]
        if len({LABEL, *names}) <= len(names):
            problems.append("two columns have one name")
        if problems:
            raise ValueError(problems[0])
    except ValueError as error:
        raise DefectError("layout", where, f"no description of columns ({error})") from None
    return columns


def _open(group: h5py.Group, name: str, column: Column, samples: int, file_bytes: int) -> h5py.Dataset:
    dtypes = stored_dtypes(column) or TEXT
    dataset = open_contiguous(group, name, dtypes, stored_shape(column, samples), file_bytes)
    if column.kind == "text" and dataset.dtype.itemsize > MAX_TEXT_BYTES:
        raise DefectError("limit", dataset.name, f"text of {dataset.dtype.itemsize} B")
    return dataset


def read_column(file: h5py.File, number: int, column: Column, samples: int, file_bytes: int) -> NDArray[Any]:
    """Return the values of a column as they are stored, checked against checksum and specification.

    Raises
    ------
    DefectError
        They are damaged, or not what the kind allows.
    """
    dtypes = stored_dtypes(column) or TEXT
    group = open_group(file, GROUP)
    stored = read_array(group, str(number), dtypes, stored_shape(column, samples), file_bytes)
    problem = stored_problem(column, stored)
    if problem is not None:
        raise DefectError("layout", f"/{GROUP}/{number}", f"column {column.name!r}: {problem}")
    return stored
