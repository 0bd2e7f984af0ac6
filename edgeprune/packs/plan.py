"""What a build is about to do: whole, or in parts that know nothing of each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, PackHeader, PackWriter
from edgeprune_formats.targets import Target, encode_target
from edgeprune_runtime.class_names import class_numbers
from edgeprune_runtime.errors import ArtifactError

from ..coresets.selection import Coreset
from ..sources import Source, SourceCheck
from ..sources.check import Statistics, read_rest, refuse_bad, source_sha256
from ..work.callbacks import StageProgress
from .encoding.encoder import Encoder
from .storing import Measured, complete, store

__all__ = ["Content", "Plan", "Share", "with_content"]

MAX_SKIPPED_NAMED = 100


@dataclass(frozen=True)
class Share:
    """One of several parts of a build.

    Attributes
    ----------
    number, count : int
        ``1 .. count``, and how many parts there are.

    Raises
    ------
    ConfigError
        There is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(f"`part` must be from 1 to {self.count}, not {self.number}")

    def of(self, length: int) -> range:
        """Return which of so many items are this part's."""
        return range(length * (self.number - 1) // self.count, length * self.number // self.count)


@dataclass(frozen=True)
class Content:
    """What was found out of a source's images, of those of one part or of all.

    Attributes
    ----------
    images, digest : int
        How many could be read, and the sum of their digests, see `edgeprune.sources.check.Piece`.
    bad : tuple of str
        A message for each that could not.
    sha256 : str
        Of all images together, once they are known; otherwise "".
    """

    images: int
    digest: int
    bad: tuple[str, ...]
    sha256: str = ""

    def __add__(self, other: Content) -> Content:
        return Content(
            self.images + other.images, self.digest + other.digest, self.bad + other.bad, self.sha256
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a pack depends on, before its images are read.

    Attributes
    ----------
    source : Source
    encoder : Encoder
    header : PackHeader
        Complete but for mean and standard deviation, and for what the provenance tells of the source's
        content.
    coreset : Coreset
    compression : str
        See `edgeprune.BuildConfig`.
    check : SourceCheck or None
        Of a pass over the images before; without one, images that are not stored are read as well, so that a
        pack is of a source that can be read as a whole, and names its content.
    unreadable : int64 [n]
        Rows that could not be read when the scores were made.
    scored_sha256 : str
        Of the content that was scored; "" without scores.
    jobs : int
        Threads that read and encode.
    targets : tuple of Target
        Columns of all images of the source.
    keep_statistics : bool
        Whether mean and standard deviation are those of `header`, in place of the images' own.
    """

    source: Source
    encoder: Encoder
    header: PackHeader
    coreset: Coreset
    compression: str
    check: SourceCheck | None
    unreadable: NDArray[np.int64]
    scored_sha256: str
    jobs: int
    targets: tuple[Target, ...] = ()
    keep_statistics: bool = False

    @property
    def build(self) -> str:
        """16 hex digits that all parts of one build have in common, with no other build."""
        header, source = self.header, self.source
        depends = ("coreset", "mask", "fse_net", *(("teacher",) if self.encoder.teacher else ()))
        facts = {
            "source": [source.spec, source.split, list(source.shape), list(source.class_names)],
            "stored": [header.codec, header.step, header.tile, header.color_space, header.components],
            "made": [header.generator, header.chunk_samples, self.compression, self.encoder.rounding],
            "chosen": [header.provenance.get(name) for name in depends],
            "checked": self.check is not None and self.check.sha256,
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for array in (self.coreset.rows, source.labels):
            digest.update(array.astype("<i8").tobytes())
        for target in self.targets:
            digest.update(json.dumps(target.column.to_json()).encode())
            digest.update(encode_target(target, len(source)).tobytes())
        return digest.hexdigest()[:16]

    def write(self, path: Path, progress: StageProgress | None = None) -> Content:
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
        whole = Share(1, 1)
        with self._writer(path, self.header, self.coreset.rows, self.coreset.scores) as writer:
            measured = self._stored(writer, writer.header, self.coreset.rows, progress)
            content = self._content(measured, whole, progress)
            sha256 = source_sha256(self.source.shape, self.source.class_names, content.images, content.digest)
            content = replace(content, sha256=content.sha256 or sha256)
            require_scored(content.sha256, self.scored_sha256)
            told = with_content(self.header.provenance, content)
            complete(writer, measured, told, keep_statistics=self.keep_statistics)
        return content

    def images(self, share: Share) -> int:
        """Return how many images a part stores."""
        return len(self._rows(share))

    def _rows(self, share: Share) -> range:
        """Return which images of the coreset are a part's: those of whole chunks."""
        chunks = share.of(self.header.chunks)
        size, samples = self.header.chunk_samples, self.header.samples
        return range(min(chunks.start * size, samples), min(chunks.stop * size, samples))

    def write_part(self, path: Path, share: Share, progress: StageProgress | None = None) -> None:
        """Write a part as a pack of its own, whose provenance tells under ``part`` what it belongs to.

        Parts begin where chunks of the whole begin.

        Raises
        ------
        ConfigError
            There are fewer chunks than parts.
        SourceError, UnreadableError, PackWriteError
            As `write`.
        """
        own = self._rows(share)
        if not own:
            raise ConfigError(
                f"{self.header.samples} images are {self.header.chunks} chunks, and part {share.number} of "
                f"{share.count} would have none; build at most {self.header.chunks} parts"
            )
        images = slice(own.start, own.stop)
        rows = self.coreset.rows[images]
        scores = None if self.coreset.scores is None else self.coreset.scores[images]
        samples = min(self.header.chunk_samples, len(rows))
        header = replace(self.header, samples=len(rows), chunk_samples=samples)
        with self._writer(path, header, rows, scores) as writer:
            measured = self._stored(writer, header, rows, progress)
            content = self._content(measured, share, progress)
            sha256 = source_sha256(self.source.shape, self.source.class_names, content.images, content.digest)
            part = {
                "number": share.number,
                "of": share.count,
                "build": self.build,
                "samples": self.header.samples,
                "chunk_samples": self.header.chunk_samples,
                "measured": measured.to_json(),
                "content": {"images": content.images, "digest": f"{content.digest % 2**256:064x}"},
                "bad": list(content.bad),
                "sha256": content.sha256,
                "scored_sha256": self.scored_sha256,
            }
            told = with_content(self.header.provenance, replace(content, sha256=content.sha256 or sha256))
            complete(writer, measured, {**told, "part": part})

    def _writer(
        self,
        path: Path,
        header: PackHeader,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32] | None,
    ) -> PackWriter:
        labels = self.source.labels[rows]
        if self.header.class_names != self.source.class_names:
            numbers = class_numbers(self.source.class_names, self.header.class_names)
            labels = np.array([-1 if one is None else one for one in numbers], np.int64)[labels]
        targets = [target.take(rows) for target in self.targets]
        return PackWriter(
            path, header, labels, rows, compression=self.compression, scores=scores, targets=targets
        )

    def _stored(
        self,
        writer: PackWriter,
        header: PackHeader,
        rows: NDArray[np.int64],
        progress: StageProgress | None,
    ) -> Measured:
        tell = None if progress is None else partial(_tell, progress, "encoding", len(rows))
        return store(writer, self.encoder.chunks(header, rows, self.jobs), tell, self.encoder.teacher)

    def _content(self, measured: Measured, share: Share, progress: StageProgress | None) -> Content:
        """Return what the source holds, of which this part reads its share of what no part stores."""
        if self.check is not None:
            bad = self.check.bad if share.number == 1 else ()
            return Content(measured.images, measured.statistics.digest, bad, self.check.sha256)
        stored = np.union1d(self.coreset.rows, self.unreadable)
        others = np.setdiff1d(np.arange(len(self.source)), stored).astype(np.intp)
        others = _some(others, share)
        found, done = Content(measured.images, measured.statistics.digest, ()), 0
        for piece in read_rest(self.source, others, self.jobs):
            statistics = Statistics.of(self.encoder.require(piece))
            found += Content(statistics.images, statistics.digest, ())
            done += statistics.images
            if progress is not None:
                progress("reading the others", done, len(others))
        return found + self._still_unreadable(share)

    def _still_unreadable(self, share: Share) -> Content:
        found = Content(0, 0, ())
        for piece in read_rest(self.source, _some(self.unreadable.astype(np.intp), share), self.jobs):
            if len(piece.rows):
                name, spec = self.source.name(int(piece.rows[0])), self.source.spec
                raise ArtifactError(
                    f"{spec}: {name} can be read now, and could not when the scores were made; make them "
                    f"again with: edgeprune score {spec}"
                )
            if not self.encoder.skip_bad:
                refuse_bad(piece.bad)
            found += Content(0, 0, piece.bad)
        return found


def with_content(provenance: Any, content: Content) -> dict[str, Any]:
    """Return a provenance whose ``source`` tells what the source holds."""
    facts = {
        "sha256": content.sha256,
        "skipped": len(content.bad),
        "skipped_images": list(content.bad[:MAX_SKIPPED_NAMED]),
    }
    return {**provenance, "source": {**provenance["source"], **facts}}


def require_scored(sha256: str, scored: str) -> None:
    """Raise `ArtifactError` unless the content is what was scored."""
    if scored and sha256 != scored:
        raise ArtifactError(
            f"the images are not those that were scored (SHA-256 {sha256[:12]}, and {scored[:12]} in the "
            "scores file): some have changed since; make the scores again with: edgeprune score"
        )


def _some(rows: NDArray[np.intp], share: Share) -> NDArray[np.intp]:
    own = share.of(len(rows))
    return rows[own.start : own.stop]


def _tell(progress: StageProgress, stage: str, total: int, done: int) -> None:
    progress(stage, done, total)
