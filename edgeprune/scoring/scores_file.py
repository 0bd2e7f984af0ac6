"""The scores file: what one scoring run saw of every image, and the network that it trained.

HDF5, with a CRC-32 beside every array:

- ``/samples``: ``rows`` int64 [N] (in the source), ``labels`` int64 [N], ``final_entropies`` float32 [N];
- ``/epochs``: ``correct`` uint8, ``probabilities``, ``margins``, ``errors`` float32, each [E, N];
- ``/entropies``: ``epochs`` int64 [T] (counted from 1), ``entropies`` float32 [T, N];
- ``/classifier``: its tensors, as the bytes of a safetensors file; in version 1 a group of them by name;
- ``/provenance``: JSON.

Since version 2 it is stored as plainly as a pack, see formats/SPEC.md; a process of its own opens any other
file first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.errors import DefectError, one_line
from edgeprune_formats.files import atomic_hdf5
from edgeprune_formats.hdf5 import (
    NUMBERS,
    checksum,
    open_group,
    open_hdf5,
    read_array,
    read_attribute,
    write_array,
)
from edgeprune_formats.isolation import require_safe
from edgeprune_formats.strict_json import parse_json
from edgeprune_runtime.errors import ArtifactError

__all__ = [
    "RECORD_TYPES",
    "EpochRecords",
    "ScoresFile",
    "read_classifier",
    "read_scores_file",
    "write_scores_file",
]

_FORMAT = b"edgeprune-scores"
_VERSION = 2
RECORD_TYPES = {"correct": "u1", "probabilities": "<f4", "margins": "<f4", "errors": "<f4"}
"""What is recorded of every sample in every epoch, and its type."""
_GROUPS = {"entropies": "entropies", "final_entropies": "samples"}
_PROVENANCE = ("source", "config", "classifier")
_REMEDY = "make one with: edgeprune score"


@dataclass(frozen=True, eq=False)
class EpochRecords:
    """The records of one epoch: what it saw of every sample.

    Attributes
    ----------
    arrays : dict of str to array [N]
        The arrays of `RECORD_TYPES`: ``correct`` (whether the largest logit was the label's),
        ``probabilities`` (softmax of the label, p_y), ``margins`` (p_y minus the largest other) and
        ``errors`` (L2 norm of softmax minus one-hot), all of the training pass.
    entropies : float32 [N] or None
        Entropy of the softmax in nats, after the epoch, in evaluation mode on images that are not augmented;
        None for an epoch without it.
    """

    arrays: Mapping[str, NDArray[Any]]
    entropies: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class ScoresFile:
    """An open scores file: which images it is of, and the records of the epochs that scored them.

    Attributes
    ----------
    path : Path
        The file.
    rows : int64 [N]
        The rows of the source that were scored.
    labels : int64 [N]
        Their classes.
    provenance : dict
        ``source`` (with its ``sha256``), ``config``, ``classifier`` (with its ``model``), ``versions``,
        ``history``.
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
            One of `RECORD_TYPES` ([E, N]), ``"entropies"`` ([T, N]) or ``"final_entropies"`` ([1, N]).

        Raises
        ------
        ArtifactError
            The array is missing, of another shape or type, not finite, or does not match its checksum.
        """
        group = _GROUPS.get(name, "epochs")
        with _opened(self.path) as file:
            array = _read(self.path, file, f"{group}/{name}", RECORD_TYPES.get(name, "<f4"))
            array = array[None] if name == "final_entropies" else array
            if array.ndim != 2 or array.shape[1] != len(self.rows):
                raise _damaged(self.path, f"/{group}/{name} has the shape {array.shape}")
            if name == "entropies" and len(_read(self.path, file, "entropies/epochs", "<i8")) != len(array):
                raise _damaged(self.path, "/entropies/epochs is not as long as the entropies")
        if not np.isfinite(array).all():
            raise _damaged(self.path, f"/{group}/{name} has values that are not finite")
        return array.astype(bool) if name == "correct" else array


def write_scores_file(
    path: Path,
    *,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    epochs: Iterable[EpochRecords],
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
        See `ScoresFile`.
    epochs : iterable of EpochRecords
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
    from safetensors.numpy import save

    with atomic_hdf5(path) as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_(_FORMAT), np.int64(_VERSION)
        write_array(file, "samples/rows", rows.astype("<i8"))
        write_array(file, "samples/labels", labels.astype("<i8"))
        recorded = np.arange(every, count + 1, every, dtype="<i8")
        write_array(file, "entropies/epochs", recorded)
        series = {
            f"epochs/{name}": _Series(file, f"epochs/{name}", (count, len(rows)), kind)
            for name, kind in RECORD_TYPES.items()
        }
        entropies = _Series(file, "entropies/entropies", (len(recorded), len(rows)), "<f4")
        final: NDArray[np.float32] | None = None
        for number, epoch in enumerate(epochs, start=1):
            for name in RECORD_TYPES:
                series[f"epochs/{name}"].append(epoch.arrays[name])
            if number % every == 0:
                assert epoch.entropies is not None
                entropies.append(epoch.entropies)
            final = epoch.entropies
        assert final is not None
        for one in (*series.values(), entropies):
            one.close()
        write_array(file, "samples/final_entropies", final.astype("<f4"))
        tensors = {name: np.asarray(tensor, order="C") for name, tensor in classifier.items()}
        write_array(file, "classifier", np.frombuffer(save(tensors), "u1"))
        text = json.dumps(provenance, allow_nan=False).encode()
        write_array(file, "provenance", np.frombuffer(text, "u1"))


def read_scores_file(path: str | Path) -> ScoresFile:
    """Open a scores file.

    Raises
    ------
    ArtifactError
        There is none, it is damaged, or a later version wrote it.
    """
    path = Path(path)
    with _opened(path) as file:
        rows = _read(path, file, "samples/rows", "<i8")
        labels = _read(path, file, "samples/labels", "<i8")
        text = _read(path, file, "provenance", "u1").tobytes()
    if rows.ndim != 1 or rows.shape != labels.shape or not len(rows):
        raise _damaged(path, "rows and labels are not those of a scoring run")
    if rows[0] < 0 or (np.diff(rows) <= 0).any() or (labels < 0).any():
        raise _damaged(path, "rows and labels are not those of a scoring run")
    return ScoresFile(path, rows, labels, _provenance(path, text))


def read_classifier(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of the network in a scores file, by name.

    Raises
    ------
    ArtifactError
        They are missing or damaged.
    """
    # Not at the top: building without scores does without safetensors.
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with _opened(path) as file:
        if _version(path, file) == 1:
            return _first_classifier(path, file)
        raw = _read(path, file, "classifier", "u1").tobytes()
    try:
        tensors = load(raw)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, "/classifier is not in the safetensors format") from error
    if not tensors:
        raise _damaged(path, "/classifier: empty")
    return tensors


