"""Data sets of Hugging Face ``datasets``: saved with ``save_to_disk``, or in one of its caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from ...errors import SourceError
from ..base import Rows
from ..decoding.encoded import Content, EncodedSource, PerProcess, first_shape
from ..decoding.files import as_text
from ..naming.options import without_options
from ..naming.patterns import files_below, refuse_remote
from ..naming.split_names import SplitFiles, divide_files
from .arrow_rows import read_rows
from .arrow_tables import Tables, open_table, sound
from .hf_folders import REMEDY, arrow_files, no_data_set, require_one_configuration
from .parquet import PARQUET_SUFFIXES, open_files

__all__ = ["open_hf"]

_LICENSE = 200


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrowSource(EncodedSource):
    """Rows of Arrow files; implements `Source`.

    Attributes
    ----------
    rows : int64 [N]
        The rows that are read, counted through all files.
    tables : PerProcess of Tables
    """

    rows: NDArray[np.int64]
    tables: PerProcess[Tables]

    def name(self, row: int) -> str:
        """Return the file of image `row`, and its row in there."""
        return self.tables.get().name(int(self.rows[row]))

    def content(self, row: int) -> Content:
        """Return image `row` as it is stored."""
        return self.tables.get().content(int(self.rows[row]))

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes that some images take in all."""
        return self.tables.get().stored_bytes(self.rows[np.asarray(rows, np.intp)])


def open_hf(spec: str, split: str, size: int | None) -> EncodedSource:
    """Open a data set that Hugging Face ``datasets`` saved or cached: ``hf:FOLDER``.

    FOLDER is one of ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``; one in the cache of
    ``load_dataset``, with its Arrow files; or a download from the Hub with Parquet files. Columns are found
    or said as for Parquet files, see `edgeprune.sources.tables.parquet.open_parquet`; the feature ClassLabel
    names the classes. ``datasets`` itself is not needed.

    Parameters
    ----------
    spec : str
        ``"hf:FOLDER"``.
    split : str
        ``"train"`` or ``"test"``, which is the split ``test``, else ``validation``; a data set that was saved
        without splits is taken for either.
    size : int or None
        See `edgeprune.sources.decoding.scaling.resize_and_crop`; None takes the shape of the first image that
        can be read.

    Raises
    ------
    ConfigError
        A URL, or an option that cannot be.
    SourceError
        FOLDER holds no such data set, or it cannot be used.
    """
    place = without_options(spec)[0].partition(":")[2]
    if not place:
        raise ConfigError("hf needs a folder; write hf:FOLDER")
    refuse_remote("hf", place)
    folder = Path(place).expanduser()
    if not folder.is_dir():
        reason = "is a file" if folder.exists() else "No such folder"
        raise SourceError(f"{as_text(str(folder))}: {reason}, and nothing is downloaded; {REMEDY}")
    found, info = arrow_files(folder, split)
    if found is not None:
        return _open_arrow(spec, found, info, split, size)
    parquet = files_below(str(folder), PARQUET_SUFFIXES)
    if not parquet:
        raise SourceError(no_data_set(folder))
    require_one_configuration(parquet, folder)
    divided = divide_files(parquet, str(folder), split, kind="parquet", must_divide=True)
    return open_files(spec, divided, split, size)


def _open_arrow(
    spec: str, found: SplitFiles, info: Mapping[str, Any], split: str, size: int | None
) -> ArrowSource:
    options = without_options(spec)[1]
    table = read_rows(found, lambda file: open_table(file).schema, _read, options, split=split, info=info)
    tables = PerProcess(partial(Tables, found.files, table.columns.image))
    names = ((tables.get().name(row), partial(tables.get().content, row)) for row in table.rows.tolist())
    shape, model = first_shape(size, names, as_text(found.files[0]))
    license_ = " ".join(str(info.get("license") or "").split())[:_LICENSE]
    return ArrowSource(
        spec=spec,
        split=split,
        license=license_ or None,
        class_names=table.classes.names,
        labels=table.classes.labels,
        shape=shape,
        size=size,
        model=model,
        undivided=table.undivided,
        notes=table.classes.notes,
        targets=table.targets,
        rows=table.rows,
        tables=tables,
    )


def _read(file: str, names: Sequence[str]) -> Mapping[str, pa.ChunkedArray]:
    table = open_table(file)
    return {name: sound(table.column(name)) for name in names}
