"""What a pack file holds besides its samples, as far as it can be read, and every problem of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..codecs import Field, codec_names, get_codec
from ..errors import DefectError, Problem, attribute_problem
from ..hdf5 import (
    TEXT,
    Dtypes,
    open_contiguous,
    open_dataset,
    open_group,
    read_array,
    read_attribute,
    read_text,
    unreadable,
)
from ..header import FORMAT_VERSION, INTEGERS, TEXTS, PackHeader, attribute_name
from ..limits import MAX_CHANNELS, MAX_CHUNK_BYTES, MAX_CLASSES, MAX_PROVENANCE_BYTES, MAX_TEXT_BYTES
from ..targets import Column
from .columns import GROUP, inspect_columns
from .header_checks import header_problems
from .provenance import parse_provenance, promises_scores

__all__ = [
    "BEGINNING",
    "Contents",
    "beginning_problem",
    "inspect",
    "inspect_scores",
    "must_be_plain",
    "signature_problem",
]

BEGINNING = 32
"""Bytes at the start of a file that tell what it is."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"
OTHER_KINDS = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"PK\x03\x04": "a zip or npz archive",
    b"\x80": "a pickle",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run: git lfs pull",
}
# Since 1.2, whole numbers in the smallest of these that holds them.
LABELS = tuple(np.dtype(name) for name in ("<i4", "u1", "<u2"))
ROWS = tuple(np.dtype(name) for name in ("<i8", "<u2", "<u4"))


class Contents:
    """What `inspect` found: the header and label arrays, as far as they could be read, and the problems."""

    def __init__(self) -> None:
        self.header: PackHeader | None = None
        self.labels: NDArray[np.int64] = np.empty(0, np.int64)
        self.source_index: NDArray[np.int64] = np.empty(0, np.int64)
        self.columns: tuple[Column, ...] = ()
        self.problems: list[Problem] = []

    def attempt(self, step: Callable[[], Any], location: str) -> Any:
        """Run one step; what goes wrong becomes a problem, and the result None."""
        try:
            return step()
        except DefectError as defect:
            self.problems.append(defect.problem)
        except MemoryError:
            raise
        # HDF5 reports damage by whatever exception its binding maps it to.
        except Exception as error:
            self.problems.append(Problem("checksum", location, unreadable(error)))
        return None


def signature_problem(path: Path) -> Problem | None:
    """Return the problem if the file does not begin as HDF5 does; raises OSError if it cannot be opened."""
    # A pipe would keep whoever opens it waiting.
    if path.exists() and not path.is_file() and not path.is_dir():
        return Problem("not-a-pack", "/", "this is no regular file; name a pack")
    with path.open("rb") as file:
        return beginning_problem(file.read(BEGINNING))


def beginning_problem(start: bytes) -> Problem | None:
    """Return the problem of a file whose first `BEGINNING` bytes are not those of HDF5."""
    if start.startswith(SIGNATURE):
        return None
    if not start:
        return Problem("not-a-pack", "/", "the file is empty; copy or build the pack again")
    kind = next((name for magic, name in OTHER_KINDS.items() if start.startswith(magic)), "no HDF5 file")
    return Problem("not-a-pack", "/", f"this is {kind}, and a pack is HDF5; build one with: edgeprune build")


def _floats(file: h5py.File, name: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.atleast_1d(read_attribute(file, name, "f", shape)))


def _version(file: h5py.File) -> str:
    if not h5py.h5a.exists(file.id, b"format") or read_text(file, "format") != "edgepack":
        raise DefectError("not-a-pack", "/", "HDF5, but not a pack: no attribute format = 'edgepack'")
    version = read_text(file, "format_version")
    major = version.partition(".")[0]
    if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", version) is None:
        raise DefectError("version", "/ attribute format_version", f"{version!r} is not MAJOR.MINOR")
    ours = FORMAT_VERSION.partition(".")[0]
    if int(major) != int(ours):
        raise DefectError(
            "version",
            "/ attribute format_version",
            f"EdgePack {version} is not read by this release, which reads {ours}.x; "
            f"install the edgeprune release whose formats/SPEC.md describes EdgePack {int(major)}",
        )
    return version


