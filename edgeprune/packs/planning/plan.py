"""What a build is about to do: whole, or in parts that know nothing of each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, PackHeader
from edgeprune_formats.targets import Target, encode_target

from ...coresets.selection import Coreset
from ...sources import Source, SourceCheck
from ..encoding.encoder import Encoder

__all__ = ["Plan", "Share"]


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
    artifacts : tuple of Path
        Files that were made on the way and can be used again.
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
    artifacts: tuple[Path, ...] = ()

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

    def positions(self, share: Share) -> range:
        """Return which images of the coreset a part stores: those of whole chunks."""
        chunks = share.of(self.header.chunks)
        size, samples = self.header.chunk_samples, self.header.samples
        return range(min(chunks.start * size, samples), min(chunks.stop * size, samples))

    def images(self, share: Share) -> int:
        """Return how many images a part stores."""
        return len(self.positions(share))
