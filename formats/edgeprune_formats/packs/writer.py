"""Writing a pack: streaming, in bounded memory, and either whole under its name or not there at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..codecs import get_codec, stored_bytes
from ..coefficients import Coefficients
from ..errors import ConfigError
from ..files import (
    Sink,
    check_free_space,
    check_writable,
    partial_folder,
    publish,
    shielded,
    sync,
    write_error,
)
from ..hdf5 import MAX_LINKS, create_hdf5
from ..header import PackHeader
from ..targets import Target
from .checks import check_header, check_rows, check_scores
from .chunks import COMPRESSIONS, Stream, create_field, write_chunk
from .columns import check_columns, encode_targets
from .metadata import write_metadata
from .provenance import promises_scores

__all__ = ["PackWriter"]


class PackWriter:
    """Write a pack chunk by chunk to a temporary file and move it to its name when it is complete.

    Use it as a context manager: leaving the block normally completes the pack, leaving it by an
    exception removes what was written. Several packs appear together if each is sealed before any `with`
    block is left (`edgeprune_formats.packs.transactions`).

    Parameters
    ----------
    path : path
        Final name; an existing file is replaced at the very end.
    header : PackHeader
        Complete description; `header.samples` images must be appended.
    labels : int [N]
        Indices into `header.class_names`; all 0 where that is empty, which takes `targets`.
    source_index : int [N]
        The row of each image in its source.
    compression : str
        ``"none"`` or ``"gzip"`` (HDF5's own byte shuffle and deflate).
    scores : float [N], optional
        The score by which each image was chosen, finite; stored as float32. Which score it is, its
        parameters and its direction belong into ``header.provenance["coreset"]``.
    rounding : str
        How a codec that quantizes does it, see `edgeprune_formats.coding.rounding.rounded`.
    stream_bytes : mapping of str to int, optional
        Bytes of all chunks of each array whose size differs from chunk to chunk, where they are known: then
        they are written where they stay. Otherwise they wait in a file beside the pack until the end.
    targets : sequence of Target, optional
        Columns beside the labels, see `edgeprune_formats.targets`.

    Attributes
    ----------
    squared_error : float
        Of what was appended as spectra so far, over all pixels on [0, 1]; counted for codecs that are not
        exact.
    published : bool
        Whether the pack is there under its name.
    in_transaction : bool
        Whether the caller waits until the disk has the name.

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
        stream_bytes: Mapping[str, int] | None = None,
        targets: Sequence[Target] = (),
    ) -> None:
        self.path = Path(path)
        self.header = header
        self._codec = get_codec(header.codec)
        self._compression, self._rounding = compression, rounding
        self._streams: dict[str, Stream] = {}
        self._stream_bytes = stream_bytes or {}
        self.squared_error = 0.0
        self._result: dict[str, Any] = {}
        if compression not in COMPRESSIONS:
            raise ConfigError(f"unknown compression {compression!r}; known: {', '.join(COMPRESSIONS)}")
        check_header(header)
        if not header.class_names and not targets:
            raise ConfigError("a pack has classes, or other `targets`, and here is neither")
        classes = max(1, len(header.class_names))
        self._labels = check_rows("labels", labels, header.samples, classes).astype("<i4")
        self._targets = encode_targets(targets, header.samples)
        self._source_index = check_rows("source_index", source_index, header.samples, 2**63).astype("<i8")
        self._scores = None if scores is None else check_scores(scores, header.samples)
        if scores is None and promises_scores(header.provenance):
            raise ConfigError("provenance says that images were chosen by a score; pass `scores`")
        self._folder, self._partial, self._is_new = contextlib.ExitStack(), self.path, True
        self._sink: Sink | None = None
        self._file: h5py.File | None = None
        self._spectra: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None
        self._coefficients: Coefficients | None = None
        self._buffered = self._chunk = self._written = 0
        self._sealed = self.published = False
        self.in_transaction = False

    def __enter__(self) -> PackWriter:
        check_writable(self.path)
        if self._compression == "none":
            check_free_space(self.path, self.header.samples * stored_bytes(self.header))
        with self._abandoned_if_it_fails(), shielded():
            self._is_new = not os.path.lexists(self.path)
            self._partial = self._folder.enter_context(partial_folder(self.path)) / self.path.name
            self._sink = Sink(self._partial, "w+")
            self._file = create_hdf5(self._sink)
            self._create_samples(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        self.seal()
        with self._abandoned_if_it_fails():
            publish(self._partial, self.path, is_new=self._is_new, in_transaction=self.in_transaction)
            self.published = True
            self._folder.close()

    def seal(self) -> None:
        """Complete the file after the last append, and wait until the disk has it.

        It does not have its name yet; leaving the block then only renames it.

        Raises
        ------
        ConfigError
            Images are missing.
        PackWriteError
            The disk is full. What was written is removed.
        """
        if self._sealed:
            return
        with self._abandoned_if_it_fails():
            with shielded():
                self._complete()
            self._check_sink()
            sync(self._partial)
        self._sealed, self._spectra, self._coefficients = True, None, None

    def append(self, spectra: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Append images, any number at a time.

        Parameters
        ----------
        spectra : float32 [n, C, H, W]
            Of the next n images.
        mask : bool [n, C, H, W]
            True at exactly K coefficients in each channel of each image.

        Raises
        ------
        ConfigError
            Shapes differ from the header's, a mask keeps another number than K, or too many images.
        PackWriteError
            The disk is full.
        """
        shape = (len(spectra), *self.header.shape)
        if spectra.shape != shape or mask.shape != shape:
            raise ConfigError(f"spectra {spectra.shape} and mask {mask.shape} must be {shape}")
        if mask.dtype != bool:
            raise ConfigError(f"a mask must be boolean, not {mask.dtype}")
        if (mask.sum(axis=(2, 3)) != self.header.components).any():
            raise ConfigError(f"a mask must keep exactly {self.header.components} components a channel")
        if self._spectra is None:
            room = (self.header.chunk_samples, *self.header.shape)
            self._spectra = np.empty(room, np.float32), np.empty(room, bool)
        for rows, place in self._places(len(spectra)):
            self._spectra[0][place] = spectra[rows]
            self._spectra[1][place] = mask[rows]
            self._advance(place)

    def append_coefficients(self, coefficients: Coefficients) -> None:
        """Append images as another pack's chunk has them, any number at a time; they are stored bit for bit.

        Parameters
        ----------
        coefficients : Coefficients
            Of packs with the same codec, shape, components, tiles, color space and step.

        Raises
        ------
        ConfigError
            They are of another layout or shape, or too many images.
        PackWriteError
            The disk is full.
        """
        if self._coefficients is None:
            self._coefficients = self._codec.layout.empty(self.header, self.header.chunk_samples)
        given, own = coefficients.values.shape, self._coefficients.values.shape
        if type(coefficients) is not type(self._coefficients) or given[1:] != own[1:]:
            raise ConfigError(f"coefficients {given} must be as {own}")
        for rows, place in self._places(len(coefficients)):
            self._coefficients.write(place.start, coefficients.take(rows))
            self._advance(place)

    def append_arrays(self, arrays: Mapping[str, NDArray[Any]], images: int) -> None:
        """Append the next chunk as its codec encoded it, or as `Pack.read_payload` gives it.

        Parameters
        ----------
        arrays : mapping of str to array
            By field name, see `edgeprune_formats.codecs.Codec.encode`.
        images : int
            That it holds: as many as the chunk has, or one that reads the pack finds it damaged.

        Raises
        ------
        ConfigError
            It is no chunk of this pack: another number of images, or content that the codec refuses.
        PackWriteError
            The disk is full.
        """
        if self._chunk == self.header.chunks:
            raise ConfigError(f"more than the {self.header.samples} images that the header declares")
        due = len(self.header.chunk_rows(self._chunk))
        if self._buffered or images != due:
            raise ConfigError(f"{images} images for chunk {self._chunk}, which holds {due}")
        self._store(arrays, images)

    def describe(
        self, mean: tuple[float, ...], std: tuple[float, ...], provenance: Mapping[str, Any]
    ) -> None:
        """Replace what the header says of the images, where it was not known before they were read.

        Raises
        ------
        ConfigError
            As for the header that the writer was made with.
        """
        header = replace(self.header, mean=mean, std=std, provenance=provenance)
        check_header(header)
        self.header = header

    def add_target(self, target: Target) -> None:
        """Add a column of all images that is known only once they were read.

        Raises
        ------
        ConfigError
            As for the `targets` that the writer was made with.
        """
        check_columns([*(column for column, _ in self._targets), target.column])
        self._targets += encode_targets([target], self.header.samples)

    def _places(self, images: int) -> Iterator[tuple[slice, slice]]:
        """Yield which of so many images come next, and where in the chunk that is being filled."""
        if self._written + self._buffered + images > self.header.samples:
            raise ConfigError(f"more than the {self.header.samples} images that the header declares")
        start = 0
        while start < images:
            count = min(images - start, self.header.chunk_samples - self._buffered)
            yield slice(start, start + count), slice(self._buffered, self._buffered + count)
            start += count

    def _advance(self, place: slice) -> None:
        self._buffered = place.stop
        if self._buffered == self.header.chunk_samples:
            self._flush()

    def _flush(self) -> None:
        count, self._buffered = self._buffered, 0
        if self._spectra is not None and self._coefficients is not None:
            raise ConfigError("a pack is appended to in spectra or in coefficients, not in both")
        if self._coefficients is not None:
            coefficients = self._coefficients.take(slice(count))
            self._store(self._codec.encode_coefficients(self.header, coefficients), count)
            return
        assert self._spectra is not None
        spectra, mask = self._spectra[0][:count], self._spectra[1][:count]
        arrays = self._codec.encode(self.header, spectra, mask, rounding=self._rounding)
        if not self._codec.exact:
            # What a device will see is what is measured; and what cannot be decoded is not stored.
            decoded = self._codec.decode(self.header, arrays, count)
            self.squared_error += decoded.squared_error(self.header, spectra)
        self._store(arrays, count)

    def _store(self, arrays: Mapping[str, NDArray[Any]], count: int) -> None:
        assert self._file is not None
        for name, message in self._codec.problems(self.header, arrays):
            raise ConfigError(f"{name} of chunk {self._chunk}: {message}")
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
                size = self._stream_bytes.get(field.name)
                self._streams[field.name] = Stream(group, field, self.path.parent, size)
        streams = len(self._streams)
        if len(group) + 2 * streams > MAX_LINKS:
            raise ConfigError(f"codec {self.header.codec!r} has more arrays than {MAX_LINKS} with checksums")

    def _complete(self) -> None:
        appended = self._written + self._buffered
        if appended != self.header.samples:
            raise ConfigError(f"{appended} of the {self.header.samples} images that the header declares")
        if self._buffered:
            self._flush()
        assert self._file is not None
        facts = self._labels, self._source_index, self._scores, self._result, self._targets
        write_metadata(self._file, self.header, *facts)
        for field in self._codec.fields(self.header):
            if field.shape is None:
                self._streams[field.name].store()
        self._close()

    @contextlib.contextmanager
    def _abandoned_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise

    def _abandon(self) -> None:
        # What goes wrong now must not hide why the pack is abandoned.
        with contextlib.suppress(OSError, RuntimeError), shielded():
            self._close()
        self._folder.close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._sink is not None:
            self._sink.close()
        for stream in self._streams.values():
            stream.close()
