"""More on each image in a ``metadata.csv`` of their folder, as Hugging Face's ``imagefolder`` reads it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgeprune_formats.targets import Target

from ...errors import SourceError
from ..columns.requests import TargetRequest
from ..columns.values import make_target
from ..decoding.files import as_text
from ..tables.column_names import refuse_repeated
from ..tables.csv_table import read_csv

__all__ = ["FILE_COLUMN", "METADATA", "metadata_targets"]

METADATA = "metadata.csv"
FILE_COLUMN = "file_name"
"""The column of paths, relative to the folder of the table."""


def metadata_targets(
    requests: Sequence[TargetRequest], root: str, above: str, files: Sequence[str]
) -> tuple[Target, ...]:
    """Return the targets of image files, in their order.

    Parameters
    ----------
    requests : sequence of TargetRequest
    root, above : str
        The folder that the files are relative to, and one above it or the same: one has the table.
    files : sequence of str

    Raises
    ------
    SourceError
        There is no table, or it lacks a column, or a file.
    """
    if not requests:
        return ()
    folder = next((one for one in (root, above) if (Path(one) / METADATA).is_file()), None)
    if folder is None:
        raise SourceError(f"{as_text(root)}: has no {METADATA}, from which `target` would be read")
    table, shown = f"{folder}{os.sep}{METADATA}", as_text(f"{folder}{os.sep}{METADATA}")
    names = list(dict.fromkeys(name for request in requests for name in request.columns))
    texts = read_csv(table, partial(_texts, shown, names=names))
    inside = os.path.relpath(root, folder)
    places = [posixpath.normpath(posixpath.join(inside, file)) for file in files]
    for place in places:
        if place not in texts:
            raise SourceError(f"{shown}: has no line for {as_text(place)}; add one, or remove the image")
    columns = zip(*(texts[place] for place in places), strict=True)
    arrays = {name: np.array(column, object) for name, column in zip(names, columns, strict=True)}
    return tuple(
        make_target(
            request, [arrays[name] for name in request.columns], shown, lambda row: as_text(files[row])
        )
        for request in requests
    )


def _texts(
    shown: str, rows: Iterator[tuple[int, list[str]]], *, names: Sequence[str]
) -> dict[str, list[str]]:
    """Return the wanted fields of each file."""
    _, header = next(rows, (0, []))
    columns = [name.strip() for name in header]
    for name in (FILE_COLUMN, *names):
        refuse_repeated(name, columns, shown)
        if name not in columns:
            other = "" if name == FILE_COLUMN else f"; `target={name}=COLUMN` takes another"
            raise SourceError(f"{shown}: has no column {name!r}; its columns are {', '.join(columns)}{other}")
    at = [columns.index(name) for name in (FILE_COLUMN, *names)]
    found: dict[str, list[str]] = {}
    for line, row in (one for one in rows if one[1]):
        if len(row) != len(columns):
            raise SourceError(
                f"{shown}, line {line}: has {len(row)} fields, and the first line names {len(columns)}"
            )
        place, *fields = (row[column] for column in at)
        place = posixpath.normpath(place.strip())
        if place in found:
            raise SourceError(f"{shown}, line {line}: {place} stands there twice")
        found[place] = fields
    return found
