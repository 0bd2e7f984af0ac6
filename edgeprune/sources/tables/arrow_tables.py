"""Tables in Arrow files, mapped into memory: only what is looked at is read from the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...errors import SourceError
from ..decoding.encoded import Content
from ..decoding.files import as_text
from .arrow_columns import content_of
from .arrow_rows import ARROW_ERRORS

__all__ = ["Tables", "open_table", "sound"]


class Tables:
    """Tables in Arrow files, mapped into memory; any thread may read them.

    Parameters
    ----------
    files : sequence of str
    column : str
        The column of images.
    """

    def __init__(self, files: Sequence[str], column: str) -> None:
        self._files, self._columns = files, [_column(file, column) for file in files]
        self._ends = np.cumsum([len(column) for column in self._columns])

    def place(self, row: int) -> tuple[int, int]:
        """Return the file of a row that is counted through all files, and its row there."""
        file = int(np.searchsorted(self._ends, row, side="right"))
        return file, row - (int(self._ends[file - 1]) if file else 0)

    def name(self, row: int) -> str:
        """Return what messages call a row."""
        file, inside = self.place(row)
        return f"{as_text(self._files[file])}[{inside}]"

    def content(self, row: int) -> Content:
        """Return the image of a row as it is stored."""
        file, inside = self.place(row)
        try:
            value = self._columns[file][inside].as_py()
        except ARROW_ERRORS as error:
            raise SourceError(f"{self.name(row)}: is damaged: {error}") from error
        return content_of(value, os.path.dirname(self._files[file]), self.name(row))  # noqa: PTH120

    def stored_bytes(self, rows: NDArray[np.int64]) -> int:
        """Return the bytes of some images; of those in other files those of these."""
        sizes = np.concatenate([_sizes(column) for column in self._columns])[rows]
        outside = (self.content(int(row)) for row in rows[sizes < 0])
        others = sum(Path(path).stat().st_size for path in outside if isinstance(path, str))
        return int(sizes[sizes > 0].sum()) + others


def open_table(file: str) -> pa.Table:
    """Map an Arrow file into memory.

    Raises
    ------
    ARROW_ERRORS
        It is damaged, or none.
    """
    mapped = pa.memory_map(file)
    try:
        return pa.ipc.open_stream(mapped).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(mapped).read_all()


def _column(file: str, name: str) -> pa.ChunkedArray:
    try:
        return sound(open_table(file).column(name))
    except ARROW_ERRORS as error:
        raise SourceError(f"{as_text(file)}: is damaged or cut off: {error}") from error


def sound(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column whose offsets were found to lie inside it: others would be followed all the same."""
    column.validate(full=True)
    return column


def _sizes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the bytes of each image, -1 where it has none in the table."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return np.full(len(column), -1)
    return np.asarray(pc.fill_null(pc.binary_length(column).cast(pa.int64()), -1).to_numpy(), np.int64)
