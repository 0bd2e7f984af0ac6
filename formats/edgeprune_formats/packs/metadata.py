"""Writing everything of a pack but its samples: attributes, labels, scores, class names, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..codecs import get_codec
from ..hdf5 import write_array
from ..header import INTEGERS, TEXTS, PackHeader, attribute_name
from .checks import provenance_text
from .columns import Stored, write_columns

__all__ = ["write_metadata"]


def write_metadata(
    file: h5py.File,
    header: PackHeader,
    labels: NDArray[np.integer[Any]],
    source_index: NDArray[np.integer[Any]],
    scores: NDArray[np.float32] | None,
    result: Mapping[str, Any],
    columns: Sequence[Stored] = (),
) -> None:
    """Write attributes, labels, rows, scores, class names, provenance and columns of targets.

    Parameters
    ----------
    labels : int32 [N]
        Not stored where the header has no classes.
    source_index : int64 [N]
    scores : float32 [N] or None
    result : mapping
        Goes into the provenance, if there is anything in it.
    columns : sequence of (Column, array)
        As `edgeprune_formats.packs.columns.encode_targets` returns them.
    """
    for name in TEXTS:
        file.attrs[attribute_name(name)] = _text(getattr(header, name))
    file.attrs["format"] = _text("edgepack")
    for name in INTEGERS:
        file.attrs[name] = np.int64(getattr(header, name))
    # Absent it means 8, as in packs from before there was more.
    if header.bits != 8:
        file.attrs["bits"] = np.int64(header.bits)
    codec = get_codec(header.codec)
    if codec.quantizes:
        file.attrs["step"] = np.float64(header.step)
    for name in ("mean", "std"):
        file.attrs[name] = np.array(getattr(header, name), "<f8")
    # Readers of 1.1 know one type only, and no codecs that came later.
    old = codec.since < 2
    if header.class_names:
        write_array(file, "labels", labels if old else _narrow(labels, ("u1", "<u2")))
    write_array(file, "source_index", source_index if old else _narrow(source_index, ("<u2", "<u4")))
    if scores is not None:
        write_array(file, "scores", scores)
    if header.class_names:
        names = [name.encode() for name in header.class_names]
        width = max(1, *(len(name) for name in names))
        write_array(file, "class_names", np.array(names, h5py.string_dtype("utf-8", width)))
    text = provenance_text(header, result)
    write_array(file, "provenance", np.array(text, h5py.string_dtype("utf-8", len(text))))
    write_columns(file, columns)


def _narrow(array: NDArray[Any], dtypes: tuple[str, ...]) -> NDArray[Any]:
    """Return the array as the first of these types that holds it, or as it is."""
    largest = int(array.max())
    return next((array.astype(name) for name in dtypes if largest <= np.iinfo(name).max), array)


def _text(value: str) -> np.ndarray[Any, np.dtype[Any]]:
    raw = value.encode()
    return np.array(raw, h5py.string_dtype("utf-8", max(1, len(raw))))