def _class_names(file: h5py.File, file_bytes: int) -> tuple[str, ...]:
    there = {name: file.id.links.exists(name.encode()) for name in ("class_names", "labels", GROUP)}
    # Since 1.3 other targets may take the place of classes; a file of before has no such group.
    if there[GROUP] and not (there["class_names"] or there["labels"]) and _minor(_version(file)) >= 3:
        return ()
    stored = open_contiguous(file, "class_names", TEXT, (-1,), file_bytes)
    if stored.ndim != 1 or not 1 <= len(stored) <= MAX_CLASSES or stored.dtype.itemsize > MAX_TEXT_BYTES:
        message = f"of shape {stored.shape}, {stored.dtype.itemsize} B each"
        raise DefectError("limit", "/class_names", message)
    raw = read_array(file, "class_names", TEXT, (-1,), file_bytes)
    try:
        return tuple(bytes(name).decode() for name in raw)
    except UnicodeDecodeError:
        raise DefectError("layout", "/class_names", "not UTF-8") from None


def _provenance(file: h5py.File, file_bytes: int) -> dict[str, Any]:
    size = open_contiguous(file, "provenance", TEXT, (), file_bytes).dtype.itemsize
    if size > MAX_PROVENANCE_BYTES:
        raise DefectError("limit", "/provenance", f"{size} B")
    raw = bytes(read_array(file, "provenance", TEXT, (), file_bytes)[()])
    try:
        value = parse_provenance(raw)
    except ValueError as error:
        raise DefectError("layout", "/provenance", f"not a JSON object ({error})") from None
    for name in ("source", "config", "result"):
        if not isinstance(value.get(name, {}), dict):
            raise DefectError("layout", "/provenance", f"its {name} is not a JSON object")
    return value


def _header(file: h5py.File, contents: Contents, file_bytes: int) -> PackHeader | None:
    before = len(contents.problems)
    fields = _header_fields(file, contents, file_bytes)
    if len(contents.problems) > before:
        return None
    header = PackHeader(**fields)
    contents.problems += _codec_problems(header) + header_problems(header)
    return header if len(contents.problems) == before else None


def _header_fields(file: h5py.File, contents: Contents, file_bytes: int) -> dict[str, Any]:
    def attribute(name: str, read: Callable[[str], Any]) -> Any:
        stored = attribute_name(name)
        return contents.attempt(partial(read, stored), f"/ attribute {stored}")

    fields: dict[str, Any] = {
        name: attribute(name, lambda stored: int(read_attribute(file, stored, "i"))) for name in INTEGERS
    }
    fields |= {name: attribute(name, partial(read_text, file)) for name in TEXTS}
    fields["bits"] = attribute("bits", partial(_bits, file, fields["format_version"]))
    fields["class_names"] = contents.attempt(partial(_class_names, file, file_bytes), "/class_names")
    fields["provenance"] = contents.attempt(partial(_provenance, file, file_bytes), "/provenance")
    shape = (min(fields["channels"] or 0, MAX_CHANNELS),)
    for name in ("mean", "std"):
        fields[name] = attribute(name, lambda stored: _floats(file, stored, shape))
    if fields["codec"] in codec_names() and get_codec(fields["codec"]).quantizes:
        fields["step"] = attribute("step", lambda stored: _floats(file, stored, ())[0])
    return fields


def _bits(file: h5py.File, version: str, name: str) -> int:
    """Return the bits of a channel: 8 where a file does not say so, or is of a version without them."""
    there = _minor(version) >= 3 and h5py.h5a.exists(file.id, name.encode())
    return int(read_attribute(file, name, "i")) if there else 8


def _codec_problems(header: PackHeader) -> list[Problem]:
    if header.codec not in codec_names():
        known = f"this release reads {', '.join(codec_names())}"
        message = f"unknown codec {header.codec!r}; {known}; install a newer edgeprune"
        return [attribute_problem("codec", message, "version")]
    if _minor(header.format_version) < get_codec(header.codec).since:
        return [attribute_problem("codec", f"EdgePack {header.format_version} has no codec {header.codec!r}")]
    if _minor(header.format_version) < 3 and header.channels != 3:
        message = f"EdgePack {header.format_version} has no images of {header.channels} channels"
        return [attribute_problem("channels", message)]
    return []


