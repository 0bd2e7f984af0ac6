"""The step that gives the scores of a source: of a file, which needs no torch, or of a scoring run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_runtime.errors import ArtifactError

from ..sources import Source, SourceCheck
from ..work.callbacks import EpochProgress
from ..work.processes import Workers
from .config import ScoreConfig
from .scores_file import ScoresFile

__all__ = ["obtain_scores", "require_scores_of"]


def obtain_scores(
    source: Source,
    check: SourceCheck | None,
    path: Path,
    config: ScoreConfig,
    *,
    given: ScoresFile | None,
    workers: Workers,
    report: EpochProgress | None = None,
) -> ScoresFile:
    """Return the scores file that is given, or make one under `path`, for which all images were read.

    Of images that were not, a file that is given is compared where it is used.

    Raises
    ------
    ArtifactError
        The given one is of other images.
    ConfigError, SourceError, PackWriteError, TrainingError, TrainingInterrupted
        See `edgeprune.scoring.run.run_scoring`.
    """
    if given is not None:
        if check is not None:
            require_scores_of(given, source, check.good, check.sha256)
        return given
    assert check is not None
    from .run import run_scoring

    return run_scoring(source, check, path, config, workers=workers, report=report)


def require_scores_of(
    scores: ScoresFile, source: Source, good: NDArray[np.integer[Any]], sha256: str | None = None
) -> None:
    """Raise `ArtifactError` unless the scores are of exactly these images and labels.

    Parameters
    ----------
    scores : ScoresFile
    source : Source
    good : int [n]
        The rows that can be read.
    sha256 : str or None
        Of their content, see `edgeprune.sources.check.source_sha256`; None compares what shows without
        reading images.
    """
    scored = scores.provenance["source"]
    rows = scores.rows[scores.rows < len(source)]
    alike = scored.get("images", len(source)) == len(source) and sha256 in (None, scored["sha256"])
    if not alike or not np.array_equal(scores.labels, source.labels[rows]):
        content = "" if sha256 is None else ", `fast_jpeg`"
        raise ArtifactError(
            f"{scores.path}: scores of other images or labels ({scored.get('spec')}, SHA-256 "
            f"{str(scored['sha256'])[:12]}) than {source.spec} holds; give the `size`, `channels`{content} "
            "and `split` (train) that they were made with, or make them with: "
            f"edgeprune score {source.spec}"
        )
    if not np.array_equal(scores.rows, good):
        raise ArtifactError(
            f"{scores.path}: scores of these images, but not where {source.spec} has them now: images that "
            f"cannot be read have come or gone; make them with: edgeprune score {source.spec}"
        )
