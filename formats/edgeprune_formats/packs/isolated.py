"""The process that opens a file first, with little memory and time; see `edgeprune_formats.isolation`.

It prints the problems that it found as JSON, or null where the memory did not suffice. Whether it lives is
what its parent wants to know.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Examine a file: path, ``"open"`` or ``"verify"``, seconds, bytes, and modules of codecs."""
    path, mode, seconds, memory, *modules = arguments
    _confine(int(seconds), int(memory))
    try:
        found = _examine(Path(path), mode == "verify", modules)
    except MemoryError:
        found = None
    print(json.dumps(found), flush=True)
    # What the file did to HDF5 must not count against it once everything was read.
    os._exit(0)


def _confine(seconds: int, memory: int) -> None:
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
    ):
        soft, hard = resource.getrlimit(kind)
        known = [bound for bound in (limit, soft, hard) if bound != resource.RLIM_INFINITY]
        with contextlib.suppress(ValueError, OSError):
            # After the soft limit of time comes a signal, and a second later another that nothing can catch.
            resource.setrlimit(kind, (min(known), hard))


def _examine(path: Path, verify: bool, modules: list[str]) -> list[tuple[str, str, str]]:
    for module in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    if not verify:
        _attempt(lambda: _open(path))
        return []
    from ..structure import why_not_plain
    from .local import verify_trusted

    found = verify_trusted(path, why_not_plain(path))
    _require_memory(found)
    return [(problem.kind, problem.location, problem.message) for problem in found]


def _attempt(step: Callable[[], object]) -> None:
    """Run a step. What is wrong with the file is for the parent to tell, which looks again."""
    try:
        step()
    except MemoryError:
        raise
    except Exception as error:
        _require_memory([error])


def _require_memory(found: Iterable[object]) -> None:
    """Raise MemoryError where an error or problem says that HDF5 got none; the parent has more to give."""
    said = "\n".join(map(str, found)).lower()
    if any(words in said for words in ("memory allocation", "can't allocate", "unable to allocate")):
        raise MemoryError


def _open(path: Path) -> None:
    """Do with a file whatever opening and reading it makes HDF5 do, but for the data of chunks."""
    from ..hdf5 import open_hdf5
    from .inspection import inspect, inspect_scores

    size = path.stat().st_size
    file = open_hdf5(path)
    _attempt(lambda: _walk(file["/"].id, size))
    contents = inspect(file, size)
    _require_memory(contents.problems)
    if contents.header is not None:
        _require_memory(inspect_scores(file, contents.header, size)[0])
    file.close()


def _walk(group: Any, size: int) -> None:
    """Open every object, read its attributes and find its chunks."""
    import h5py

    for name in list(group):
        if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            continue
        item = h5py.h5o.open(group, name)
        _attempt(partial(_read_attributes, item))
        if isinstance(item, h5py.h5d.DatasetID):
            _attempt(partial(_find_chunks, item, size))
        elif isinstance(item, h5py.h5g.GroupID):
            _attempt(partial(_walk, item, size))


def _read_attributes(item: Any) -> None:
    import h5py
    import numpy as np

    for number in range(h5py.h5a.get_num_attrs(item)):
        attribute = h5py.h5a.open(item, index=number)
        stored = attribute.get_type()
        if stored.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
            attribute.read(np.empty(attribute.shape, attribute.dtype))


def _find_chunks(dataset: Any, size: int) -> None:
    import h5py

    properties = dataset.get_create_plist()
    dataset.get_type(), dataset.get_offset(), dataset.get_storage_size()
    if properties.get_layout() != h5py.h5d.CHUNKED:
        return
    chunks, rank = properties.get_chunk(), len(dataset.shape)
    # More chunks than the file has room for are refused before one is read.
    if dataset.shape[0] // chunks[0] * 8 <= size:
        for start in range(0, dataset.shape[0], chunks[0]):
            dataset.get_chunk_info_by_coord((start, *(0,) * (rank - 1)))
