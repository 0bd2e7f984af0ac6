"""One array of a codec in the file: a dataset cut in chunks, a CRC-32 for each chunk beside it.

Stored chunks are fetched as they lie in the file and expanded here rather than by HDF5's filters, so that
a chunk can never expand beyond its declared size.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..codecs import Field, get_codec, memory_bytes
from ..errors import ConfigError, DefectError
from ..hdf5 import COPY_AGAIN, checksum
from ..header import PackHeader

__all__ = [
    "COMPRESSIONS",
    "StoredField",
    "Stream",
    "create_field",
    "plan_chunk_samples",
    "plan_chunks",
    "write_chunk",
]

COMPRESSIONS = ("none", "gzip")
TARGET_CHUNK_BYTES = 2 * 2**20
# Dense spectra of a chunk are held while it is written: 2^24 values are 64 MiB.
MAX_CHUNK_VALUES = 2**24
COPY_PIECE = 1 << 20


def plan_chunk_samples(samples: int, image_bytes: int, image_values: int) -> int:
    """Return how many images to store in a chunk so that it takes about 2 MiB.

    Chunks come out as equal as they can: HDF5 stores the last one at full size.

    Parameters
    ----------
    samples : int
        Images in the pack.
    image_bytes : int
        Bytes that one image is about to take in a chunk.
    image_values : int
        Values of one decoded image, C * H * W.
    """
    largest = max(1, min(TARGET_CHUNK_BYTES // image_bytes, MAX_CHUNK_VALUES // image_values, 4096))
    return math.ceil(samples / math.ceil(samples / largest))


def plan_chunks(header: PackHeader) -> PackHeader:
    """Return the header with as many images in a chunk as suit its codec and their size."""
    image_bytes = max(1, memory_bytes(header) // get_codec(header.codec).memory_ratio)
    samples = plan_chunk_samples(header.samples, image_bytes, math.prod(header.shape))
    return replace(header, chunk_samples=samples)


def create_field(group: h5py.Group, field: Field, header: PackHeader, compression: str) -> None:
    """Create the empty dataset of `field` and those of its checksums and, for a stream, offsets."""
    options: dict[str, Any] = {}
    if compression == "gzip":
        options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    if field.shape is not None:
        shape = (header.samples, *field.shape)
        chunks = (header.chunk_samples, *field.shape)
        group.create_dataset(field.name, shape, field.dtype, chunks=chunks, track_times=False, **options)
    checksums = group.create_dataset(f"{field.name}_crc32", (header.chunks,), "<u4", track_times=False)
    checksums[...] = 0


def write_chunk(group: h5py.Group, field: Field, header: PackHeader, chunk: int, array: NDArray[Any]) -> None:
    """Store one chunk's array and its checksum."""
    if field.shape is not None:
        rows = header.chunk_rows(chunk)
        group[field.name][rows.start : rows.stop] = array
    group[f"{field.name}_crc32"][chunk] = checksum(array)


class Stream:
    """The bytes of an array whose size differs from chunk to chunk, side by side in one contiguous dataset.

    HDF5 must know its size when the dataset is made: it allots whole chunks to one that grows, and a small
    pack would be mostly the rest of its last one. Until it is known, bytes wait in a file without a name.

    Parameters
    ----------
    group : h5py.Group
    field : Field
    folder : Path
        Where they may wait.
    size : int or None
        Of the dataset, where it is known.
    """

    def __init__(self, group: h5py.Group, field: Field, folder: Path, size: int | None) -> None:
        self._group, self._field, self._ends = group, field, [0]
        self._dataset = None if size is None else self._create(size)
        self._file = tempfile.TemporaryFile(dir=folder) if size is None else None  # noqa: SIM115

    def append(self, array: NDArray[Any]) -> None:
        """Append one chunk's bytes."""
        end = self._ends[-1] + array.size
        if self._file is None:
            assert self._dataset is not None
            if end > len(self._dataset):
                raise ConfigError(f"more than the {len(self._dataset)} B of {self._field.name} that are due")
            if array.size:
                self._dataset[self._ends[-1] : end] = array
        else:
            self._file.write(np.ascontiguousarray(array).data)
            # A full disk is to be found now, not in the end.
            self._file.flush()
        self._ends.append(end)

    def store(self) -> None:
        """Complete the dataset, and write that of its offsets.

        What waits is copied from its end, and given back to the disk as it is: both together never take more
        room than the bytes once.
        """
        size = self._ends[-1]
        if self._dataset is None:
            self._dataset = self._create(size)
        if self._file is not None:
            for start in reversed(range(0, size, COPY_PIECE)):
                self._file.seek(start)
                piece = self._file.read(COPY_PIECE)
                self._dataset[start : start + len(piece)] = np.frombuffer(piece, self._field.dtype)
                self._file.truncate(start)
        if size != len(self._dataset):
            raise ConfigError(f"{size} B of {self._field.name}, and {len(self._dataset)} B are due")
        ends = np.array(self._ends, "<u8")
        offsets = self._group.create_dataset(f"{self._field.name}_offsets", data=ends, track_times=False)
        offsets.attrs["crc32"] = np.uint32(checksum(ends))

    def close(self) -> None:
        """Let the waiting bytes go."""
        if self._file is not None:
            self._file.close()

    def _create(self, size: int) -> h5py.Dataset:
        return self._group.create_dataset(self._field.name, (size,), self._field.dtype, track_times=False)


