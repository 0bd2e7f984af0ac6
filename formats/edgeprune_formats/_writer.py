"""Writing a pack: streaming, in bounded memory, and either whole under its name or not there at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import math
import os
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ._chunks import checksum, create_field, write_chunk
from ._errors import ConfigError, PackWriteError
from ._header import PackHeader, header_problems
from .codecs import get_codec

__all__ = ["COMPRESSIONS", "PackWriter", "check_target", "plan_chunk_samples"]

COMPRESSIONS = ("none", "gzip")
TARGET_CHUNK_BYTES = 2 * 2**20
# Room in a full disk check for labels, checksums, provenance and HDF5's own records.
OVERHEAD_BYTES = 2**20
NO_PERMISSION = "no permission to write there; choose another folder"


def plan_chunk_samples(samples: int, sparse_bytes: int) -> int:
    """Return how many images to store in a chunk so that it takes about 2 MiB.

    Chunks come out as equal as they can: HDF5 stores the last one at full size.

    Parameters
    ----------
    samples : int
        Images in the pack.
    sparse_bytes : int
        Bytes of one image's values and positions.
    """
    largest = max(1, min(TARGET_CHUNK_BYTES // sparse_bytes, 4096))
    return math.ceil(samples / math.ceil(samples / largest))


def check_target(path: Path) -> None:
    """Raise `PackWriteError` if no pack can be written under this name, whatever its size."""
    if path.is_dir():
        raise PackWriteError(f"{path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise PackWriteError(f"{path}: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PackWriteError(f"{path}: {NO_PERMISSION}")


class PackWriter:
    """Write a pack chunk by chunk to a temporary file and move it to its name when it is complete.

    Use it as a context manager: leaving the block normally completes the pack, leaving it by an
    exception removes what was written.

    Parameters
    ----------
    path : path
        Final name; an existing file is replaced at the very end.
    header : PackHeader
        Complete description; `header.samples` images must be appended.
    labels : int [N]
        Indices into `header.class_names`.
    source_index : int [N]
        The row of each image in its source.
    compression : str
        ``"none"`` or ``"gzip"`` (HDF5's own byte shuffle and deflate).

    Raises
    ------
    ConfigError
        The header is not sound, or labels and images disagree with it.
    PackWriteError
        The file cannot be written: no such folder, no permission, disk full.
    """

    def __init__(
        self,
        path: str | Path,
        header: PackHeader,
        labels: NDArray[np.integer[Any]],
        source_index: NDArray[np.integer[Any]],
        *,
        compression: str = "none",
    ) -> None:
        self.path = Path(path)
        self.header = header
        self._codec = get_codec(header.codec)
        self._labels = np.asarray(labels, "<i4")
        self._source_index = np.asarray(source_index, "<i8")
        self._compression = compression
        self._check()
        self._partial = self.path.with_name(f".{self.path.name}.{socket.gethostname()}-{os.getpid()}.partial")
        self._file: h5py.File | None = None
        self._buffer: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []
        self._buffered = self._chunk = self._written = 0
        self._result: dict[str, Any] = {}

    def _check(self) -> None:
        for problem in header_problems(self.header):
            raise ConfigError(f"{self.path}: {problem}")
        if self._compression not in COMPRESSIONS:
            raise ConfigError(f"unknown compression {self._compression!r}; known: {', '.join(COMPRESSIONS)}")
        for name, array in (("labels", self._labels), ("source_index", self._source_index)):
            if array.shape != (self.header.samples,):
                raise ConfigError(f"{name} {array.shape} must be [{self.header.samples}]")
        if self._labels.min() < 0 or self._labels.max() >= len(self.header.class_names):
            raise ConfigError(f"labels must be 0..{len(self.header.class_names) - 1}")

    def __enter__(self) -> PackWriter:
        _sweep(self.path)
        self._check_room()
        try:
            # The 1.10 file format: its object headers and indexes carry checksums of their own.
            self._file = h5py.File(self._partial, "w", libver=("v110", "v110"))
            self._create_samples(self._file)
        except OSError as error:
            self._abandon()
            raise self._write_error(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._finish()
        except OSError as failure:
            self._abandon()
            raise self._write_error(failure) from failure
        except BaseException:
            self._abandon()
            raise

    def append(self, coefficients: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Append images, any number at a time.

        Parameters
        ----------
        coefficients : float32 [n, C, H, W]
            Spectra of the next n images.
        mask : bool [n, C, H, W]
            True at exactly K coefficients in each channel of each image.

        Raises
        ------
        ConfigError
            Shapes differ from the header's, a mask keeps another number than K, or too many images.
        PackWriteError
            The disk is full.
        """
        shape = (len(coefficients), *self.header.shape)
        if coefficients.shape != shape or mask.shape != shape:
            raise ConfigError(f"coefficients {coefficients.shape} and mask {mask.shape} must be {shape}")
        if (mask.sum(axis=(2, 3)) != self.header.components).any():
            raise ConfigError(f"a mask must keep exactly {self.header.components} components a channel")
        if self._written + self._buffered + len(coefficients) > self.header.samples:
            raise ConfigError(f"more than the {self.header.samples} images that the header declares")
        self._buffer.append((coefficients, mask))
        self._buffered += len(coefficients)
        while self._buffered >= self.header.chunk_samples:
            self._flush(self.header.chunk_samples)

    def _flush(self, count: int) -> None:
        coefficients = np.concatenate([c for c, _ in self._buffer])
        mask = np.concatenate([m for _, m in self._buffer])
        self._buffer = [(coefficients[count:], mask[count:])]
        self._buffered -= count
        arrays = self._codec.encode(self.header, coefficients[:count], mask[:count])
        assert self._file is not None
        try:
            for field in self._codec.fields(self.header):
                write_chunk(self._file["samples"], field, self.header, self._chunk, arrays[field.name])
        except OSError as error:
            raise self._write_error(error) from error
        self._chunk += 1
        self._written += count

    def record(self, **facts: Any) -> None:
        """Add facts that are known only in the end, ready for JSON, to the provenance as its ``result``."""
        self._result.update(facts)

    def _create_samples(self, file: h5py.File) -> None:
        group = file.create_group("samples")
        for field in self._codec.fields(self.header):
            create_field(group, field, self.header, self._compression)

    def _write_header(self, file: h5py.File) -> None:
        header = self.header
        for name in ("format_version", "generator", "created", "codec", "transform", "block", "color_space"):
            file.attrs[name] = _text(getattr(header, name))
        file.attrs["format"] = _text("edgepack")
        for name in ("samples", "channels", "height", "width", "components", "chunk_samples"):
            file.attrs[name] = np.int64(getattr(header, name))
        for name in ("mean", "std"):
            file.attrs[name] = np.array(getattr(header, name), "<f8")
        _write_array(file, "labels", self._labels)
        _write_array(file, "source_index", self._source_index)
        names = [name.encode() for name in header.class_names]
        width = max(1, *(len(name) for name in names))
        _write_array(file, "class_names", np.array(names, h5py.string_dtype("utf-8", width)))
        provenance = {**header.provenance, **({"result": self._result} if self._result else {})}
        text = json.dumps(provenance, ensure_ascii=False, sort_keys=True).encode()
        _write_array(file, "provenance", np.array(text, h5py.string_dtype("utf-8", len(text))))

    def _finish(self) -> None:
        if self._buffered:
            self._flush(self._buffered)
        if self._written != self.header.samples:
            raise ConfigError(f"{self._written} of the {self.header.samples} images that the header declares")
        assert self._file is not None
        self._write_header(self._file)
        for field in self._codec.fields(self.header):
            if field.shape is None:
                offsets = self._file["samples"][f"{field.name}_offsets"]
                offsets.attrs["crc32"] = np.uint32(checksum(offsets[...]))
        self._file.close()
        _sync(self._partial)
        self._partial.replace(self.path)
        _sync(self.path.parent)

    def _check_room(self) -> None:
        check_target(self.path)
        if self._compression != "none":
            return
        need = self.header.samples * self.header.sparse_bytes + OVERHEAD_BYTES
        free = shutil.disk_usage(self.path.parent).free
        if need > free:
            raise PackWriteError(
                f"{self.path}: needs about {need / 1e6:.1f} MB and the disk has {free / 1e6:.1f} MB free; "
                "free some, write elsewhere, or prune more"
            )

    def _abandon(self) -> None:
        if self._file is not None:
            # A file that could not be flushed to a full disk cannot be closed either; it goes anyway.
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
        self._partial.unlink(missing_ok=True)

    def _write_error(self, error: OSError) -> PackWriteError:
        text = str(error)
        if error.errno == errno.ENOSPC or "No space left" in text or "errno = 28" in text:
            reason = "the disk is full; free some space or write elsewhere"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in text:
            reason = NO_PERMISSION
        else:
            reason = text
        return PackWriteError(f"{self.path}: {reason}")


def _text(value: str) -> np.ndarray[Any, np.dtype[Any]]:
    raw = value.encode()
    return np.array(raw, h5py.string_dtype("utf-8", max(1, len(raw))))


def _write_array(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    dataset = file.create_dataset(name, data=array, track_times=False)
    dataset.attrs["crc32"] = np.uint32(checksum(array))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove what writers of the same pack left on this host when they were killed."""
    host = socket.gethostname()
    for stale in path.parent.glob(f".{glob.escape(path.name)}.{host}-*.partial"):
        try:
            os.kill(int(stale.name.rsplit("-", 1)[1].removesuffix(".partial")), 0)
        except (ProcessLookupError, ValueError):
            stale.unlink(missing_ok=True)
        except PermissionError:
            continue
