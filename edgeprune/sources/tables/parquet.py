"""Images in Parquet files, as pandas, pyarrow, Spark or Hugging Face write them."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import SourceError
from ..base import Rows
from ..decoding.encoded import Content, EncodedSource, PerProcess, first_shape
from ..decoding.files import as_text
from ..naming.options import without_options
from ..naming.patterns import find_files
from ..naming.split_names import SplitFiles, divide_files
from .arrow_columns import content_of
from .arrow_rows import read_rows
from .parquet_groups import GroupReader, Groups

__all__ = ["PARQUET_SUFFIXES", "open_files", "open_parquet"]

PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, eq=False, kw_only=True)
class ParquetSource(EncodedSource):
    """Rows of Parquet files, read by row groups; implements `Source`.

    Attributes
    ----------
    groups : Groups
        Where the row groups of all files are.
    rows : int64 [N]
        The rows that are read, counted through all files.
    reader : PerProcess of GroupReader
    """

    groups: Groups
    rows: NDArray[np.int64]
    reader: PerProcess[GroupReader]

    def name(self, row: int) -> str:
        """Return the file of image `row`, and its row in there."""
        return self.groups.name(int(self.rows[row]))

    def content(self, row: int) -> Content:
        """Return image `row` as it is stored."""
        return next(self.contents([row]))

    def contents(self, rows: Rows) -> Generator[Content]:
        """Give the images of ascending rows as they are stored."""
        wanted = self.rows[np.asarray(rows, np.intp)]
        for row, value in zip(wanted.tolist(), self.reader.get().values(wanted), strict=True):
            folder = os.path.dirname(self.groups.files[self.groups.file_of(row)])  # noqa: PTH120
            yield content_of(value, folder, self.groups.name(row))

    def stored_bytes(self, rows: Rows) -> int:
        """Return about the bytes that some images take in the files."""
        return self.groups.stored_bytes(self.rows[np.asarray(rows, np.intp)])


def open_parquet(spec: str, split: str, size: int | None) -> ParquetSource:
    """Open Parquet files: ``parquet:FILE``, ``parquet:FOLDER`` or ``parquet:PATTERN``.

    A column holds encoded images: binary, a struct of ``bytes`` and ``path`` as Hugging Face has it, or text,
    the path of a file, relative to the folder of the Parquet file. Another holds labels: integers, or text.
    Which ones, and a column of splits, is found or said after the place, see
    `edgeprune.sources.naming.options`.

    Files of several splits are told apart by their names, or by those of their folders, such as
    ``train-00000-of-00002.parquet``.

    Parameters
    ----------
    spec : str
        ``"parquet:..."``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        See `edgeprune.sources.decoding.scaling.resize_and_crop`; None takes the shape of the first image that
        can be read.

    Raises
    ------
    ConfigError
        A URL, or an option that cannot be.
    SourceError
        Files that are missing or damaged, or columns that cannot be used.
    """
    place, _ = without_options(spec)
    found = find_files("parquet", place.partition(":")[2], PARQUET_SUFFIXES)
    files = divide_files(found.files, found.base, split, kind="parquet", must_divide=found.is_folder)
    return open_files(spec, files, split, size)


def open_files(spec: str, found: SplitFiles, split: str, size: int | None) -> ParquetSource:
    """Open the Parquet files of a split, see `open_parquet`."""
    table = read_rows(found, pq.read_schema, _read, without_options(spec)[1], split=split)
    groups = Groups.of(found.files, table.columns.image)
    if groups.rows != sum(table.counts):
        raise SourceError(f"{as_text(found.files[0])}: changed while it was read; start again")
    reader = PerProcess(partial(GroupReader, groups))
    folders = [os.path.dirname(file) for file in groups.files]  # noqa: PTH120

    def stored(row: int) -> Content:
        (value,) = reader.get().values(np.array([row]))
        return content_of(value, folders[groups.file_of(row)], groups.name(row))

    images = ((groups.name(row), partial(stored, row)) for row in table.rows.tolist())
    shape, model = first_shape(size, images, as_text(found.files[0]))
    return ParquetSource(
        spec=spec,
        split=split,
        class_names=table.classes.names,
        labels=table.classes.labels,
        shape=shape,
        size=size,
        model=model,
        undivided=table.undivided,
        notes=table.classes.notes,
        targets=table.targets,
        groups=groups,
        rows=table.rows,
        reader=reader,
    )


def _read(file: str, names: Sequence[str]) -> Mapping[str, pa.ChunkedArray]:
    table = pq.ParquetFile(file).read(columns=list(names), use_threads=False)
    return {name: table.column(name) for name in names}