class StoredField:
    """One array of a codec in an open file, of which chunks are read; for one thread.

    Parameters
    ----------
    group : h5py.Group
        ``/samples``.
    field : Field
    header : PackHeader
    file_bytes : int
        Size of the file in bytes.
    """

    def __init__(self, group: h5py.Group, field: Field, header: PackHeader, file_bytes: int) -> None:
        self._field, self._header, self._file_bytes = field, header, file_bytes
        self._path = f"{group.name}/{field.name}"
        self._dataset = group[field.name]
        self._checksums = group[f"{field.name}_crc32"][...]
        if field.shape is None:
            self._offsets = group[f"{field.name}_offsets"]
        else:
            filters = self._dataset.id.get_create_plist()
            self._filters = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]

    def read(self, chunk: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return one chunk's array, checked against its checksum.

        Parameters
        ----------
        chunk : int
        out : array [chunk_samples, ...], optional
            Of the field's shape and dtype, in C order: the array is read into it if it is stored as it is. Of
            another size or dtype it is left alone.

        Raises
        ------
        DefectError
            Cut off, not expandable to exactly its declared size, or of another checksum.
        """
        where = f"{self._path} chunk {chunk}"
        array = self._stream(chunk, where) if self._field.shape is None else self._rows(chunk, out, where)
        if checksum(array) != int(self._checksums[chunk]):
            raise DefectError("checksum", where, f"does not match its checksum; {COPY_AGAIN}")
        return array

    def _stream(self, chunk: int, where: str) -> NDArray[Any]:
        start, stop = (int(v) for v in self._offsets[chunk : chunk + 2])
        if not 0 <= start <= stop <= len(self._dataset):
            raise DefectError("layout", where, f"offsets {start}..{stop} are not within {len(self._dataset)}")
        return np.asarray(self._dataset[start:stop])

    def _rows(self, chunk: int, out: NDArray[Any] | None, where: str) -> NDArray[Any]:
        assert self._field.shape is not None
        shape, dtype = (self._header.chunk_samples, *self._field.shape), self._field.dtype
        size = math.prod(shape) * dtype.itemsize
        start = (chunk * self._header.chunk_samples, *(0 for _ in self._field.shape))
        info = self._dataset.id.get_chunk_info_by_coord(start)
        if info.byte_offset is None or info.size == 0:
            raise DefectError("checksum", where, "not in the file; the pack is incomplete, build it again")
        # A deflated chunk grows by less than a thousandth; more than that is not our data.
        if info.size > size + size // 1000 + 64 or info.byte_offset + info.size > self._file_bytes:
            raise DefectError("limit", where, f"{info.size} B at {info.byte_offset} cannot be its {size} B")
        if info.filter_mask:
            raise DefectError("layout", where, f"filter mask {info.filter_mask:#x} is not 0")
        there = None
        if out is not None and not self._filters and (out.nbytes, out.dtype) == (info.size, dtype):
            there = out.reshape(-1).view(np.uint8)
        raw = self._dataset.id.read_direct_chunk(start, out=there)[1]
        found = _expand(raw, self._filters, shape, dtype, size, where)
        return found[: len(self._header.chunk_rows(chunk))]


def _expand(
    raw: bytes | memoryview,
    filters: list[int],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    size: int,
    where: str,
) -> NDArray[Any]:
    if h5py.h5z.FILTER_DEFLATE in filters:
        try:
            raw = zlib.decompressobj().decompress(raw, size + 1)
        except zlib.error as error:
            raise DefectError("checksum", where, f"does not inflate ({error}); {COPY_AGAIN}") from None
    if len(raw) != size:
        raise DefectError("checksum", where, f"holds {len(raw)} B in place of {size} B")
    flat = np.frombuffer(raw, np.uint8)
    if h5py.h5z.FILTER_SHUFFLE in filters:
        flat = np.ascontiguousarray(flat.reshape(dtype.itemsize, -1).T)
    return flat.view(dtype).reshape(shape)
