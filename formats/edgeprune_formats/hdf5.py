"""Reading HDF5 without trusting it: every object is looked at before it is used.

Nothing here allocates by a size that the file merely declares, or follows a link out of it. What is wrong
is raised as a `DefectError`, which names the object.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import DefectError, one_line
from .limits import MAX_TEXT_BYTES

try:
    # The same function by carry-less multiplication, ten times as fast.
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = [
    "COPY_AGAIN",
    "MAX_LINKS",
    "NUMBERS",
    "TEXT",
    "Dtypes",
    "checksum",
    "create_hdf5",
    "open_contiguous",
    "open_dataset",
    "open_group",
    "open_hdf5",
    "read_array",
    "read_attribute",
    "read_text",
    "unreadable",
    "write_array",
]

COPY_AGAIN = "copy the file again"
MAX_LINKS = 8
"""Objects that HDF5 keeps within the header of a group; with more it turns to a heap and a tree."""
TEXT = np.dtype("S")
"""Stands for fixed-length text of any length."""
NUMBERS: tuple[np.dtype[Any], ...] = ()
"""Stands for integers and floating point of any size."""
Dtypes = np.dtype[Any] | tuple[np.dtype[Any], ...]


def checksum(array: NDArray[Any], start: int = 0) -> int:
    """Return the CRC-32 (as in zlib and PNG) of the array's bytes in C order, continuing from `start`."""
    return crc32(np.ascontiguousarray(array).data, start)


def create_hdf5(sink: io.RawIOBase) -> h5py.File:
    """Create a file whose objects keep all their attributes in their headers, in no heap and no tree.

    It is in the 1.10 file format, whose object headers and indexes carry checksums. A group keeps its links
    in its header as well while it has at most `MAX_LINKS` of them.

    Parameters
    ----------
    sink : raw binary file
        Open for reading and writing, empty.
    """
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    # More than an object of ours has; the default is 8.
    creation.set_attr_phase_change(4096, 0)
    # Equal content gives equal bytes.
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, sink)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    return h5py.File(h5py.h5f.create(repr(sink).encode(), h5py.h5f.ACC_TRUNC, creation, access))


def open_hdf5(path: Path) -> h5py.File:
    """Open a finished file for reading; raises OSError, or whatever HDF5's binding maps damage to."""
    # A finished file never changes, so it needs no lock, which some file systems lack. But where this process
    # has it open already, such as by the user's own h5py, HDF5 asks for the same kind of locking again.
    for locking in (False, "best-effort"):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error):
                raise
    return h5py.File(path, "r", locking=True)


def unreadable(error: Exception) -> str:
    """Return the message for an object that HDF5 fails to read."""
    text = one_line(error) or type(error).__name__
    return f"damaged, HDF5 cannot read it ({text}); {COPY_AGAIN}"


def read_attribute(
    item: h5py.File | h5py.Dataset, name: str, kind: str, shape: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Return an attribute.

    None of variable length is read: a damaged heap, where HDF5 keeps them, can make it loop for ever.

    Parameters
    ----------
    item : h5py.File or h5py.Dataset
    name : str
    kind : str
        ``"S"`` for text of fixed length, ``"i"`` for integers, ``"f"`` for floating point.
    shape : tuple of int

    Raises
    ------
    DefectError
        It is missing, or of another type or shape.
    """
    where = f"{item.name} attribute {name}"
    if not h5py.h5a.exists(item.id, name.encode()):
        raise DefectError("layout", where, "missing")
    attribute = h5py.h5a.open(item.id, name.encode())
    stored = attribute.get_type()
    known = {"S": h5py.h5t.STRING, "i": h5py.h5t.INTEGER, "f": h5py.h5t.FLOAT}[kind]
    if stored.get_class() != known or (kind == "S" and stored.is_variable_str()):
        raise DefectError("layout", where, "of the wrong type")
    if attribute.shape != shape or stored.get_size() > MAX_TEXT_BYTES:
        raise DefectError("layout", where, f"of shape {attribute.shape} in place of {shape}, or too long")
    value = np.empty(shape, stored.dtype)
    attribute.read(value)
    return value


def read_text(item: h5py.File | h5py.Dataset, name: str) -> str:
    """Return a text attribute; raises `DefectError` as `read_attribute`, and if it is not UTF-8."""
    try:
        return bytes(read_attribute(item, name, "S")[()]).decode()
    except UnicodeDecodeError:
        raise DefectError("layout", f"{item.name} attribute {name}", "not UTF-8") from None


def _check_link(group: h5py.Group, name: str, where: str) -> None:
    if not group.id.links.exists(name.encode()):
        raise DefectError("layout", where, "missing")
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise DefectError("layout", where, "a soft or external link, which must not be here")


def _path(group: h5py.Group, name: str) -> str:
    return f"{group.name.rstrip('/')}/{name}"


def open_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Return a group that lies in this file; raises `DefectError` if there is none."""
    where = _path(parent, name)
    _check_link(parent, name, where)
    group = parent[name]
    if not isinstance(group, h5py.Group):
        raise DefectError("layout", where, "not a group")
    return group


def open_dataset(
    group: h5py.Group, name: str, dtype: Dtypes, shape: tuple[int, ...], file_bytes: int
) -> h5py.Dataset:
    """Return a dataset that is safe to read whole, if it is contiguous, or by stored chunk.

    Parameters
    ----------
    group : h5py.Group
    name : str
        Of the dataset in the group.
    dtype : dtype or tuple of dtype
        What it may be of; `TEXT` and `NUMBERS` stand for many.
    shape : tuple of int
        ``(-1,)`` for any.
    file_bytes : int
        Size of the file in bytes.

    Raises
    ------
    DefectError
        It is missing, a link, of another type or shape, behind filters that a pack does not have, in other
        files, or declares more bytes than the file has.
    """
    where = _path(group, name)
    _check_link(group, name, where)
    identifier = h5py.h5o.open(group.id, name.encode())
    if identifier.__class__ is not h5py.h5d.DatasetID:
        raise DefectError("layout", where, "not a dataset")
    if identifier.shape is None:
        raise DefectError("layout", where, "without a shape")
    _check_storage(identifier, where, file_bytes)
    _check_type(identifier.get_type(), dtype, where)
    if shape != (-1,) and identifier.shape != shape:
        raise DefectError("layout", where, f"of shape {identifier.shape} in place of {shape}")
    return h5py.Dataset(identifier)


def _check_type(stored: h5py.h5t.TypeID, dtype: Dtypes, where: str) -> None:
    if isinstance(dtype, np.dtype) and dtype == TEXT:
        if stored.get_class() != h5py.h5t.STRING or stored.is_variable_str():
            raise DefectError("layout", where, "not of a fixed-length string type")
        return
    allowed = dtype if isinstance(dtype, tuple) else (dtype,)
    numeric = stored.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)
    if not numeric or (allowed and stored.dtype not in allowed):
        names = " or ".join(one.str for one in allowed) or "integers or floating point"
        raise DefectError("layout", where, f"not of type {names}")


