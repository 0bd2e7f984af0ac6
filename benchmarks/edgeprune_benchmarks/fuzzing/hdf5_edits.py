"""Changing what an HDF5 file holds, as a forger does who has HDF5: by instructions that bytes spell."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .mutation import EDGES, TEXTS

__all__ = ["SIZE", "edit"]

SIZE = 8
"""Bytes of one instruction: object, attribute, kind, two choices, and a place of three bytes."""
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-308, 1e308, float("inf"), float("nan"), 65504.0)
INTEGERS = ("<i4", "<i8", "<u4", "<u8", "u1", "i1", "<u2", ">i4")
ATTRIBUTES, ARRAYS = 4, 3


def edit(path: Path, data: bytes) -> None:
    """Carry out the instructions on a file, and set right the checksums of the arrays that they change."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        for start in range(0, len(data) - SIZE + 1, SIZE):
            _step(file, data[start : start + SIZE])


def _step(file: h5py.File, raw: bytes) -> None:
    objects = [file, *_datasets(file)]
    item = objects[raw[0] % len(objects)] if raw[0] < 128 else file
    names = sorted(item.attrs)
    kind = raw[2] % (ATTRIBUTES + ARRAYS)
    if kind < ATTRIBUTES and names:
        _set_attribute(item, names[raw[1] % len(names)], kind, raw)
    elif isinstance(item, h5py.Dataset):
        _set_array(item, kind % ARRAYS, raw)


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda name, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _choice(choices: Sequence[Any], byte: int) -> Any:
    return choices[byte % len(choices)]


def _set_attribute(item: Any, name: str, kind: int, raw: bytes) -> None:
    value: Any
    if kind == 0:
        dtype = np.dtype(_choice(INTEGERS, raw[3]))
        value = np.array(_choice(EDGES, raw[4]) % 256**dtype.itemsize, f"u{dtype.itemsize}").view(dtype)
    elif kind == 1:
        with np.errstate(over="ignore"):
            value = np.array(_choice(FLOATS, raw[3])).astype(_choice(("<f2", "<f4", "<f8"), raw[4]))
    elif kind == 2:
        text = _choice((*TEXTS, "quantized", "sparse-f16", "8", "full", "1.9", "1.0", "ycbcr"), raw[3])
        value = np.bytes_(text.encode(errors="surrogatepass") or b"\0")
    else:
        old = np.asarray(item.attrs[name])
        if old.dtype.kind not in "iuf" or raw[3] < 64:
            del item.attrs[name]
            return
        # As it is, but for one number more or less.
        more = np.array(raw[4] % 5 + 1).astype(old.dtype)
        value = old + more if raw[3] < 128 else old - more if raw[3] < 192 else np.repeat(old, raw[4] % 4)
    item.attrs[name] = value


def _set_array(dataset: h5py.Dataset, kind: int, raw: bytes) -> None:
    """Change bytes of a dataset, of the same size and type, or replace it by one of another."""
    file, name = dataset.file, dataset.name
    array = dataset[()]
    old = np.atleast_1d(np.asarray(array))
    content = bytearray(old.tobytes())
    if kind and content:
        at = int.from_bytes(raw[5:8], "little") % len(content)
        at -= at % old.dtype.itemsize if kind == 2 else 0
        width = old.dtype.itemsize if kind == 2 and old.dtype.kind != "S" else 1
        content[at : at + width] = (_choice(EDGES, raw[3]) % 256**width).to_bytes(width, "little")
        changed = np.frombuffer(bytes(content), old.dtype).reshape(np.shape(array))
        # In the type that it is stored in, whatever the kind of text.
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(changed), dataset.id.get_type())
    elif not dataset.chunks:
        some = old[: max(1, len(old) - raw[3] % 3)] if raw[4] % 2 else np.concatenate([old, old[-1:]])
        del file[name]
        dataset = file.create_dataset(name, data=some, track_times=False)
    _seal(file, dataset)


def _seal(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Put the right checksum beside an array: its own, or those of its chunks."""
    dataset.attrs["crc32"] = np.uint32(zlib.crc32(np.asarray(dataset[()]).tobytes()))
    sums = file.get(f"{dataset.name}_crc32")
    offsets = file.get(f"{dataset.name}_offsets")
    # Of a stream the pieces between its offsets; of an array as many images as its chunks have.
    if sums is None:
        return
    for number in range(len(sums)):
        if offsets is not None and number + 1 < len(offsets):
            start, stop = (min(int(v), 2**31) for v in offsets[number : number + 2])
        elif dataset.chunks:
            start, stop = (dataset.chunks[0] * (number + more) for more in (0, 1))
        else:
            return
        sums[number] = zlib.crc32(np.asarray(dataset[start:stop]).tobytes())