def _first_classifier(path: Path, file: h5py.File) -> dict[str, NDArray[Any]]:
    """Return the tensors as version 1 has them."""
    try:
        names = list(open_group(file, "classifier"))
    except DefectError as error:
        raise _damaged(path, str(error.problem)) from error
    except Exception as error:
        raise _damaged(path, "/classifier cannot be read") from error
    if not names:
        raise _damaged(path, "/classifier: empty")
    return {name: _read(path, file, f"classifier/{name}") for name in names}


class _Series:
    """An array that is written row by row, with its running checksum."""

    def __init__(self, file: h5py.File, name: str, shape: tuple[int, int], kind: str) -> None:
        chunks = (1, shape[1]) if shape[0] else None
        self._dataset = file.create_dataset(name, shape, kind, chunks=chunks, track_times=False)
        self._row = self._checksum = 0

    def append(self, row: NDArray[Any]) -> None:
        row = np.ascontiguousarray(row, self._dataset.dtype)
        self._dataset[self._row] = row
        self._checksum = checksum(row, self._checksum)
        self._row += 1

    def close(self) -> None:
        assert self._row == len(self._dataset)
        self._dataset.attrs["crc32"] = np.uint32(self._checksum)


def _provenance(path: Path, text: bytes) -> dict[str, Any]:
    try:
        provenance = parse_json(text)
        parts = [provenance[name] for name in _PROVENANCE]
        names = parts[0]["sha256"], parts[2]["model"]
        if not all(isinstance(part, dict) for part in parts) or not all(isinstance(n, str) for n in names):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "/provenance is not the record of a scoring run") from error
    return dict(provenance)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; {_REMEDY}")
    try:
        reason = require_safe(path, None)
        file = open_hdf5(path)
    except DefectError as error:
        raise _damaged(path, error.problem.message) from error
    except PermissionError as error:
        raise ArtifactError(f"{path}: no permission to read it; change that, or {_REMEDY}") from error
    # HDF5 reports damage by whatever exception its binding maps it to.
    except Exception as error:
        raise ArtifactError(f"{path}: not a scores file, or cut short; {_REMEDY}") from error
    try:
        _require_readable(path, file, reason)
        yield file
    finally:
        try:
            file.close()
        # HDF5 reports damage by whatever exception its binding maps it to.
        except Exception as error:
            raise _damaged(path, "HDF5 cannot close it") from error


def _require_readable(path: Path, file: h5py.File, reason: str | None) -> None:
    if _attribute(path, file, "format", "S") != _FORMAT:
        raise ArtifactError(f"{path}: HDF5, but not a scores file; {_REMEDY}")
    version = _version(path, file)
    if version > _VERSION:
        raise ArtifactError(
            f"{path}: a scores file of version {version}, and this release reads up to {_VERSION}; "
            "install a newer edgeprune"
        )
    if version > 1 and reason is not None:
        raise _damaged(path, f"it is not stored as a scores file must be ({reason})")


def _version(path: Path, file: h5py.File) -> int:
    version = _attribute(path, file, "format_version", "i")
    if version is None or version < 1:
        raise _damaged(path, "it has no version")
    return int(version)


def _attribute(path: Path, file: h5py.File, name: str, kind: str) -> Any:
    try:
        return read_attribute(file, name, kind)[()]
    except DefectError:
        return None
    except Exception as error:
        raise _damaged(path, "its attributes cannot be read") from error


def _read(path: Path, file: h5py.File, name: str, kind: str | None = None) -> NDArray[Any]:
    """Return an array of the type `kind`, or of any numbers, checked against its checksum."""
    dtype = NUMBERS if kind is None else np.dtype(kind)
    *groups, last = name.split("/")
    try:
        place: h5py.Group = file
        for group in groups:
            place = open_group(place, group)
        return read_array(place, last, dtype, (-1,), path.stat().st_size, chunked=True)
    except DefectError as error:
        reason = error.problem.message.partition(";")[0]
        raise _damaged(path, f"{error.problem.location}: {reason}") from error
    except Exception as error:
        raise _damaged(path, f"/{name} cannot be read") from error


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"{path}: damaged, {one_line(reason)}; copy it again or repeat: edgeprune score")
