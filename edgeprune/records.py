"""The scores file: what one scoring run saw of every image, and the network that it trained.

HDF5, with a CRC-32 beside every array:

- ``/samples``: ``rows`` int64 [N] (in the source), ``labels`` int64 [N], ``final_entropies`` float32 [N];
- ``/epochs``: ``correct`` uint8, ``probabilities``, ``margins``, ``errors`` float32, each [E, N];
- ``/entropies``: ``epochs`` int64 [T] (counted from 1), ``entropies`` float32 [T, N];
- ``/classifier``: its tensors by name;
- ``/provenance``: JSON.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ArtefactError, new_hdf5

__all__ = [
    "EPOCH_RECORDS",
    "EpochRecord",
    "ScoreRecords",
    "file_sha256",
    "read_classifier",
    "read_records",
    "write_records",
]

_FORMAT = "edgeprune-scores"
_VERSION = 1
EPOCH_RECORDS = {"correct": "u1", "probabilities": "<f4", "margins": "<f4", "errors": "<f4"}
"""What is recorded of every sample in every epoch, and its type."""
_MAX_BYTES = 2**36


@dataclass(frozen=True, eq=False)
class EpochRecord:
    """What one epoch saw of every sample.

    Attributes
    ----------
    arrays : dict of str to array [N]
        The arrays of `EPOCH_RECORDS`: ``correct`` (whether the largest logit was the label's),
        ``probabilities`` (softmax of the label, p_y), ``margins`` (p_y minus the largest other) and
        ``errors`` (L2 norm of softmax minus one-hot), all of the training pass.
    entropies : float32 [N] or None
        Entropy of the softmax in nats, after the epoch, in evaluation mode on images that are not augmented;
        None for an epoch without it.
    """

    arrays: Mapping[str, NDArray[Any]]
    entropies: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class ScoreRecords:
    """The records of a scoring run.

    Attributes
    ----------
    path : Path
        The file.
    rows : int64 [N]
        The rows of the source that were scored.
    labels : int64 [N]
        Their classes.
    provenance : dict
        ``source`` (with its ``sha256``), ``config``, ``every``, ``classifier``, ``versions``, ``history``.
    """

    path: Path
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    provenance: dict[str, Any]

    def array(self, name: str) -> NDArray[Any]:
        """Read one array of records.

        Parameters
        ----------
        name : str
            One of `EPOCH_RECORDS` ([E, N]), ``"entropies"`` ([T, N]) or ``"final_entropies"`` ([1, N]).

        Raises
        ------
        ArtefactError
            The array is missing, of another shape, or does not match its checksum.
        """
        group = {"entropies": "entropies", "final_entropies": "samples"}.get(name, "epochs")
        with _opened(self.path) as file:
            array = _read(self.path, file, f"{group}/{name}")
        array = array[None] if name == "final_entropies" else array
        if array.ndim != 2 or array.shape[1] != len(self.rows):
            raise _damaged(self.path, f"/{group}/{name} has the shape {array.shape}")
        return array.astype(bool) if name == "correct" else array


def write_records(
    path: Path,
    *,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    epochs: Iterable[EpochRecord],
    count: int,
    every: int,
    classifier: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, Any],
) -> None:
    """Write a scores file, whole or not at all, with one epoch in memory at a time.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    rows, labels : int64 [N]
        See `ScoreRecords`.
    epochs : iterable of EpochRecord
        `count` of them; every `every`-th, and the last, has entropies.
    count, every : int
        Epochs, and epochs from one record of entropies to the next.
    classifier : mapping of str to array
        The trained network's tensors.
    provenance : mapping
        Ready for JSON.

    Raises
    ------
    PackWriteError
        The file cannot be written.
    """
    with new_hdf5(path) as file:
        file.attrs["format"], file.attrs["format_version"] = _FORMAT, _VERSION
        _write(file, "samples/rows", rows.astype("<i8"))
        _write(file, "samples/labels", labels.astype("<i8"))
        recorded = np.arange(every, count + 1, every, dtype="<i8")
        _write(file, "entropies/epochs", recorded)
        series = {
            f"epochs/{name}": _Series(file, f"epochs/{name}", (count, len(rows)), kind)
            for name, kind in EPOCH_RECORDS.items()
        }
        entropies = _Series(file, "entropies/entropies", (len(recorded), len(rows)), "<f4")
        final: NDArray[np.float32] | None = None
        for number, epoch in enumerate(epochs, start=1):
            for name in EPOCH_RECORDS:
                series[f"epochs/{name}"].append(epoch.arrays[name])
            if number % every == 0:
                assert epoch.entropies is not None
                entropies.append(epoch.entropies)
            final = epoch.entropies
        assert final is not None
        for one in (*series.values(), entropies):
            one.close()
        _write(file, "samples/final_entropies", final.astype("<f4"))
        for name, tensor in classifier.items():
            _write(file, f"classifier/{name}", tensor)
        text = json.dumps(provenance, allow_nan=False).encode()
        _write(file, "provenance", np.frombuffer(text, "u1"))


def read_records(path: str | Path) -> ScoreRecords:
    """Open a scores file.

    Raises
    ------
    ArtefactError
        There is none, it is damaged, or a later version wrote it.
    """
    path = Path(path)
    with _opened(path) as file:
        rows = _read(path, file, "samples/rows")
        labels = _read(path, file, "samples/labels")
        try:
            provenance = json.loads(_read(path, file, "provenance").tobytes())
            spec = provenance["source"]["sha256"], provenance["classifier"]["model"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path, "/provenance is not the record of a scoring run") from error
    integers = rows.dtype == np.int64 and labels.dtype == np.int64
    if (
        not integers
        or rows.ndim != 1
        or rows.shape != labels.shape
        or not all(map(isinstance, spec, [str] * 2))
    ):
        raise _damaged(path, "rows, labels or provenance are not those of a scoring run")
    return ScoreRecords(path, rows, labels, provenance)


def read_classifier(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of the network in a scores file, by name.

    Raises
    ------
    ArtefactError
        They are missing or damaged.
    """
    with _opened(path) as file:
        group = file.get("classifier", getlink=False)
        if not isinstance(group, h5py.Group):
            raise _damaged(path, "/classifier is missing")
        return {name: _read(path, file, f"classifier/{name}") for name in group}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _Series:
    """An array that is written row by row, with its running checksum."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, int], kind: str) -> None:
        chunks = (1, shape[1]) if shape[0] else None
        self._dataset = file.create_dataset(name, shape, kind, chunks=chunks, track_times=False)
        self._row = self._checksum = 0

    def append(self, row: NDArray[Any]) -> None:
        row = np.ascontiguousarray(row, self._dataset.dtype)
        self._dataset[self._row] = row
        self._checksum = zlib.crc32(row.tobytes(), self._checksum)
        self._row += 1

    def close(self) -> None:
        assert self._row == len(self._dataset)
        self._dataset.attrs["crc32"] = np.uint32(self._checksum)


def _write(file: h5py.File, name: str, array: NDArray[Any]) -> None:
    array = np.ascontiguousarray(array).reshape(array.shape)
    dataset = file.create_dataset(name, data=array, track_times=False)
    dataset.attrs["crc32"] = np.uint32(zlib.crc32(array.tobytes()))


def _opened(path: Path) -> h5py.File:
    if not path.is_file():
        raise ArtefactError(f"{path}: no such file; make one with: edgeprune score")
    try:
        file = h5py.File(path, "r")
        name, version = file.attrs.get("format"), file.attrs.get("format_version")
    except OSError as error:
        raise ArtefactError(
            f"{path}: not a scores file, or cut short; make one with: edgeprune score"
        ) from error
    if name != _FORMAT:
        file.close()
        raise ArtefactError(f"{path}: HDF5, but not a scores file; make one with: edgeprune score")
    if version != _VERSION:
        file.close()
        raise ArtefactError(f"{path}: a scores file of version {version}; this release reads {_VERSION}")
    return file


def _read(path: Path, file: h5py.File, name: str) -> NDArray[Any]:
    """Return an array, checked against its checksum."""
    try:
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf":
            raise _damaged(path, f"/{name} is missing or not numbers")
        if dataset.file != file or dataset.nbytes > _MAX_BYTES:
            raise _damaged(path, f"/{name} lies in another file or is larger than it can be")
        array = np.asarray(dataset[()])
        expected = dataset.attrs.get("crc32")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _damaged(path, f"/{name} cannot be read") from error
    if expected is None or zlib.crc32(array.tobytes()) != int(expected):
        raise _damaged(path, f"/{name} does not match its checksum")
    return array


def _damaged(path: Path, reason: str) -> ArtefactError:
    return ArtefactError(f"{path}: damaged, {reason}; copy it again or repeat: edgeprune score")
