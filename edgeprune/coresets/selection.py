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

from ..presets import beta_exponent, ccs_beta, coreset_size, data_family
from ..scoring.obtain import require_scores_of
from ..scoring.scores_file import ScoresFile
from ..sources import Source
from . import scores as formulas
from .beta_sampling import beta_sampling
from .config import CoresetConfig
from .sampling import ccs, random_coreset, top_k
from .scores import SCORES, hardness

__all__ = ["Coreset", "compute_scores", "require_enough", "select_images"]


@dataclass(frozen=True, eq=False)
class Coreset:
    """The images to store.

    Attributes
    ----------
    rows : int64 [n]
        Rows of the source, in the order in which to store them.
    scores : float32 [n] or None
        The score of each, where a score selected them.
    facts : dict
        What the selection depended on, for provenance.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32] | None
    facts: dict[str, Any]


def select_images(
    source: Source,
    good: NDArray[np.integer[Any]],
    *,
    sample_prune: float,
    seed: int = 0,
    scores: ScoresFile | None = None,
    config: CoresetConfig | None = None,
    sha256: str | None = None,
    left_out: NDArray[np.integer[Any]] | None = None,
) -> Coreset:
    """Select images by score, or without scores at random, stratified by class.

    Parameters
    ----------
    source : Source
        Where they come from.
    good : int [n]
        The rows to choose from, ascending: those that can be read.
    sample_prune : float
        The share of the images to leave out.
    seed : int
        Fixes what is drawn, and the order.
    scores : ScoresFile, optional
        Of the same source.
    config : CoresetConfig, optional
        How to select by them.
    sha256 : str, optional
        Of the images of `good`, which must then be those that were scored.
    left_out : int [m], optional
        Rows that are not to be chosen, whatever their score; `sample_prune` counts the others.

    Raises
    ------
    ConfigError
        A ratio that keeps nothing, or a beta that leaves too few images.
    ArtifactError
        The scores file is damaged, not finite, or of another source.
    """
    free = np.ones(len(good), bool) if left_out is None else ~np.isin(good, left_out)
    if scores is None:
        good = good[free]
        picked = random_coreset(source.labels[good], coreset_size(sample_prune, len(good)), seed=seed)
        chance = {"score": "random", "sampling": "random, stratified by class"}
        return Coreset(good[picked].astype(np.int64), None, chance)
    require_scores_of(scores, source, good, sha256)
    config = config or CoresetConfig()
    values = compute_scores(scores, config, seed=seed)[free]
    good = good[free]
    picked, facts = _Draw(source, good, config, sample_prune, seed).sample(values, scores, free)
    facts |= {"scores_sha256": file_sha256(scores.path), "scores_run": scores.provenance["config"]}
    stored = np.clip(values[picked], -np.finfo("f4").max, np.finfo("f4").max).astype("f4")
    return Coreset(good[picked].astype(np.int64), stored, facts)


def require_enough(
    source: Source, good: NDArray[np.integer[Any]], *, sample_prune: float, config: CoresetConfig
) -> None:
    """Raise `ConfigError` if beta leaves too few images, which shows before there are scores."""
    if config.sampled_by == "ccs":
        equal = np.zeros(len(good))
        _Draw(source, good, config, sample_prune, seed=0).stratified(equal, equal)


def compute_scores(scores: ScoresFile, config: CoresetConfig, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the score of every image of a scoring run, float64 [N].

    Raises
    ------
    ArtifactError
        The records that it needs are damaged, not finite, or none.
    """
    needs = SCORES[config.score].records
    if not needs:
        return formulas.random(len(scores.rows), seed=seed)
    array = scores.array(needs)
    try:
        if config.score == "joint_entropy":
            return formulas.joint_entropy(array, tau=config.tau, gamma=config.gamma, window=config.window)
        if config.score == "dual":
            return formulas.dual(array, epochs=config.dual_epochs)
        compute: Callable[[NDArray[Any]], NDArray[np.float64]] = getattr(formulas, config.score)
        return compute(array)
    except ConfigError as error:
        # The parameters were checked with the configuration, so it is the file.
        raise ArtifactError(f"{scores.path}: {error}; repeat: edgeprune score") from error


@dataclass(frozen=True, eq=False)
class _Draw:
    """The settings by which the images of a source are drawn."""

    source: Source
    good: NDArray[np.integer[Any]]
    config: CoresetConfig
    sample_prune: float
    seed: int

    def sample(
        self, values: NDArray[np.float64], scores: ScoresFile, free: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Return the selected samples in storage order, and what the selection depended on.

        `free` tells which of the scored images are drawn from, of which `values` has the scores.
        """
        end, how = SCORES[self.config.score].keep_end, self.config.sampled_by
        facts = {**asdict(self.config), "sampling": how, "keep_end": end, "drawn_from": len(values)}
        if self.config.score != "dual":
            del facts["dual_epochs"]
        if how == "top-k":
            count = coreset_size(self.sample_prune, len(values))
            picked = top_k(values, count, keep=end, labels=self._classes)
            # Packs store images in random order, so that a window of them is a fair sample.
            return np.random.default_rng(self.seed).permutation(picked), facts
        if how == "beta":
            means = scores.array("probabilities")[: self.config.dual_epochs].mean(axis=0, dtype=np.float64)
            return self._by_beta(values, means[free]), {**facts, "c_d": beta_exponent(self._family)}
        hard = hardness(compute_scores(scores, CoresetConfig(score="aum")), "aum")[free]
        return self.stratified(values, hard), {**facts, "beta": self._beta, "hardness": "aum"}

    def _by_beta(self, values: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.int64]:
        return beta_sampling(
            values,
            means,
            coreset_size(self.sample_prune, len(values)),
            sample_prune=self.sample_prune,
            c_d=beta_exponent(self._family),
            seed=self.seed,
            labels=self._classes,
        )

    def stratified(self, values: NDArray[np.float64], hard: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the samples that CCS draws."""
        return ccs(
            values,
            coreset_size(self.sample_prune, len(values)),
            hardness=hard,
            beta=self._beta,
            strata=self.config.strata,
            seed=self.seed,
            labels=self._classes,
        )

    @property
    def _beta(self) -> float:
        if self.config.beta is not None:
            return self.config.beta
        return ccs_beta(self.sample_prune, self._family)

    @property
    def _family(self) -> str:
        return data_family(len(self.source.class_names), *self.source.shape[1:])

    @property
    def _classes(self) -> NDArray[np.int64] | None:
        """The labels of the images that can be read, if classes are to keep their proportions."""
        return self.source.labels[self.good] if self.config.class_balance else None
