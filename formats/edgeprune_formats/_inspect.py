"""Reading a file's structure without trusting it: every object is looked at before it is used.

Nothing here allocates by a size that the file merely declares.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ._chunks import COPY_AGAIN, checksum
from ._errors import DefectError, Problem
from ._header import (
    FORMAT_VERSION,
    INTEGERS,
    MAX_CHUNK_BYTES,
    MAX_CLASSES,
    MAX_PROVENANCE_BYTES,
    MAX_TEXT_BYTES,
    TEXTS,
    PackHeader,
    header_problems,
)
from .codecs import Field, codec_names, get_codec

__all__ = ["Contents", "inspect", "inspect_scores", "signature_problem"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
OTHER_KINDS = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"PK\x03\x04": "a zip or npz archive",
    b"\x80": "a pickle",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run: git lfs pull",
}


Dtypes = np.dtype[Any] | tuple[np.dtype[Any], ...] | None
# Since 1.2, whole numbers in the smallest of these that holds them.
LABELS = tuple(np.dtype(name) for name in ("<i4", "u1", "<u2"))
ROWS = tuple(np.dtype(name) for name in ("<i8", "<u2", "<u4"))


class Contents:
    """What `inspect` found: the header and label arrays, as far as they could be read, and the problems."""

    def __init__(self) -> None:
        self.header: PackHeader | None = None
        self.labels: NDArray[np.int64] = np.empty(0, np.int64)
        self.source_index: NDArray[np.int64] = np.empty(0, np.int64)
        self.problems: list[Problem] = []

    def attempt(self, step: Callable[[], Any], location: str) -> Any:
        """Run one step; what goes wrong becomes a problem, and the result None."""
        try:
            return step()
        except DefectError as defect:
            self.problems.append(defect.problem)
        # HDF5 reports damage by whatever exception its binding maps it to.
        except Exception as error:
            self.problems.append(Problem("checksum", location, unreadable(error)))
        return None


def unreadable(error: Exception) -> str:
    """Return the message for an object that HDF5 fails to read."""
    return f"damaged, HDF5 cannot read it ({_one_line(error)}); {COPY_AGAIN}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def signature_problem(path: Path) -> Problem | None:
    """Return the problem if the file does not begin as HDF5 does; raises OSError if it cannot be opened."""
    with path.open("rb") as file:
        start = file.read(32)
    if start.startswith(SIGNATURE):
        return None
    if not start:
        return Problem("not-a-pack", "/", "the file is empty; copy or build the pack again")
    kind = next((name for magic, name in OTHER_KINDS.items() if start.startswith(magic)), "no HDF5 file")
    return Problem("not-a-pack", "/", f"this is {kind}, and a pack is HDF5; build one with: edgeprune build")


def _attribute(file: h5py.File, name: str, kind: str, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    where = f"/ attribute {name}"
    if not h5py.h5a.exists(file.id, name.encode()):
        raise DefectError("layout", where, "missing")
    attribute = h5py.h5a.open(file.id, name.encode())
    stored = attribute.get_type()
    known = {"S": h5py.h5t.STRING, "i": h5py.h5t.INTEGER, "f": h5py.h5t.FLOAT}[kind]
    if stored.get_class() != known or (kind == "S" and stored.is_variable_str()):
        raise DefectError("layout", where, "of the wrong type")
    if attribute.shape != shape or stored.get_size() > MAX_TEXT_BYTES:
        raise DefectError("layout", where, f"of shape {attribute.shape} in place of {shape}, or too long")
    value = np.empty(shape, attribute.dtype)
    attribute.read(value)
    return value


def _text(file: h5py.File, name: str) -> str:
    try:
        return bytes(_attribute(file, name, "S")[()]).decode()
    except UnicodeDecodeError:
        raise DefectError("layout", f"/ attribute {name}", "not UTF-8") from None


def _dataset(
    group: h5py.Group, name: str, dtype: Dtypes, shape: tuple[int, ...], file_bytes: int
) -> h5py.Dataset:
    """Return a dataset that is safe to read whole or by chunk; `dtype` None stands for fixed-length text."""
    where = f"{group.name.rstrip('/')}/{name}"
    raw = name.encode()
    if not group.id.links.exists(raw):
        raise DefectError("layout", where, "missing")
    if group.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
        raise DefectError("layout", where, "a soft or external link, which a pack must not hold")
    if h5py.h5o.open(group.id, raw).__class__ is not h5py.h5d.DatasetID:
        raise DefectError("layout", where, "not a dataset")
    identifier = h5py.h5d.open(group.id, raw)
    if identifier.shape is None:
        raise DefectError("layout", where, "without a shape")
    _check_storage(identifier, where, file_bytes)
    stored = identifier.get_type()
    if dtype is None:
        if stored.get_class() != h5py.h5t.STRING or stored.is_variable_str():
            raise DefectError("layout", where, "not of a fixed-length string type")
    else:
        allowed = dtype if isinstance(dtype, tuple) else (dtype,)
        if stored.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT) or stored.dtype not in allowed:
            names = " or ".join(one.str for one in allowed)
            raise DefectError("layout", where, f"not of type {names}")
    if shape != (-1,) and identifier.shape != shape:
        raise DefectError("layout", where, f"of shape {identifier.shape} in place of {shape}")
    return h5py.Dataset(identifier)


def _check_storage(identifier: h5py.h5d.DatasetID, where: str, file_bytes: int) -> None:
    properties = identifier.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
        raise DefectError("layout", where, "keeps its data in other files, which a pack must not do")
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if filters not in ([], [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]):
        raise DefectError("layout", where, f"unknown HDF5 filters {filters}")
    if layout == h5py.h5d.CHUNKED:
        return
    size = int(np.prod(identifier.shape, dtype=object)) * identifier.get_type().get_size()
    offset = identifier.get_offset()
    outside = layout == h5py.h5d.CONTIGUOUS and size > 0 and (offset is None or offset + size > file_bytes)
    if size > file_bytes or outside:
        raise DefectError(
            "limit", where, f"declares {size} B that the file does not hold; copy the pack again"
        )


def _contiguous(
    group: h5py.Group, name: str, dtype: Dtypes, shape: tuple[int, ...], file_bytes: int
) -> h5py.Dataset:
    """Return a small dataset that HDF5 can read without expanding anything."""
    dataset = _dataset(group, name, dtype, shape, file_bytes)
    if dataset.chunks is not None:
        raise DefectError("layout", dataset.name, "must not be chunked")
    return dataset


def _whole(
    group: h5py.Group, name: str, dtype: Dtypes, shape: tuple[int, ...], file_bytes: int
) -> NDArray[Any]:
    """Return a small dataset checked against its crc32 attribute."""
    dataset = _contiguous(group, name, dtype, shape, file_bytes)
    array = np.asarray(dataset[...])
    crc = dataset.attrs.get("crc32")
    if not isinstance(crc, np.uint32) or int(crc) != checksum(array):
        raise DefectError("checksum", dataset.name, "does not match its checksum; copy the pack again")
    return array


def _floats(file: h5py.File, name: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.atleast_1d(_attribute(file, name, "f", shape)))


def _version(file: h5py.File) -> str:
    if not h5py.h5a.exists(file.id, b"format") or _text(file, "format") != "edgepack":
        raise DefectError("not-a-pack", "/", "HDF5, but not a pack: no attribute format = 'edgepack'")
    version = _text(file, "format_version")
    major, _, minor = version.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
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
    raw = _whole(file, "class_names", None, (-1,), file_bytes)
    if raw.ndim != 1 or len(raw) > MAX_CLASSES:
        raise DefectError("limit", "/class_names", f"of shape {raw.shape}")
    try:
        return tuple(bytes(name).decode() for name in raw)
    except UnicodeDecodeError:
        raise DefectError("layout", "/class_names", "not UTF-8") from None


def _provenance(file: h5py.File, file_bytes: int) -> dict[str, Any]:
    raw = bytes(_whole(file, "provenance", None, (), file_bytes)[()])
    if len(raw) > MAX_PROVENANCE_BYTES:
        raise DefectError("limit", "/provenance", f"{len(raw)} B")
    try:
        value = json.loads(raw, parse_constant=_refuse)
        # What JSON can spell and text cannot hold: infinite numbers, halves of surrogate pairs.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DefectError("layout", "/provenance", "not a JSON object")
    for name in ("source", "config", "result"):
        if not isinstance(value.get(name, {}), dict):
            raise DefectError("layout", "/provenance", f"its {name} is not a JSON object")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _header(file: h5py.File, contents: Contents, file_bytes: int) -> PackHeader | None:
    def integer(name: str) -> Any:
        return contents.attempt(lambda: int(_attribute(file, name, "i")), f"/ attribute {name}")

    def text(name: str) -> Any:
        return contents.attempt(lambda: _text(file, name), f"/ attribute {name}")

    before = len(contents.problems)
    fields: dict[str, Any] = {name: integer(name) for name in INTEGERS}
    fields |= {name: text(name) for name in TEXTS}
    fields["class_names"] = contents.attempt(lambda: _class_names(file, file_bytes), "/class_names")
    fields["provenance"] = contents.attempt(lambda: _provenance(file, file_bytes), "/provenance")
    for name in ("mean", "std"):
        shape = (min(fields["channels"] or 0, 3),)
        fields[name] = contents.attempt(
            partial(_floats, file, name, shape),
            f"/ attribute {name}",
        )
    if fields["codec"] in codec_names() and get_codec(fields["codec"]).quantizes:
        fields["step"] = contents.attempt(lambda: _floats(file, "step", ())[0], "/ attribute step")
    if len(contents.problems) > before:
        return None
    header = PackHeader(**fields)
    contents.problems += header_problems(header)
    if header.codec in codec_names() and _minor(header) < 2 and header.codec != "sparse-f32":
        message = f"EdgePack {header.format_version} has no codec {header.codec!r}"
        contents.problems.append(Problem("layout", "/ attribute codec", message))
    if header.codec not in codec_names():
        contents.problems.append(
            Problem(
                "version",
                "/ attribute codec",
                f"unknown codec {header.codec!r}; this release reads {', '.join(codec_names())}; "
                "install a newer edgeprune",
            )
        )
    return header if len(contents.problems) == before else None


def _check_field(group: h5py.Group, field: Field, header: PackHeader, file_bytes: int) -> None:
    checksums = (header.chunks,)
    _contiguous(group, f"{field.name}_crc32", np.dtype("<u4"), checksums, file_bytes)
    if field.shape is None:
        offsets = _whole(group, f"{field.name}_offsets", np.dtype("<u8"), (header.chunks + 1,), file_bytes)
        stream = _contiguous(group, field.name, field.dtype, (-1,), file_bytes)
        sizes = np.diff(offsets.astype(object))
        if stream.ndim != 1 or offsets[0] != 0 or offsets[-1] != len(stream) or sizes.min() < 0:
            raise DefectError("layout", stream.name, f"of shape {stream.shape}, which its offsets do not cut")
        if sizes.max() > MAX_CHUNK_BYTES:
            raise DefectError("limit", stream.name, f"a chunk of {sizes.max()} B exceeds {MAX_CHUNK_BYTES} B")
        return
    dataset = _dataset(group, field.name, field.dtype, (header.samples, *field.shape), file_bytes)
    chunk_shape = (header.chunk_samples, *field.shape)
    if dataset.chunks != chunk_shape:
        raise DefectError("layout", dataset.name, f"chunks {dataset.chunks} in place of {chunk_shape}")


def _samples(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    if not file.id.links.exists(b"samples") or file.id.links.get_info(b"samples").type != h5py.h5l.TYPE_HARD:
        raise DefectError("layout", "/samples", "missing, or a soft or external link")
    group = file["samples"]
    if not isinstance(group, h5py.Group):
        raise DefectError("layout", "/samples", "not a group")
    for field in get_codec(header.codec).fields(header):
        contents.attempt(partial(_check_field, group, field, header, file_bytes), f"/samples/{field.name}")


def _minor(header: PackHeader) -> int:
    return int(header.format_version.partition(".")[2])


def _since_1_2(header: PackHeader, dtypes: tuple[np.dtype[Any], ...]) -> Dtypes:
    return dtypes if _minor(header) >= 2 else dtypes[:1]


def _labels(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    labels = _whole(file, "labels", _since_1_2(header, LABELS), (header.samples,), file_bytes).astype(
        np.int64
    )
    if labels.min() < 0 or labels.max() >= len(header.class_names):
        raise DefectError("layout", "/labels", f"a label outside 0..{len(header.class_names) - 1}")
    contents.labels = labels


def _source_index(file: h5py.File, contents: Contents, header: PackHeader, file_bytes: int) -> None:
    stored = _whole(file, "source_index", _since_1_2(header, ROWS), (header.samples,), file_bytes)
    rows = stored.astype(np.int64)
    if rows.min() < 0:
        raise DefectError("layout", "/source_index", "a negative row")
    contents.source_index = rows


def _scores(file: h5py.File, header: PackHeader, file_bytes: int) -> NDArray[np.float32] | None:
    # Before 1.1 the name was reserved and without meaning.
    if _minor(header) < 1 or not file.id.links.exists(b"scores"):
        return None
    scores = _whole(file, "scores", np.dtype("<f4"), (header.samples,), file_bytes)
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
    """Read header and labels and check the structure of the samples; neither they nor scores are read.

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
    for step, location in ((_labels, "/labels"), (_source_index, "/source_index"), (_samples, "/samples")):
        contents.attempt(partial(step, file, contents, header, file_bytes), location)
    contents.header = header
    return contents
