"""Reading a pack: lazily, by chunk, from any number of processes and threads."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..codecs import ContentError, Field, get_codec
from ..coefficients import Coefficients
from ..errors import (
    DefectError,
    PackChecksumError,
    Problem,
    error_for,
)
from ..hdf5 import unreadable
from ..isolation import Identity, identity_of
from ..targets import LABEL, Column, Target
from .chunks import StoredField
from .columns import StoredTarget, read_column
from .handles import Handles, OpenFile, changed, open_file
from .inspection import Contents, inspect_scores

if TYPE_CHECKING:
    from ..remote.fetch import RemoteCopy

__all__ = ["Pack"]


class Pack:
    """An open pack; use `edgeprune_formats.open_pack` to make one.

    It can be pickled, and used after a fork and from several threads: each process and each thread opens
    the file for itself when it first reads.

    Attributes
    ----------
    path : Path
        The file.
    header : PackHeader
        Everything but the samples.
    labels : int64 [N]
        Indices into `header.class_names`; all 0 where the pack has other targets and no classes.
    source_index : int64 [N]
        The row of each image in the source that it was built from.
    fetched : RemoteCopy or None
        Of a far pack its URL without credentials, its SHA-256, and `path`, where it lies in the cache.
    """

    def __init__(self, path: Path, identity: Identity, contents: Contents) -> None:
        assert contents.header is not None
        self.path = path
        # The working directory may change before the file is opened again, here or in another process.
        self._place = path.absolute()
        self._identity = identity
        self._handles = Handles()
        self.header = contents.header
        self.labels = contents.labels
        self.source_index = contents.source_index
        self._columns = contents.columns
        self._stored_columns: dict[int, NDArray[Any]] = {}
        self._scores: NDArray[np.float32] | None = None
        self._scores_read = False
        self.fetched: RemoteCopy | None = None

    def __len__(self) -> int:
        return self.header.samples

    def __repr__(self) -> str:
        header = self.header
        return f"Pack({str(self.path)!r}, {header.samples} images {header.shape}, {header.codec})"

    def __enter__(self) -> Pack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._handles = Handles()

    def close(self) -> None:
        """Close the file in the calling process; reading again opens it again.

        A thread that is reading ends that first.

        Raises
        ------
        PackFormatError
            HDF5 cannot close it, because it is damaged.
        """
        try:
            self._handles.close()
        # HDF5 reports damage by whatever exception its binding maps it to.
        except Exception as error:
            raise PackChecksumError(self.path, Problem("checksum", "/", unreadable(error))) from error

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """The score by which each image was chosen, float32 [N], or None where the pack holds none.

        Read and checked when it is first asked for, and kept. Which score it is, its parameters and its
        direction stand in ``header.provenance["coreset"]``.

        Raises
        ------
        PackChecksumError, PackLayoutError, PackLimitError
            The stored bytes are damaged, or are not what the specification allows.
        """
        if not self._scores_read:
            problems, scores = self._load_scores()
            for problem in problems:
                raise error_for(self.path, problem)
            self._scores = scores
            self._scores_read = True
        return self._scores

    @property
    def targets(self) -> dict[str, StoredTarget]:
        """The columns of the pack by name: ``"label"``, if it has classes, then the others in their order.

        A column is read and checked when its values are first asked for: ``pack.targets["weight"].read()``.
        """
        found = [StoredTarget(column, partial(self._column, n)) for n, column in enumerate(self._columns)]
        if self.header.class_names:
            label = Column(LABEL, "class", self.header.class_names)
            found.insert(0, StoredTarget(label, lambda: self.labels))
        return {target.name: target for target in found}

    def take_targets(self, rows: Any = None) -> list[Target]:
        """Return the columns beside the label, of some images or of all, to be written into another pack.

        Raises
        ------
        PackFormatError
            One is damaged.
        """
        return [target.take(rows) for target in self.targets.values() if target.name != LABEL]

    def _column(self, number: int) -> NDArray[Any]:
        if number not in self._stored_columns:
            problems, stored = self._load_column(number)
            for problem in problems:
                raise error_for(self.path, problem)
            assert stored is not None
            self._stored_columns[number] = stored
        return self._stored_columns[number]

    def _load_column(self, number: int) -> tuple[list[Problem], NDArray[Any] | None]:
        column, contents = self._columns[number], Contents()
        with self._reading() as opened:
            step = partial(read_column, opened.file, number, column, len(self), self._identity[0])
            stored = contents.attempt(step, f"/targets/{number}")
        return contents.problems, stored

    def _load_scores(self) -> tuple[list[Problem], NDArray[np.float32] | None]:
        with self._reading() as opened:
            return inspect_scores(opened.file, self.header, self._identity[0])

    def empty_coefficients(self, samples: int) -> Coefficients:
        """Allocate the coefficients of so many images of this pack, to be filled."""
        return get_codec(self.header.codec).layout.empty(self.header, samples)

    def read_chunk(self, chunk: int, out: Coefficients | None = None) -> Coefficients:
        """Return one chunk's images, checked against checksum and specification.

        Parameters
        ----------
        chunk : int
            ``0 .. header.chunks - 1``.
        out : Coefficients, optional
            Of `chunk_samples` images, as `empty_coefficients` makes it: the images go into its first ones, of
            which a view is returned. After an error they are undefined.

        Raises
        ------
        IndexError
            There is no such chunk.
        PackChecksumError, PackLayoutError, PackLimitError
            The stored bytes are damaged, or are not what the specification allows.
        """
        return self.decode_payload(chunk, self.read_payload(chunk, out), out)

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return self._identity[0]

    @property
    def payload_bytes(self) -> int:
        """Bytes that all chunks take in the file, without checksums."""
        fields = get_codec(self.header.codec).fields(self.header)
        with self._reading() as opened:
            group = opened.file["samples"]
            return sum(int(group[field.name].id.get_storage_size()) for field in fields)

    @property
    def compression(self) -> str:
        """How arrays of a fixed size are stored: ``"gzip"``, or ``"none"``, also where there are no such."""
        fields = get_codec(self.header.codec).fields(self.header)
        with self._reading() as opened:
            group = opened.file["samples"]
            filters = {group[field.name].compression for field in fields if field.shape is not None}
        return "gzip" if "gzip" in filters else "none"

    def read_payload(self, chunk: int, out: Coefficients | None = None) -> dict[str, NDArray[Any]]:
        """Return the stored arrays of one chunk by name, checked against their checksums and not yet decoded.

        Parameters
        ----------
        chunk : int
            ``0 .. header.chunks - 1``.
        out : Coefficients, optional
            As in `read_chunk`: arrays that are stored as `out` has them are read into it.

        Raises
        ------
        IndexError
            There is no such chunk.
        PackFormatError
            The stored bytes are damaged.
        """
        if not 0 <= chunk < self.header.chunks:
            raise IndexError(f"chunk {chunk} of {self.header.chunks}")
        problems, arrays = self._fetch(chunk, out)
        for problem in problems:
            raise error_for(self.path, problem)
        return arrays

    def decode_payload(
        self, chunk: int, arrays: dict[str, NDArray[Any]], out: Coefficients | None = None
    ) -> Coefficients:
        """Return the coefficients of what `read_payload` returned; needs no file, and any thread may call it.

        `out` is as in `read_chunk`.

        Raises
        ------
        PackFormatError
            The content is not what the specification allows.
        """
        problems, coefficients = self._expand(chunk, arrays, out)
        for problem in problems:
            raise error_for(self.path, problem)
        assert coefficients is not None
        return coefficients

    def _fetch(
        self, chunk: int, out: Coefficients | None = None
    ) -> tuple[list[Problem], dict[str, NDArray[Any]]]:
        arrays: dict[str, NDArray[Any]] = {}
        problems: list[Problem] = []
        codec = get_codec(self.header.codec)
        there = {} if out is None else codec.stored_in(out)
        with self._reading() as opened:
            for field in codec.fields(self.header):
                try:
                    arrays[field.name] = self._stored(opened, field).read(chunk, there.get(field.name))
                except DefectError as error:
                    problems.append(error.problem)
                # HDF5 reports damage by whatever exception its binding maps it to.
                except Exception as error:
                    where = f"/samples/{field.name} chunk {chunk}"
                    problems.append(Problem("checksum", where, unreadable(error)))
        return problems, arrays

    def _stored(self, opened: OpenFile, field: Field) -> StoredField:
        if field.name not in opened.fields:
            group = opened.file["samples"]
            opened.fields[field.name] = StoredField(group, field, self.header, self._identity[0])
        return opened.fields[field.name]

    def _expand(
        self, chunk: int, arrays: dict[str, NDArray[Any]], out: Coefficients | None = None
    ) -> tuple[list[Problem], Coefficients | None]:
        codec, samples = get_codec(self.header.codec), len(self.header.chunk_rows(chunk))
        found = codec.problems(self.header, arrays)
        coefficients = None
        if not found:
            try:
                if out is None:
                    coefficients = codec.decode(self.header, arrays, samples)
                else:
                    coefficients = out.take(slice(samples))
                    codec.decode_into(self.header, arrays, coefficients)
            except ContentError as error:
                found = [(error.field, error.message)]
        where = "/samples/{} chunk {}"
        problems = [Problem("layout", where.format(name, chunk), text) for name, text in found]
        return problems, coefficients

    def _verify(self, found: list[Problem]) -> list[Problem]:
        """Return `found`, and what is wrong with all that is not read when the pack is opened.

        The images are not read where something is wrong with their arrays.
        """
        problems = found + self._load_scores()[0]
        for number in range(len(self._columns)):
            problems = problems + self._load_column(number)[0]
        if any(problem.location.startswith("/samples") for problem in problems):
            return problems
        return problems + [problem for n in range(self.header.chunks) for problem in self._load(n)]

    def _load(self, chunk: int) -> list[Problem]:
        problems, arrays = self._fetch(chunk)
        return problems or self._expand(chunk, arrays)[0]

    def _reading(self) -> AbstractContextManager[OpenFile]:
        return self._handles.reading(self._open_again)

    def _open_again(self) -> h5py.File:
        if identity_of(self._place) != self._identity:
            raise changed(self.path)
        return open_file(self._place)
