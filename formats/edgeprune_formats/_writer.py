"""Writing a pack: streaming, in bounded memory, and either whole under its name or not there at all."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ._checks import check_header, check_rows, check_scores, provenance_text
from ._chunks import Stream, checksum, create_field, write_chunk
from ._errors import ConfigError
from ._header import INTEGERS, TEXTS, PackHeader
from ._target import Sink, check_room, check_target, partial_path, shielded, sweep, sync, write_error
from .codecs import get_codec, stored_bytes

__all__ = ["COMPRESSIONS", "PackWriter", "plan_chunk_samples"]

COMPRESSIONS = ("none", "gzip")
TARGET_CHUNK_BYTES = 2 * 2**20
# Dense spectra of a chunk are held while it is written: 2^24 values are 64 MiB.
MAX_CHUNK_VALUES = 2**24


def plan_chunk_samples(samples: int, sparse_bytes: int, image_values: int) -> int:
    """Return how many images to store in a chunk so that it takes about 2 MiB.

    Chunks come out as equal as they can: HDF5 stores the last one at full size.

    Parameters
    ----------
    samples : int
        Images in the pack.
    sparse_bytes : int
        Bytes of one image's values and positions.
    image_values : int
        Values of one decoded image, C * H * W.
    """
    largest = max(1, min(TARGET_CHUNK_BYTES // sparse_bytes, MAX_CHUNK_VALUES // image_values, 4096))
    return math.ceil(samples / math.ceil(samples / largest))


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
    scores : float [N], optional
        The score by which each image was chosen, finite; stored as float32. Which score it is, its
        parameters and its direction belong into ``header.provenance["coreset"]``.
    rounding : str
        How a codec that quantises does it: ``"rdo"`` or ``"deadzone"``.

    Attributes
    ----------
    squared_error : float
        Of what was written so far over all pixels on [0, 1]; counted for codecs that are not exact.

    Raises
    ------
    ConfigError
        The header is not sound, or labels, scores and images disagree with it.
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
        scores: NDArray[np.floating[Any] | np.integer[Any]] | None = None,
        rounding: str = "rdo",
    ) -> None:
        self.path = Path(path)
        self.header = header
        self._codec = get_codec(header.codec)
        self._compression, self._rounding = compression, rounding
        self._streams: dict[str, Stream] = {}
        self.squared_error = 0.0
        self._result: dict[str, Any] = {}
        if compression not in COMPRESSIONS:
            raise ConfigError(f"unknown compression {compression!r}; known: {', '.join(COMPRESSIONS)}")
        check_header(header)
        self._labels = check_rows("labels", labels, header.samples, len(header.class_names)).astype("<i4")
        self._source_index = check_rows("source_index", source_index, header.samples, 2**63).astype("<i8")
        self._scores = None if scores is None else check_scores(scores, header.samples)
        self._partial = partial_path(self.path)
        self._sink: Sink | None = None
        self._file: h5py.File | None = None
        shape = (header.chunk_samples, *header.shape)
        self._coefficients, self._mask = np.empty(shape, np.float32), np.empty(shape, bool)
        self._buffered = self._chunk = self._written = 0

    def __enter__(self) -> PackWriter:
        sweep(self.path)
        check_target(self.path)
        if self._compression == "none":
            check_room(self.path, self.header.samples * stored_bytes(self.header))
        try:
            # The 1.10 file format: its object headers and indexes carry checksums of their own.
            with shielded():
                self._sink = Sink(self._partial, "w+")
                self._file = h5py.File(self._sink, "w", libver=("v110", "v110"))
                self._create_samples(self._file)
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            with shielded():
                self._complete()
            self._check_sink()
            self._publish()
        except BaseException as failure:
            self._abandon()
            if isinstance(failure, OSError):
                raise write_error(self.path, failure) from failure
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
        if mask.dtype != bool:
            raise ConfigError(f"a mask must be boolean, not {mask.dtype}")
        if (mask.sum(axis=(2, 3)) != self.header.components).any():
            raise ConfigError(f"a mask must keep exactly {self.header.components} components a channel")
        if self._written + self._buffered + len(coefficients) > self.header.samples:
            raise ConfigError(f"more than the {self.header.samples} images that the header declares")
        start = 0
        while start < len(coefficients):
            count = min(len(coefficients) - start, self.header.chunk_samples - self._buffered)
            rows = slice(self._buffered, self._buffered + count)
            self._coefficients[rows] = coefficients[start : start + count]
            self._mask[rows] = mask[start : start + count]
            self._buffered += count
            start += count
            if self._buffered == self.header.chunk_samples:
                self._flush()

    def _flush(self) -> None:
        count, self._buffered = self._buffered, 0
        coefficients = self._coefficients[:count]
        arrays = self._codec.encode(self.header, coefficients, self._mask[:count], rounding=self._rounding)
        for name, message in self._codec.problems(self.header, arrays):
            raise ConfigError(f"{name} of chunk {self._chunk}: {message}")
        if not self._codec.exact:
            # Read back before it is written: what a device will see is what is measured.
            block = self._codec.decode(self.header, arrays, count)
            self.squared_error += self._codec.squared_error(self.header, coefficients, block)
        assert self._file is not None
        try:
            with shielded():
                for field in self._codec.fields(self.header):
                    write_chunk(self._file["samples"], field, self.header, self._chunk, arrays[field.name])
                    if field.shape is None:
                        self._streams[field.name].append(arrays[field.name])
            self._check_sink()
        except OSError as error:
            raise write_error(self.path, error) from error
        self._chunk += 1
        self._written += count

    def _check_sink(self) -> None:
        if self._sink is not None and self._sink.failure is not None:
            raise self._sink.failure

    def finish(self) -> None:
        """Encode the images that wait for a full chunk, after the last append; `squared_error` is final."""
        if self._buffered:
            self._flush()

    def record(self, **facts: Any) -> None:
        """Add facts that are known only in the end, ready for JSON, to the provenance as its ``result``."""
        self._result.update(facts)

    def _create_samples(self, file: h5py.File) -> None:
        group = file.create_group("samples")
        for field in self._codec.fields(self.header):
            create_field(group, field, self.header, self._compression)
            if field.shape is None:
                self._streams[field.name] = Stream(self.path.parent)

    def _write_header(self, file: h5py.File) -> None:
        header = self.header
        for name in TEXTS:
            file.attrs[name] = _text(getattr(header, name))
        file.attrs["format"] = _text("edgepack")
        for name in INTEGERS:
            file.attrs[name] = np.int64(getattr(header, name))
        if self._codec.quantizes:
            file.attrs["step"] = np.float64(header.step)
        for name in ("mean", "std"):
            file.attrs[name] = np.array(getattr(header, name), "<f8")
        # Readers of 1.1 know one type only, and no codec but the first.
        old = header.codec == "sparse-f32"
        _write_array(file, "labels", self._labels if old else _narrow(self._labels, ("u1", "<u2")))
        index = self._source_index if old else _narrow(self._source_index, ("<u2", "<u4"))
        _write_array(file, "source_index", index)
        if self._scores is not None:
            _write_array(file, "scores", self._scores)
        names = [name.encode() for name in header.class_names]
        width = max(1, *(len(name) for name in names))
        _write_array(file, "class_names", np.array(names, h5py.string_dtype("utf-8", width)))
        text = provenance_text(header, self._result)
        _write_array(file, "provenance", np.array(text, h5py.string_dtype("utf-8", len(text))))

    def _complete(self) -> None:
        appended = self._written + self._buffered
        if appended != self.header.samples:
            raise ConfigError(f"{appended} of the {self.header.samples} images that the header declares")
        if self._buffered:
            self._flush()
        assert self._file is not None
        self._write_header(self._file)
        for field in self._codec.fields(self.header):
            if field.shape is None:
                self._streams[field.name].store(self._file["samples"], field)
        self._close()

    def _publish(self) -> None:
        sync(self._partial)
        self._partial.replace(self.path)
        sync(self.path.parent)

    def _abandon(self) -> None:
        # What goes wrong now must not hide why the pack is abandoned.
        with contextlib.suppress(OSError, RuntimeError), shielded():
            self._close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._sink is not None:
            self._sink.close()
        for stream in self._streams.values():
            stream.close()


def _narrow(array: NDArray[Any], dtypes: tuple[str, ...]) -> NDArray[Any]:
    """Return the array as the first of these types that holds it, or as it is."""
    largest = int(array.max())
    return next((array.astype(name) for name in dtypes if largest <= np.iinfo(name).max), array)


def _text(value: str) -> np.ndarray[Any, np.dtype[Any]]:
    raw = value.encode()
    return np.array(raw, h5py.string_dtype("utf-8", max(1, len(raw))))


def _write_array(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    dataset = file.create_dataset(name, data=array, track_times=False)
    dataset.attrs["crc32"] = np.uint32(checksum(array))