def _check_storage(identifier: h5py.h5d.DatasetID, where: str, file_bytes: int) -> None:
    properties = identifier.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise DefectError("layout", where, "keeps its data in other files, which it must not do")
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters not in ([], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
        raise DefectError("layout", where, f"unknown HDF5 filters {filters}")
    if layout == h5py.h5d.CHUNKED:
        return
    size = _declared(identifier)
    offset = identifier.get_offset()
    outside = layout == h5py.h5d.CONTIGUOUS and size > 0 and (offset is None or offset + size > file_bytes)
    if size > file_bytes or outside:
        raise DefectError("limit", where, f"declares {size} B that the file does not hold; {COPY_AGAIN}")


def _declared(identifier: h5py.h5d.DatasetID) -> int:
    return int(math.prod(identifier.shape)) * int(identifier.get_type().get_size())


def open_contiguous(
    group: h5py.Group, name: str, dtype: Dtypes, shape: tuple[int, ...], file_bytes: int
) -> h5py.Dataset:
    """Return a dataset as `open_dataset`, which HDF5 can read without expanding anything."""
    dataset = open_dataset(group, name, dtype, shape, file_bytes)
    if dataset.chunks is not None:
        raise DefectError("layout", dataset.name, "must not be chunked")
    return dataset


def read_array(
    group: h5py.Group,
    name: str,
    dtype: Dtypes,
    shape: tuple[int, ...],
    file_bytes: int,
    *,
    chunked: bool = False,
) -> NDArray[Any]:
    """Return a dataset's array, checked against its attribute ``crc32``.

    Parameters
    ----------
    group, name, dtype, shape, file_bytes
        As in `open_dataset`.
    chunked : bool
        Whether it may be cut in chunks, without filters, of which none is missing.

    Raises
    ------
    DefectError
        As in `open_dataset`, or another checksum.
    """
    dataset = (open_dataset if chunked else open_contiguous)(group, name, dtype, shape, file_bytes)
    if dataset.chunks is not None:
        declared = _declared(dataset.id)
        filters = dataset.id.get_create_plist().get_nfilters()
        if filters or declared > file_bytes or declared != dataset.id.get_storage_size():
            raise DefectError("limit", dataset.name, f"declares {declared} B that are not stored as they are")
    array = np.asarray(dataset[...])
    try:
        stored = read_attribute(dataset, "crc32", "i")
    except DefectError:
        stored = np.empty(0)
    if stored.dtype != np.uint32 or int(stored) != checksum(array):
        raise DefectError("checksum", dataset.name, f"does not match its checksum; {COPY_AGAIN}")
    return array


def write_array(group: h5py.Group, name: str, array: NDArray[Any]) -> None:
    """Write an array as a dataset with its checksum, which `read_array` checks."""
    dataset = group.create_dataset(name, data=array, track_times=False)
    dataset.attrs["crc32"] = np.uint32(checksum(array))
