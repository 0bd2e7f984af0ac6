"""Reading images out of Parquet files in any order, within little memory.

Parquet can be read by row groups only, and each is compressed as a whole. Small ones are kept for the reads
that follow; the images of large ones are copied once to a file without a name in the folder for temporary
files, which the system removes with the process.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import SourceError
from ..decoding.files import as_text
from .arrow_rows import ARROW_ERRORS

__all__ = ["GroupReader", "Groups"]

SMALL_BYTES = 16 * 2**20
_KEPT_BYTES = 4 * SMALL_BYTES


@dataclass(frozen=True, eq=False)
class Groups:
    """Where the row groups of some Parquet files are.

    Attributes
    ----------
    files : tuple of str
    column : str
        The column that is read.
    file : int64 [groups]
        The file of each group, by its place in `files`.
    number : int64 [groups]
        The number of the group in its file.
    ends : int64 [groups]
        The row, counted through all files, that each group ends before.
    sizes, stored : int64 [groups]
        The bytes of the column in a group, uncompressed, and as they are in the file.
    first_rows : int64 [files]
        The first row of each file.
    """

    files: tuple[str, ...]
    column: str
    file: NDArray[np.int64]
    number: NDArray[np.int64]
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    stored: NDArray[np.int64]
    first_rows: NDArray[np.int64]

    @classmethod
    def of(cls, files: tuple[str, ...], column: str) -> Groups:
        """Look the groups up in the files' metadata."""
        facts = [fact for place, file in enumerate(files) for fact in _group_facts(place, file, column)]
        table = np.array(facts, np.int64).reshape(-1, 5)
        counts = np.bincount(table[:, 0], weights=table[:, 2], minlength=len(files)).astype(np.int64)
        return cls(
            files,
            column,
            table[:, 0],
            table[:, 1],
            np.cumsum(table[:, 2]),
            table[:, 3],
            table[:, 4],
            np.cumsum(counts) - counts,
        )

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def first(self, group: int) -> int:
        """Return the first row of a group."""
        return int(self.ends[group - 1]) if group else 0

    def group_of(self, rows: Any) -> Any:
        """Return the group of a row, or the groups of an array of rows."""
        return np.searchsorted(self.ends, rows, side="right")

    def file_of(self, row: int) -> int:
        """Return the file of a row, by its place in `files`."""
        return int(self.file[self.group_of(row)])

    def name(self, row: int) -> str:
        """Return the file of a row, and its number in there."""
        file = self.file_of(row)
        return f"{as_text(self.files[file])}[{row - int(self.first_rows[file])}]"

    def stored_bytes(self, rows: NDArray[np.int64]) -> int:
        """Return about the bytes of some rows in the files: the means of their groups."""
        counts = np.diff(self.ends, prepend=0)
        groups = self.group_of(rows)
        return round(float((self.stored[groups] / counts[groups]).sum()))


def _group_facts(place: int, file: str, column: str) -> Iterator[tuple[int, int, int, int, int]]:
    try:
        metadata = pq.read_metadata(file)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            parts = [group.column(at) for at in range(group.num_columns)]
            own = [part for part in parts if part.path_in_schema.split(".")[0] == column.split(".")[0]]
            if group.num_rows:
                sizes = (
                    sum(part.total_uncompressed_size for part in own),
                    sum(part.total_compressed_size for part in own),
                )
                yield place, number, group.num_rows, *sizes
    except ARROW_ERRORS as error:
        raise SourceError(f"{as_text(file)}: is damaged: {error}") from error


class _Group(Protocol):
    """A row group that was read."""

    bytes_held: int

    def value(self, row: int) -> Any:
        """Return a row in Python."""
        ...


