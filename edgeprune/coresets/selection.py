"""Which images of a source go into a pack, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.files import file_sha256
from edgeprune_runtime.errors import ArtifactError

from ..packs.config import METHODS, BuildConfig
from ..presets import ccs_beta, data_family
from ..scoring.scores_file import ScoreRecords
from ..sources import Source, SourceCheck
from . import scores as formulas
from .config import CoresetConfig
from .sampling import ccs, coreset_size, random_coreset, top_k
from .scores import SCORES, hardness

__all__ = ["Choice", "choose_images", "compute_scores", "require_enough", "require_records_of"]


@dataclass(frozen=True, eq=False)
class Choice:
    """The images to store.

    Attributes
    ----------
    rows : int64 [n]
        Rows of the source, in the order in which to store them.
    scores : float32 [n] or None
        The score of each, where a score chose them.
    facts : dict
        What the choice depended on, for provenance.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32] | None
    facts: dict[str, Any]


def choose_images(
    source: Source, check: SourceCheck, config: BuildConfig, records: ScoreRecords | None
) -> Choice:
    """Choose images as the method says.

    Parameters
    ----------
    source, check : Source, SourceCheck
        Where they come from, and which can be read.
    config : BuildConfig
        The method and its parameters.
    records : ScoreRecords or None
        Of a scoring run over the same source; needed where the method scores images.

    Raises
    ------
    ConfigError
        A ratio that keeps nothing, or a beta that leaves too few images.
    ArtifactError
        The records are damaged, not finite, or of another source.
    """
    good = check.good
    if not METHODS[config.method].scored_images:
        count = coreset_size(config.images_dropped, len(good))
        picked = random_coreset(source.labels[good], count, seed=config.seed)
        chance = {"score": "random", "sampling": "random, stratified by class"}
        return Choice(good[picked].astype(np.int64), None, chance)
    assert records is not None
    require_records_of(records, source, check)
    scores = compute_scores(records, config.coreset, seed=config.seed)
    picked, facts = _sample(scores, records, source, check, config)
    facts |= {"scores_sha256": file_sha256(records.path), "scores_run": records.provenance["config"]}
    stored = np.clip(scores[picked], -np.finfo("f4").max, np.finfo("f4").max).astype("f4")
    return Choice(good[picked].astype(np.int64), stored, facts)


def require_enough(source: Source, check: SourceCheck, config: BuildConfig) -> None:
    """Raise `ConfigError` if beta leaves too few images, which shows before there are scores."""
    if config.coreset.sampling == "ccs":
        equal = np.zeros(len(check.good))
        _stratified(equal, equal, source, check, config)


def compute_scores(records: ScoreRecords, coreset: CoresetConfig, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the score of every image of a scoring run, float64 [N].

    Raises
    ------
    ArtifactError
        The records that it needs are damaged, not finite, or none.
    """
    needs = SCORES[coreset.score].records
    if not needs:
        return formulas.random(len(records.rows), seed=seed)
    array = records.array(needs)
    try:
        if coreset.score == "joint_entropy":
            return formulas.joint_entropy(array, tau=coreset.tau, gamma=coreset.gamma, window=coreset.window)
        compute: Callable[[NDArray[Any]], NDArray[np.float64]] = getattr(formulas, coreset.score)
        return compute(array)
    except ConfigError as error:
        # The parameters were checked with the configuration, so it is the file.
        raise ArtifactError(f"{records.path}: {error}; repeat: edgeprune score") from error


def require_records_of(records: ScoreRecords, source: Source, check: SourceCheck) -> None:
    """Raise `ArtifactError` unless the records are of exactly these images and labels."""
    scored = records.provenance["source"]
    if scored["sha256"] != check.sha256:
        raise ArtifactError(
            f"{records.path}: scores of other images or labels ({scored.get('spec')}, SHA-256 "
            f"{str(scored['sha256'])[:12]}) than {source.spec} holds (SHA-256 {check.sha256[:12]}); "
            "give the --size and --split (train) that they were made with, or "
            f"make them with: edgeprune score {source.spec}"
        )
    if not np.array_equal(records.rows, check.good):
        raise ArtifactError(
            f"{records.path}: scores of these images, but not where {source.spec} has them now: images that "
            f"cannot be read have come or gone; make them with: edgeprune score {source.spec}"
        )


def _beta(source: Source, config: BuildConfig) -> float:
    if config.coreset.beta is not None:
        return config.coreset.beta
    return ccs_beta(config.images_dropped, data_family(len(source.class_names), *source.shape[1:]))


def _sample(
    scores: NDArray[np.float64],
    records: ScoreRecords,
    source: Source,
    check: SourceCheck,
    config: BuildConfig,
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the chosen samples in storage order, and what the choice depended on."""
    coreset, end = config.coreset, SCORES[config.coreset.score].keep_end
    facts = {**asdict(coreset), "keep_end": end, "drawn_from": len(scores)}
    if coreset.sampling == "top-k":
        count = coreset_size(config.images_dropped, len(scores))
        picked = top_k(scores, count, keep=end, labels=_classes(source, check, config))
        # Packs store images in random order, so that a window of them is a fair sample.
        return np.random.default_rng(config.seed).permutation(picked), facts
    hard = hardness(compute_scores(records, CoresetConfig(score="aum")), "aum")
    picked = _stratified(scores, hard, source, check, config)
    return picked, {**facts, "beta": _beta(source, config), "hardness": "aum"}


def _stratified(
    scores: NDArray[np.float64],
    hard: NDArray[np.float64],
    source: Source,
    check: SourceCheck,
    config: BuildConfig,
) -> NDArray[np.int64]:
    return ccs(
        scores,
        coreset_size(config.images_dropped, len(scores)),
        hardness=hard,
        beta=_beta(source, config),
        strata=config.coreset.strata,
        seed=config.seed,
        labels=_classes(source, check, config),
    )


def _classes(source: Source, check: SourceCheck, config: BuildConfig) -> NDArray[np.int64] | None:
    """Return the labels of the images that can be read, if classes are to keep their proportions."""
    return source.labels[check.good] if config.coreset.class_balance else None
