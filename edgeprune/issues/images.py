"""The images that issues are looked for in: those of a source or of a pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.packs.inspection import signature_problem
from edgeprune_formats.remote.locations import as_remote
from edgeprune_runtime.errors import ArtifactError

from ..scoring.obtain import require_scores_of
from ..scoring.scores_file import ScoresFile
from ..sources import Source, open_source
from ..sources.check import refuse_bad
from .duplicates import Fingerprints
from .prints import fingerprints, pack_fingerprints

__all__ = ["Images", "is_pack", "open_images"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Images:
    """Some images, what they are called, and what to compare them by.

    Attributes
    ----------
    name : str
        Of the source or the pack.
    rows : int64 [N]
        Their rows in the source.
    labels : int64 [N]
    class_names : tuple of str
    image_name : callable
        Gives the name of an image by its place in `rows`.
    read : callable
        Gives their fingerprints, whose rows are places in `rows`.
    """

    name: str
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    image_name: Callable[[int], str]
    read: Callable[[Progress | None], Fingerprints]

    def places(self) -> Mapping[int, int]:
        """Return the place of each row."""
        return {row: place for place, row in enumerate(self.rows.tolist())}


def is_pack(data: str) -> bool:
    """Tell whether a text names a pack, and no source."""
    path = Path(data)
    return path.suffix == ".h5" or (path.is_file() and signature_problem(path) is None)


def open_images(
    data: str,
    scores: ScoresFile | None,
    *,
    split: str = "train",
    size: int | None = None,
    channels: str = "as-is",
    skip_bad: bool = False,
    jobs: int = 1,
    tell: Callable[[str], None],
) -> Images:
    """Open a source or a pack, and check that the scores are of the same images.

    Raises
    ------
    ArtifactError
        The scores are of others.
    ConfigError, SourceError, PackFormatError
        As `edgeprune.open_source` and `edgeprune_formats.open_pack`.
    """
    if (remote := as_remote(data)) is not None:
        raise ConfigError(f"{remote}: duplicates are looked for in local files; fetch it, and name the copy")
    if is_pack(data):
        return _of_pack(Path(data), scores)
    source = open_source(data, split=split, size=size, channels=channels)
    if scores is not None:
        require_scores_of(scores, source, scores.rows)

    def refuse(bad: list[str]) -> None:
        if not skip_bad:
            refuse_bad(bad)
        for message in bad:
            tell(f"skipped {message}")

    return _of_source(source, jobs, refuse)


def _of_source(source: Source, jobs: int, refuse: Callable[[list[str]], None]) -> Images:
    rows = np.arange(len(source))
    return Images(
        source.spec,
        rows,
        source.labels,
        source.class_names,
        source.name,
        lambda progress: fingerprints(source, rows, jobs, refuse, progress),
    )


def _of_pack(path: Path, scores: ScoresFile | None) -> Images:
    with open_pack(path) as pack:
        header, labels, rows = pack.header, pack.labels, pack.source_index
    facts = header.provenance.get("source")
    if scores is not None:
        known = facts.get("sha256") if isinstance(facts, dict) else None
        if known != scores.provenance["source"]["sha256"]:
            raise ArtifactError(
                f"{scores.path}: scores of other images than {path} was built from; leave one of them out, "
                "or make scores of that source with: edgeprune score"
            )

    def read(progress: Progress | None) -> Fingerprints:
        with open_pack(path) as pack:
            return pack_fingerprints(pack, progress)

    return Images(
        str(path),
        rows.astype(np.int64),
        labels.astype(np.int64),
        header.class_names,
        lambda place: f"{path}[{place}]",
        read,
    )