class _Kept:
    """A row group in memory."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column, self.bytes_held = column, column.nbytes

    def value(self, row: int) -> Any:
        return self._column[row].as_py()


class _Spool:
    """A file without a name that holds values: bytes, text or nothing."""

    def __init__(self) -> None:
        with _writing():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this is
        weakref.finalize(self, _close, self._file)
        self._end = 0

    def append(self, value: bytes) -> int:
        """Write, and return where."""
        start = self._end
        self._end += len(value)
        with _writing():
            self._file.write(value)
        return start

    def flush(self) -> None:
        """Make readable what was written."""
        with _writing():
            self._file.flush()

    def read(self, start: int, size: int) -> bytes:
        """Read, from any thread."""
        return os.pread(self._file.fileno(), size, start)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{tempfile.gettempdir()}: a copy of the images in large row groups cannot be written: "
            f"{error.strerror}; set TMPDIR to a folder with room"
        ) from error


def _close(file: IO[bytes]) -> None:
    # What could not be written before cannot be written now.
    with suppress(OSError):
        file.close()


class _Spooled:
    """A row group whose values were copied to a file."""

    bytes_held = 0

    def __init__(self, spool: _Spool) -> None:
        self._spool, self._starts, self._sizes = spool, array("q"), array("q")
        self._is_text = bytearray()

    def append(self, value: Any) -> None:
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        content = value.encode() if isinstance(value, str) else value or b""
        self._starts.append(self._spool.append(content))
        self._sizes.append(-1 if value is None else len(content))
        self._is_text.append(isinstance(value, str))

    def value(self, row: int) -> Any:
        if self._sizes[row] < 0:
            return None
        content = self._spool.read(self._starts[row], self._sizes[row])
        return content.decode() if self._is_text[row] else content


class GroupReader:
    """Reads rows of Parquet files; any thread of one process may call it.

    Parameters
    ----------
    groups : Groups
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._lock = threading.Lock()
        self._loading: dict[int, threading.Lock] = {}
        self._read: OrderedDict[int, _Group] = OrderedDict()
        self._spool: _Spool | None = None
        self._spooling = threading.Lock()

    def values(self, rows: NDArray[np.int64]) -> Iterator[Any]:
        """Give the values of the column in some rows, best in ascending order, in Python."""
        held: tuple[int, _Group | None] = (-1, None)
        for row, number in zip(rows.tolist(), self._groups.group_of(rows).tolist(), strict=True):
            if held[0] != number:
                held = (number, self._group(number))
            yield self._value(held, row)

    def _value(self, held: tuple[int, Any], row: int) -> Any:
        try:
            return held[1].value(row - self._groups.first(held[0]))
        except (UnicodeDecodeError, *ARROW_ERRORS) as error:
            raise SourceError(f"{self._groups.name(row)}: is damaged: {error}") from error

    def _group(self, number: int) -> _Group:
        with self._lock:
            loading = self._loading.setdefault(number, threading.Lock())
        # Of threads that want the same group, one reads it and the others wait.
        with loading:
            with self._lock:
                found = self._read.get(number)
                if found is not None:
                    self._read.move_to_end(number)
                    return found
            group = self._loaded(number)
            with self._lock:
                self._read[number] = group
                self._forget()
            return group

    def _forget(self) -> None:
        held = sum(group.bytes_held for group in self._read.values())
        for number in list(self._read)[:-1]:
            if held <= _KEPT_BYTES:
                return
            if self._read[number].bytes_held:
                held -= self._read.pop(number).bytes_held

    def _loaded(self, number: int) -> _Group:
        groups = self._groups
        path = groups.files[int(groups.file[number])]
        is_small = groups.sizes[number] <= SMALL_BYTES
        try:
            # A buffer in place of whole columns, of which only parts are needed at a time.
            with pq.ParquetFile(path, buffer_size=0 if is_small else 2**20, pre_buffer=False) as file:
                if is_small:
                    inside, column = int(groups.number[number]), groups.column
                    return _Kept(
                        file.read_row_group(inside, columns=[column], use_threads=False).column(column)
                    )
                with self._spooling:
                    return self._spooled(file, number)
        except ARROW_ERRORS as error:
            raise SourceError(
                f"{as_text(path)}: row group {groups.number[number]} cannot be read: {error}"
            ) from error

    def _spooled(self, file: pq.ParquetFile, number: int) -> _Group:
        groups = self._groups
        rows = int(groups.ends[number]) - groups.first(number)
        batch = max(1, min(64, SMALL_BYTES * rows // int(groups.sizes[number])))
        batches = file.iter_batches(
            batch, [int(groups.number[number])], columns=[groups.column], use_threads=False
        )
        self._spool = self._spool or _Spool()
        spooled = _Spooled(self._spool)
        for part in batches:
            for value in part.column(0).to_pylist():
                spooled.append(value)
        self._spool.flush()
        return spooled
