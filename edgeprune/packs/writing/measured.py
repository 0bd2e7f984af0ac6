"""What is found out of images while they are encoded; that of the parts of a pack adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import PackHeader
from edgeprune_runtime.errors import ArtifactError

from ...psnr import psnr_db
from ...sources.check import Statistics, source_sha256
from ..encoding.encoder import Encoding, MaskCounts

__all__ = ["Content", "Measured", "require_scored", "with_content"]

MAX_SKIPPED_NAMED = 100
# Digits of a PSNR in dB: further ones depend on the order in which errors are added.
_DIGITS = 6


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

    def with_digest(self, shape: tuple[int, int, int], class_names: Sequence[str]) -> Content:
        """Return it with the SHA-256 of all images of a source together, which this is of."""
        sha256 = self.sha256 or source_sha256(shape, class_names, self.images, self.digest)
        return replace(self, sha256=sha256)

    def __add__(self, other: Content) -> Content:
        return Content(
            self.images + other.images, self.digest + other.digest, self.bad + other.bad, self.sha256
        )


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found out of some images while they were encoded; that of disjoint sets adds up.

    Attributes
    ----------
    images : int
    squared_error : float
    kept : int64 [rows, columns]
    statistics : Statistics
        See `edgeprune.packs.encoding.encoder.Encoding`.
    """

    images: int
    squared_error: float
    kept: NDArray[np.int64]
    statistics: Statistics

    def __add__(self, other: Measured | Encoding) -> Measured:
        return Measured(
            self.images + other.images,
            self.squared_error + other.squared_error,
            self.kept + other.kept,
            self.statistics + other.statistics,
        )

    @classmethod
    def nothing(cls, header: PackHeader) -> Measured:
        """Return that of no image."""
        zeros = (0,) * header.channels
        kept = MaskCounts(header.height, header.width).full(0)
        return cls(0, 0.0, kept, Statistics(0, 0, zeros, zeros, header.bits))

    def result(self, header: PackHeader) -> dict[str, Any]:
        """Return the provenance's ``result``: PSNR in dB and, where components are dropped, how many."""
        planes = self.images * header.channels
        values = planes * header.height * header.width
        psnr = psnr_db(self.squared_error, values)
        found: dict[str, Any] = {"psnr_db": None if psnr is None else round(psnr, _DIGITS)}
        # Where everything is kept, which quantization makes usual, the rates say nothing and take 5 kB.
        if header.step == 0 or header.components < header.height * header.width:
            found["kept_rate"] = MaskCounts(header.height, header.width).rates(self.kept, planes)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON, exactly; see `from_json`."""
        statistics = self.statistics
        return {
            "images": self.images,
            "squared_error": self.squared_error,
            "kept": self.kept.tolist(),
            "digest": f"{statistics.digest:064x}",
            "sums": list(statistics.sums),
            "squares": list(statistics.squares),
            "bits": statistics.bits,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Measured:
        """Return what `to_json` was called on; raises `KeyError`, `TypeError` or `ValueError` of others."""
        sums, squares = (tuple(int(value) for value in facts[name]) for name in ("sums", "squares"))
        images, digest, bits = int(facts["images"]), int(facts["digest"], 16), int(facts["bits"])
        statistics = Statistics(images, digest, sums, squares, bits)
        kept = np.array(facts["kept"], np.int64)
        return cls(statistics.images, float(facts["squared_error"]), kept, statistics)


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
            "scores file): some have changed since, or were read otherwise; give the `size`, `channels` and "
            "`fast_jpeg` that they were scored with, or make the scores again with: edgeprune score"
        )
