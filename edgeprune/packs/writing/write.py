"""A plan -> the file of a pack, or of one of its parts; each image is read, encoded and written once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, PackHeader, PackWriter
from edgeprune_runtime.class_names import class_numbers
from edgeprune_runtime.errors import ArtifactError

from ...sources.check import Statistics, read_rest, refuse_bad
from ...work.callbacks import StageProgress
from ..planning.plan import Plan, Share
from .measured import Content, Measured, require_scored, with_content

__all__ = ["complete", "write_pack", "write_part"]


def write_pack(plan: Plan, path: Path, progress: StageProgress | None = None) -> Content:
    """Write the pack, which appears when it is complete, and return what its source holds.

    Raises
    ------
    SourceError, UnreadableError
        See `edgeprune.packs.encoding.encoder.Encoder.read`.
    ArtifactError
        The source is not what was scored.
    PackWriteError
        The pack cannot be written.
    """
    with _writer(plan, path, plan.header, plan.coreset.rows, plan.coreset.scores) as writer:
        measured = _stored(plan, writer, plan.coreset.rows, progress)
        content = _content(plan, measured, Share(1, 1), progress)
        content = content.with_digest(plan.source.shape, plan.source.class_names)
        require_scored(content.sha256, plan.scored_sha256)
        told = with_content(plan.header.provenance, content)
        complete(writer, measured, told, keep_statistics=plan.keep_statistics)
    return content


def write_part(plan: Plan, path: Path, share: Share, progress: StageProgress | None = None) -> None:
    """Write a part as a pack of its own, whose provenance tells under ``part`` what it belongs to.

    Parts begin where chunks of the whole begin.

    Raises
    ------
    ConfigError
        There are fewer chunks than parts.
    SourceError, UnreadableError, PackWriteError
        As `write_pack`.
    """
    own, whole = plan.positions(share), plan.header
    if share.count > whole.chunks:
        raise ConfigError(
            f"{whole.samples} images are {whole.chunks} chunks, too few for {share.count} parts; build at "
            f"most {whole.chunks}"
        )
    images = slice(own.start, own.stop)
    rows = plan.coreset.rows[images]
    scores = None if plan.coreset.scores is None else plan.coreset.scores[images]
    header = replace(whole, samples=len(rows), chunk_samples=min(whole.chunk_samples, len(rows)))
    with _writer(plan, path, header, rows, scores) as writer:
        measured = _stored(plan, writer, rows, progress)
        content = _content(plan, measured, share, progress)
        part = {
            "number": share.number,
            "of": share.count,
            "build": plan.build,
            "samples": whole.samples,
            "chunk_samples": whole.chunk_samples,
            "measured": measured.to_json(),
            "content": {"images": content.images, "digest": f"{content.digest % 2**256:064x}"},
            "bad": list(content.bad),
            "sha256": content.sha256,
            "scored_sha256": plan.scored_sha256,
        }
        told = with_content(whole.provenance, content.with_digest(plan.source.shape, plan.source.class_names))
        complete(writer, measured, {**told, "part": part})


def _writer(
    plan: Plan,
    path: Path,
    header: PackHeader,
    rows: NDArray[np.int64],
    scores: NDArray[np.float32] | None,
) -> PackWriter:
    labels = plan.source.labels[rows]
    if header.class_names != plan.source.class_names:
        numbers = class_numbers(plan.source.class_names, header.class_names)
        labels = np.array([-1 if one is None else one for one in numbers], np.int64)[labels]
    targets = [target.take(rows) for target in plan.targets]
    return PackWriter(
        path, header, labels, rows, compression=plan.compression, scores=scores, targets=targets
    )


def _stored(
    plan: Plan, writer: PackWriter, rows: NDArray[np.int64], progress: StageProgress | None
) -> Measured:
    """Write the chunks of these rows in order, and return what was found out of them."""
    header, encoder = writer.header, plan.encoder
    measured, answers = Measured.nothing(header), []
    for encoding in encoder.chunks(header, rows, plan.jobs):
        writer.append_arrays(encoding.arrays, encoding.images)
        measured += encoding
        if encoding.answers is not None:
            answers.append(encoding.answers)
        if progress is not None:
            progress("encoding", measured.images, len(rows))
    if encoder.teacher is not None:
        writer.add_target(encoder.teacher.target(answers))
    return measured


def complete(
    writer: PackWriter, measured: Measured, provenance: Mapping[str, Any], *, keep_statistics: bool = False
) -> None:
    """Give a pack whose images are written what was measured of them; the writer is then ready to be left.

    With `keep_statistics` mean and standard deviation stay as the header has them.
    """
    header = writer.header
    own = measured.statistics.mean_std(header.height * header.width)
    writer.describe(*((header.mean, header.std) if keep_statistics else own), provenance)
    writer.record(**measured.result(writer.header))


def _content(plan: Plan, measured: Measured, share: Share, progress: StageProgress | None) -> Content:
    """Return what the source holds, of which this part reads its share of what no part stores."""
    if plan.check is not None:
        bad = plan.check.bad if share.number == 1 else ()
        return Content(measured.images, measured.statistics.digest, bad, plan.check.sha256)
    stored = np.union1d(plan.coreset.rows, plan.unreadable)
    others = np.setdiff1d(np.arange(len(plan.source)), stored).astype(np.intp)
    others = _some(others, share)
    found, done = Content(measured.images, measured.statistics.digest, ()), 0
    for piece in read_rest(plan.source, others, plan.jobs):
        statistics = Statistics.of(plan.encoder.require(piece))
        found += Content(statistics.images, statistics.digest, ())
        done += statistics.images
        if progress is not None:
            progress("reading the others", done, len(others))
    return found + _still_unreadable(plan, share)


def _still_unreadable(plan: Plan, share: Share) -> Content:
    source, found = plan.source, Content(0, 0, ())
    for piece in read_rest(source, _some(plan.unreadable.astype(np.intp), share), plan.jobs):
        if len(piece.rows):
            name, spec = source.name(int(piece.rows[0])), source.spec
            raise ArtifactError(
                f"{spec}: {name} can be read now, and could not when the scores were made; make them "
                f"again with: edgeprune score {spec}"
            )
        if not plan.encoder.skip_bad:
            refuse_bad(piece.bad)
        found += Content(0, 0, piece.bad)
    return found


def _some(rows: NDArray[np.intp], share: Share) -> NDArray[np.intp]:
    own = share.of(len(rows))
    return rows[own.start : own.stop]
