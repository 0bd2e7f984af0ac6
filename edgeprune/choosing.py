"""Which images of a source go into a pack, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ArtefactError

from . import scores as formulas
from .config import METHODS, BuildConfig, CoresetConfig
from .presets import ccs_beta, data_family
from .records import ScoreRecords, file_sha256
from .sampling import ccs, coreset_size, random_coreset, top_k
from .scores import SCORES, hardness
from .sources import Source, SourceCheck

__all__ = ["Choice", "choose_images", "compute_scores", "require_records_of"]


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
    ArtefactError
        The records are damaged or of another source.
    """
    count = coreset_size(config.images_dropped, len(check.good))
    labels = source.labels[check.good]
    if not METHODS[config.method].scored_images:
        picked = random_coreset(labels, count, seed=config.seed)
        rows = check.good[picked].astype(np.int64)
        return Choice(rows, None, {"score": "random", "sampling": "random, stratified by class"})
    assert records is not None
    require_records_of(records, source, check)
    coreset = config.coreset
    scores = compute_scores(records, coreset, seed=config.seed)
    picked, facts = _sample(scores, records, labels, count, config, _beta(source, config))
    facts |= {"scores_sha256": file_sha256(records.path), "scores_run": records.provenance["config"]}
    stored = np.clip(scores[picked], -np.finfo("f4").max, np.finfo("f4").max).astype("f4")
    return Choice(check.good[picked].astype(np.int64), stored, facts)


def compute_scores(records: ScoreRecords, coreset: CoresetConfig, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the score of every image of a scoring run, float64 [N].

    Raises
    ------
    ArtefactError
        The records that it needs are damaged.
    ConfigError
        They are not finite, or too few.
    """
    needs = SCORES[coreset.score].records
    if not needs:
        return formulas.random(len(records.rows), seed=seed)
    array = records.array(needs)
    if coreset.score == "joint_entropy":
        return formulas.joint_entropy(array, tau=coreset.tau, gamma=coreset.gamma, window=coreset.window)
    compute: Callable[[NDArray[Any]], NDArray[np.float64]] = getattr(formulas, coreset.score)
    return compute(array)


def require_records_of(records: ScoreRecords, source: Source, check: SourceCheck) -> None:
    """Raise `ArtefactError` unless the records are of exactly these images and labels."""
    scored = records.provenance["source"]
    if scored["sha256"] != check.sha256:
        raise ArtefactError(
            f"{records.path}: scores of other images or labels ({scored.get('spec')}, SHA-256 "
            f"{str(scored['sha256'])[:12]}) than {source.spec} holds (SHA-256 {check.sha256[:12]}); "
            f"make them with: edgeprune score {source.spec}"
        )
    if not np.array_equal(records.rows, check.good):
        raise ArtefactError(
            f"{records.path}: scores of {len(records.rows):,} images, and {source.spec} has "
            f"{len(check.good):,}; make them with: edgeprune score {source.spec}"
        )


def _beta(source: Source, config: BuildConfig) -> float:
    if config.coreset.beta is not None:
        return config.coreset.beta
    return ccs_beta(config.images_dropped, data_family(len(source.class_names), *source.shape[1:]))


def _sample(
    scores: NDArray[np.float64],
    records: ScoreRecords,
    labels: NDArray[np.int64],
    count: int,
    config: BuildConfig,
    beta: float,
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return the chosen samples in storage order, and what the choice depended on."""
    coreset = config.coreset
    facts = {**asdict(coreset), "keep_end": SCORES[coreset.score].keep_end, "drawn_from": len(scores)}
    classes = labels if coreset.class_balance else None
    if coreset.sampling == "top-k":
        picked = top_k(scores, count, keep=SCORES[coreset.score].keep_end, labels=classes)
        # Packs store images in random order, so that a window of them is a fair sample.
        return np.random.default_rng(config.seed).permutation(picked), facts
    hard = hardness(compute_scores(records, CoresetConfig(score="aum")), "aum")
    picked = ccs(
        scores, count, hardness=hard, beta=beta, strata=coreset.strata, seed=config.seed, labels=classes
    )
    return picked, {**facts, "beta": beta, "hardness": "aum"}
