"""One pack shared out among the devices of a fleet, image by image as it is stored."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import (
    ConfigError,
    Pack,
    PackHeader,
    PackWriteError,
    PackWriter,
    open_pack,
)
from edgeprune_formats.codecs import memory_bytes
from edgeprune_formats.files import check_free_space, check_writable
from edgeprune_formats.packs.transactions import pack_transaction

from .lineage import derived_header, parent_facts
from .partition import IID, Partition, parse_by, partition

__all__ = ["PLACEHOLDER", "Part", "part_paths", "split_pack"]

PLACEHOLDER = "{part}"
# Chunks that wait to be filled, of all the parts that are written at a time.
HELD_BYTES = 2**25
_MOST_PARTS = 2**16


@dataclass(frozen=True)
class Part:
    """One part of a split.

    Attributes
    ----------
    path : Path
    header : PackHeader
    classes : tuple of int
        Images of each class.
    """

    path: Path
    header: PackHeader
    classes: tuple[int, ...]


def part_paths(source: Path, target: Path, parts: int) -> list[Path]:
    """Return where the parts go: numbered from 1, with leading zeros.

    Parameters
    ----------
    source : Path
        The pack.
    target : Path
        A name that holds ``{part}``, or else a folder, in which parts are named after the pack.
    parts : int

    Raises
    ------
    ConfigError
        There are too many parts, the target is a single file, or the pack itself would be replaced.
    """
    if parts > _MOST_PARTS:
        raise ConfigError(f"{parts:,} parts are more than {_MOST_PARTS:,}")
    numbers = [f"{number:0{len(str(parts))}d}" for number in range(1, parts + 1)]
    if PLACEHOLDER in str(target):
        paths = [Path(str(target).replace(PLACEHOLDER, number)) for number in numbers]
    elif target.is_file() or (target.suffix in (".h5", ".hdf5") and not target.is_dir()):
        raise ConfigError(
            f"{target} names one file for {parts} parts; name a folder, or put {PLACEHOLDER} into the name"
        )
    else:
        paths = [target / f"{source.stem}-{number}-of-{parts}{source.suffix}" for number in numbers]
    for path in paths:
        if path.exists() and path.samefile(source):
            raise ConfigError(f"{path} is the pack that is split; name its parts otherwise")
    return paths


def split_pack(
    source: str | Path,
    target: str | Path,
    parts: int,
    *,
    by: Partition | str = IID,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Part]:
    """Share the images of a pack out to several packs, which appear at once, in bounded memory.

    Images keep coefficients, label, targets, row in the source and score bit for bit, in order; parts keep
    codec, class names, mean, standard deviation and provenance, to which ``split`` is added: part, parts, by,
    seed, and the parent with its SHA-256 and what its build measured. Every image goes to one part.

    Parameters
    ----------
    source : path
        The pack.
    target : path
        See `part_paths`; a folder is made if it is missing.
    parts : int
        How many, at least 2.
    by : Partition or str
        Text is what `edgeprune.repack.partition.parse_by` takes: ``"iid"``, ``"class"`` or
        ``"dirichlet:ALPHA"``.
    seed : int
    progress : callable, optional
        Called as ``progress(images written, images in all)``.

    Returns
    -------
    list of Part
        In the order of their numbers.

    Raises
    ------
    ConfigError
        A part would be empty, the target is not fit for so many parts, or `by` is unknown.
    PackFormatError
        The pack is damaged.
    PackWriteError
        A part cannot be written.
    """
    source, target, by = Path(source), Path(target), parse_by(by) if isinstance(by, str) else by
    paths = part_paths(source, target, parts)
    with open_pack(source) as pack:
        if not pack.header.class_names and by != IID:
            raise ConfigError(f"{source} has no classes to share out; use `by=iid`")
        part_of = partition(pack.labels, parts, by, seed)
        record = {"parts": parts, "by": str(by), "seed": seed, "parent": parent_facts(pack)}
        headers = [
            derived_header(pack, int(count), split={"part": number, **record})
            for number, count in enumerate(np.bincount(part_of, minlength=parts), 1)
        ]
        with _folder(target if paths[0].parent == target else None):
            for path in paths:
                check_writable(path)
            check_free_space(paths[0], source.stat().st_size)
            _write(pack, paths, headers, part_of, progress)
        classes = [
            np.bincount(pack.labels[part_of == part], minlength=len(pack.header.class_names))
            if pack.header.class_names
            else np.zeros(0, np.int64)
            for part in range(parts)
        ]
    return [
        Part(path, header, tuple(counts.tolist()))
        for path, header, counts in zip(paths, headers, classes, strict=True)
    ]


@contextlib.contextmanager
def _folder(folder: Path | None) -> Iterator[None]:
    """Make a folder if it is missing, and remove it again if the block fails."""
    if folder is None or folder.exists():
        yield
        return
    try:
        folder.mkdir()
    except OSError as error:
        raise PackWriteError(f"{folder}: cannot be made ({error.strerror}); create it first") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _write(
    pack: Pack,
    paths: list[Path],
    headers: list[PackHeader],
    part_of: NDArray[np.int64],
    progress: Callable[[int, int], None] | None,
) -> None:
    compression, done = pack.compression, 0
    with pack_transaction() as enter:
        for numbers in _passes(headers):
            writers = {}
            for number in numbers:
                rows = np.nonzero(part_of == number)[0]
                scores = None if pack.scores is None else pack.scores[rows]
                writer = PackWriter(
                    paths[number],
                    headers[number],
                    pack.labels[rows],
                    pack.source_index[rows],
                    compression=compression,
                    scores=scores,
                    targets=pack.take_targets(rows),
                )
                writers[number] = enter(writer)
            for written in _share_out(pack, writers, part_of):
                done += written
                if progress:
                    progress(done, len(pack))
            for writer in writers.values():
                writer.seal()


def _passes(headers: list[PackHeader]) -> list[range]:
    """Return the parts to write at a time; for each further pass the pack is read again."""
    each = max(header.chunk_samples * memory_bytes(header) for header in headers)
    size = max(1, HELD_BYTES // each)
    passes = math.ceil(len(headers) / size)
    edges = [len(headers) * number // passes for number in range(passes + 1)]
    return [range(*edges[number : number + 2]) for number in range(passes)]


def _share_out(pack: Pack, writers: dict[int, PackWriter], part_of: NDArray[np.int64]) -> Iterator[int]:
    """Append to each writer its part's images; yield after each chunk how many were written."""
    for chunk in range(pack.header.chunks):
        rows = pack.header.chunk_rows(chunk)
        here = part_of[rows.start : rows.stop]
        coefficients, written = pack.read_chunk(chunk), 0
        for number, writer in writers.items():
            inside = np.nonzero(here == number)[0]
            writer.append_coefficients(coefficients.take(inside))
            written += len(inside)
        yield written