def _check_field(group: h5py.Group, field: Field, header: PackHeader, file_bytes: int) -> None:
    checksums = (header.chunks,)
    open_contiguous(group, f"{field.name}_crc32", np.dtype("<u4"), checksums, file_bytes)
    if field.shape is None:
        offsets = read_array(
            group, f"{field.name}_offsets", np.dtype("<u8"), (header.chunks + 1,), file_bytes
        )
        stream = open_contiguous(group, field.name, field.dtype, (-1,), file_bytes)
        sizes = np.diff(offsets.astype(object))
        if stream.ndim != 1 or offsets[0] != 0 or offsets[-1] != len(stream) or sizes.min() < 0:
            raise DefectError("layout", stream.name, f"of shape {stream.shape}, which its offsets do not cut")
        if sizes.max() > MAX_CHUNK_BYTES:
            raise DefectError("limit", stream.name, f"a chunk of {sizes.max()} B exceeds {MAX_CHUNK_BYTES} B")
        return
    dataset = open_dataset(group, field.name, field.dtype, (header.samples, *field.shape), file_bytes)
    chunk_shape = (header.chunk_samples, *field.shape)
    if dataset.chunks != chunk_shape:
        raise DefectError("layout", dataset.name, f"chunks {dataset.chunks} in place of {chunk_shape}")


def _samples(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    group = open_group(file, "samples")
    for field in get_codec(header.codec).fields(header):
        contents.attempt(partial(_check_field, group, field, header, file_bytes), f"/samples/{field.name}")


def _minor(version: str) -> int:
    return int(version.partition(".")[2])


def must_be_plain(header: PackHeader) -> bool:
    """Return whether the version of a file allows no storage but what `edgeprune_formats.structure` knows."""
    return _minor(header.format_version) >= 3


def _since_1_2(header: PackHeader, dtypes: tuple[np.dtype[Any], ...]) -> Dtypes:
    return dtypes if _minor(header.format_version) >= 2 else dtypes[:1]


def _labels(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    if not header.class_names:
        contents.labels = np.zeros(header.samples, np.int64)
        return
    labels = read_array(file, "labels", _since_1_2(header, LABELS), (header.samples,), file_bytes).astype(
        np.int64
    )
    if labels.min() < 0 or labels.max() >= len(header.class_names):
        raise DefectError("layout", "/labels", f"a label outside 0..{len(header.class_names) - 1}")
    contents.labels = labels


def _source_index(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    stored = read_array(file, "source_index", _since_1_2(header, ROWS), (header.samples,), file_bytes)
    rows = stored.astype(np.int64)
    if rows.min() < 0:
        raise DefectError("layout", "/source_index", "a negative row")
    contents.source_index = rows


def _columns(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    if _minor(header.format_version) >= 3:
        contents.columns = inspect_columns(file, header.samples, file_bytes)


def _scores(file: h5py.File, header: PackHeader, file_bytes: int) -> NDArray[np.float32] | None:
    # Before 1.1 the name was reserved and without meaning.
    if _minor(header.format_version) < 1:
        return None
    if not file.id.links.exists(b"scores"):
        if promises_scores(header.provenance):
            message = "missing, and provenance says that these images were chosen by it; get the pack again"
            raise DefectError("layout", "/scores", message)
        return None
    scores = read_array(file, "scores", np.dtype("<f4"), (header.samples,), file_bytes)
    if not np.isfinite(scores).all():
        raise DefectError("layout", "/scores", "NaN or infinite values")
    return scores.astype(np.float32, copy=False)


def inspect_scores(
    file: h5py.File, header: PackHeader, file_bytes: int
) -> tuple[list[Problem], NDArray[np.float32] | None]:
    """Return the problems of the optional scores and, where there are none, the scores or None.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    header : PackHeader
        As `inspect` found it.
    file_bytes : int
        Size of the file in bytes.
    """
    contents = Contents()
    scores = contents.attempt(partial(_scores, file, header, file_bytes), "/scores")
    return contents.problems, scores


def inspect(file: h5py.File, file_bytes: int) -> Contents:
    """Read header and labels and check the structure of samples and targets, which are not read, nor scores.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    file_bytes : int
        Size of the file in bytes.
    """
    contents = Contents()
    if contents.attempt(lambda: _version(file), "/") is None:
        return contents
    header = _header(file, contents, file_bytes)
    if header is None:
        return contents
    steps = {"/labels": _labels, "/source_index": _source_index, "/samples": _samples, "/targets": _columns}
    for location, step in steps.items():
        contents.attempt(partial(step, file, contents, header, file_bytes), location)
    contents.header = header
    return contents
