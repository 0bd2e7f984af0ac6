"""What can be saved of a damaged pack, image by image as it is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import (
    ConfigError,
    Pack,
    PackChecksumError,
    PackFormatError,
    PackHeader,
    PackWriter,
    Problem,
    open_pack,
)
from edgeprune_formats.coefficients import Coefficients
from edgeprune_formats.files import check_writable
from edgeprune_formats.targets import LABEL, Target

from ..work.callbacks import StageProgress
from .lineage import derived_header, parent_facts

__all__ = ["LostChunk", "RepairReport", "repair_pack"]


@dataclass(frozen=True, eq=False)
class LostChunk:
    """A chunk whose images are lost.

    Attributes
    ----------
    chunk : int
        Its number in the damaged pack.
    rows : int64 [n]
        The rows of its images in the source.
    labels : int64 [n]
        Their classes.
    reason : str
        What is wrong with it.
    """

    chunk: int
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    reason: str


@dataclass(frozen=True, eq=False)
class RepairReport:
    """What `repair_pack` did.

    Attributes
    ----------
    header : PackHeader
        Of the new pack.
    lost : tuple of LostChunk
        In ascending order; empty where the pack was sound.
    lost_scores : str or None
        What is wrong with the scores, if that is why the new pack has none.
    lost_targets : dict of str to str
        What is wrong with each column that the new pack lacks, by its name.
    """

    header: PackHeader
    lost: tuple[LostChunk, ...]
    lost_scores: str | None
    lost_targets: dict[str, str]

    @property
    def lost_images(self) -> int:
        """How many images are lost."""
        return sum(len(one.rows) for one in self.lost)

    @property
    def lost_by_class(self) -> dict[str, int]:
        """How many images of each class are lost, of the classes of which some are."""
        labels = [label for one in self.lost for label in one.labels.tolist()]
        counts = np.bincount(np.array(labels, np.int64))
        if not self.header.class_names:
            return {}
        return {self.header.class_names[label]: int(counts[label]) for label in np.nonzero(counts)[0]}


def repair_pack(
    source: str | Path, path: str | Path, *, progress: StageProgress | None = None
) -> RepairReport:
    """Write a sound pack of the images of every intact chunk, in bounded memory.

    Images keep coefficients, label, targets, row in the source and score bit for bit, and their order. A
    chunk of which one array is damaged is lost whole, and so is a damaged column of targets. Header, classes
    and provenance stay, with ``repaired`` added: the damaged pack with its SHA-256, and what is lost. The
    mean and standard deviation stay those of all images.

    Parameters
    ----------
    source, path : path
        The damaged pack, which is only read, and the pack to write, which appears when it is complete.
    progress : callable, optional
        Called as ``progress(stage, images done, images in all)``: all images are ``"checking"``, and then
        those of intact chunks ``"saving"``.

    Returns
    -------
    RepairReport

    Raises
    ------
    ConfigError
        Both names are the same file.
    PackFormatError
        Nothing can be saved: the header, labels, rows or structure are damaged, or all chunks are.
    PackWriteError
        The pack cannot be written.
    """
    source, path = Path(source), Path(path)
    tell = progress or (lambda stage, done, total: None)
    check_writable(path)
    if path.exists() and path.samefile(source):
        raise ConfigError(f"{path} is the pack that is repaired; name another file")
    with _opened(source) as pack:
        lost = tuple(_lost_chunks(pack, tell))
        rows = _intact_rows(pack, lost)
        scores, lost_scores = _scores(pack)
        targets, lost_targets = _targets(pack, rows)
        header = _header(pack, len(rows), lost, lost_scores, lost_targets)
        with PackWriter(
            path,
            header,
            pack.labels[rows],
            pack.source_index[rows],
            compression=pack.compression,
            scores=None if scores is None else scores[rows],
            targets=targets,
        ) as writer:
            done = 0
            for coefficients in _intact(pack, lost):
                writer.append_coefficients(coefficients)
                done += len(coefficients)
                tell("saving", done, len(rows))
    return RepairReport(header, lost, lost_scores, lost_targets)


def _opened(source: Path) -> Pack:
    try:
        return open_pack(source)
    except PackFormatError as error:
        found = error.problem
        message = f"{found.message}; without it no image can be saved"
        raise type(error)(source, Problem(found.kind, found.location, message)) from error


def _read(pack: Pack, chunk: int) -> Coefficients:
    try:
        return pack.read_chunk(chunk)
    except PackFormatError:
        # What a bus or a card fails to give once, it may give the next time.
        return pack.read_chunk(chunk)


def _lost_chunks(pack: Pack, tell: StageProgress) -> Iterator[LostChunk]:
    for chunk in range(pack.header.chunks):
        rows = _rows(pack, chunk)
        try:
            _read(pack, chunk)
        except PackFormatError as error:
            if not error.problem.location.startswith("/samples"):
                raise
            yield LostChunk(chunk, pack.source_index[rows], pack.labels[rows], str(error.problem))
        tell("checking", rows.stop, len(pack))


def _rows(pack: Pack, chunk: int) -> slice:
    rows = pack.header.chunk_rows(chunk)
    return slice(rows.start, rows.stop)


def _intact_rows(pack: Pack, lost: Sequence[LostChunk]) -> NDArray[np.int64]:
    intact = np.ones(len(pack), bool)
    for one in lost:
        intact[_rows(pack, one.chunk)] = False
    if not intact.any():
        message = "no chunk is intact, nothing can be saved; copy the file again"
        raise PackChecksumError(pack.path, Problem("checksum", "/samples", message))
    return np.nonzero(intact)[0]


def _intact(pack: Pack, lost: Sequence[LostChunk]) -> Iterator[Coefficients]:
    damaged = {one.chunk for one in lost}
    for chunk in range(pack.header.chunks):
        if chunk not in damaged:
            yield _read(pack, chunk)


def _scores(pack: Pack) -> tuple[NDArray[np.float32] | None, str | None]:
    try:
        return pack.scores, None
    except PackFormatError as error:
        return None, str(error.problem)


def _targets(pack: Pack, rows: NDArray[np.int64]) -> tuple[list[Target], dict[str, str]]:
    kept, lost = [], {}
    for name, target in pack.targets.items():
        try:
            if name != LABEL:
                kept.append(target.take(rows))
        except PackFormatError as error:
            lost[name] = str(error.problem)
    if not kept and not pack.header.class_names:
        message = "neither classes nor targets are intact, nothing can be saved; copy the file again"
        raise PackChecksumError(pack.path, Problem("checksum", "/targets", message))
    return kept, lost


def _header(
    pack: Pack,
    samples: int,
    lost: Sequence[LostChunk],
    lost_scores: str | None,
    lost_targets: Mapping[str, str],
) -> PackHeader:
    repaired = {
        "parent": parent_facts(pack),
        "lost_images": len(pack) - samples,
        "lost_chunks": [one.chunk for one in lost],
        "lost_scores": lost_scores is not None,
        **({"lost_targets": list(lost_targets)} if lost_targets else {}),
    }
    return derived_header(pack, samples, repaired=repaired)
