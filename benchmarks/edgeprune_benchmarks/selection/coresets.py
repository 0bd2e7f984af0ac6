"""What a coreset costs in accuracy: every score, sampled as published, against random and all images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.sampling import top_k
from edgeprune.coresets.scores import SCORES, hardness
from edgeprune.coresets.scores import random as noise
from edgeprune.coresets.selection import compute_scores, select_images
from edgeprune.presets import coreset_size
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.scores_file import ScoresFile
from edgeprune.sources import Source, SourceCheck, check_source

from ..harness.cells import count_cells, measure_cells, restore_cells, score_images
from ..harness.deadline import Deadline
from ..harness.results import save
from .fixed_budget import Recipe, train_on

__all__ = ["Settings", "run"]

RATIOS = (0.5, 0.7, 0.8, 0.9)
SCORED = ("entropy", "forgetting", "el2n", "aum", "joint_entropy", "dyn_unc", "dual")
METHODS = ("random", *SCORED)
UNSCORED = ("full", "random")
_ABOUT_SCORES = ("scoring", "rank_correlation")


@dataclass(frozen=True)
class Settings:
    """The scale of a comparison.

    Attributes
    ----------
    source : str
        The images, as `edgeprune.open_source` takes them.
    recipe : Recipe
        How networks are trained.
    scoring : ScoreConfig
        The run that gives all scores.
    seeds : int
        Coresets drawn, and networks trained, for each cell.
    minutes : float or None
        Stop after so long; the same command goes on.
    score_runs : int
        Scoring runs, each with a seed of its own, that the seeds take in turn.
    methods, ratios : tuple
        Rows and columns of the table.
    dual_epochs : int
        See `edgeprune.coresets.config.CoresetConfig`.
    """

    source: str
    recipe: Recipe
    scoring: ScoreConfig
    seeds: int
    minutes: float | None
    score_runs: int = 1
    methods: tuple[str, ...] = METHODS
    ratios: tuple[float, ...] = RATIOS
    dual_epochs: int = CoresetConfig.dual_epochs

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        sampling = {name: asdict(self.sampling(name)) for name in METHODS}
        return {
            "score_runs": self.score_runs,
            "source": Path(self.source).name,
            "scoring": asdict(self.scoring),
            "sampling": sampling,
            **self.recipe.facts(),
        }

    def sampling(self, score: str) -> CoresetConfig:
        """Return how images are chosen by a score."""
        # Uniformly at random without regard to classes, as the published rows are.
        how = "top-k" if score == "random" else None
        return CoresetConfig(score=score, sampling=how, dual_epochs=self.dual_epochs)

    def cells(self) -> list[tuple[str, float, int]]:
        """Return the method, the ratio and the seed of each cell, seed by seed."""
        halves = [(f"joint_entropy, {half} half", 0.5) for half in ("better", "worse")]
        places = [(method, ratio) for ratio in self.ratios for method in self.methods]
        places += halves if "joint_entropy" in self.methods and 0.5 in self.ratios else []
        return [(*place, seed) for seed in range(self.seeds) for place in [("full", 0.0), *places]]


def run(settings: Settings, output: Path, runs: Path, name: str) -> None:
    """Fill the table, and write ``NAME.json`` after each cell; whatever `runs` holds is not done again.

    Nor is what a ``NAME.json`` of the same settings holds. What that has of other methods, ratios and seeds
    stays in it.

    A scoring run is made when the first coreset needs it: all images, and images drawn at random, need none.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    deadline = Deadline(settings.minutes)
    source, test = open_source(settings.source), open_source(settings.source, split="test")
    check = check_source(source)
    runs.mkdir(parents=True, exist_ok=True)
    before = restore_cells(output / f"{name}.json", runs, settings.facts())

    @cache
    def scored(number: int) -> ScoresFile:
        config = replace(settings.scoring, seed=settings.scoring.seed + number)
        return score_images(source, check, _scores_path(runs, number), config, deadline)

    def measure(method: str, ratio: float, seed: int) -> dict[str, Any]:
        if method in UNSCORED:
            rows = _drawn(check.good, ratio, seed)
        else:
            rows = _coreset(settings, method, ratio, seed, source, check, scored(seed % settings.score_runs))
        accuracy = train_on(source, check, test, rows, settings.recipe, seed)
        click.echo(f"{method}, {ratio:.0%} pruned, seed {seed}: test accuracy {accuracy:.2%}")
        place = {"method": method, "sample_prune": ratio, "seed": seed}
        return {**place, "images": len(rows), "test_accuracy": accuracy}

    cells = {"-".join(map(str, place)): partial(measure, *place) for place in settings.cells()}
    about = _about(settings, source, test) | {"cells": count_cells(cells, before)}

    def keep(rows: list[dict[str, Any]]) -> None:
        numbers = sorted({row["seed"] % settings.score_runs for row in rows if row["method"] not in UNSCORED})
        if all(_scores_path(runs, number).exists() for number in numbers):
            scoring = _about_scores(settings, [scored(number) for number in numbers])
        else:  # The scoring runs of restored cells are gone.
            scoring = {key: before[key] for key in _ABOUT_SCORES if key in before}
        save(output, name, {**about, **scoring, "rows": rows})

    keep(measure_cells(cells, runs, settings.facts(), deadline, keep, before))
    click.echo(output / f"{name}.json")


def _about(settings: Settings, source: Source, test: Source) -> dict[str, Any]:
    return {
        "source": Path(settings.source).name.removesuffix(".npz"),
        "train_images": len(source),
        "test_images": len(test),
        "recipe": asdict(settings.recipe),
        "score_runs": settings.score_runs,
        "cell_settings": settings.facts(),
    }


def _scores_path(runs: Path, number: int) -> Path:
    return runs / ("scores.h5" if number == 0 else f"scores-{number}.h5")


def _drawn(good: NDArray[np.integer[Any]], ratio: float, seed: int) -> NDArray[np.int64]:
    """Return rows drawn without regard to classes, as the published ones are, ascending; of ratio 0 all."""
    drawn = top_k(noise(len(good), seed=seed), coreset_size(ratio, len(good)), keep="high")
    return good[np.sort(drawn)].astype(np.int64)


def _coreset(
    settings: Settings,
    method: str,
    ratio: float,
    seed: int,
    source: Source,
    check: SourceCheck,
    scores_file: ScoresFile,
) -> NDArray[np.int64]:
    """Return the rows of a coreset by a score."""
    score, _, half = method.partition(", ")
    if half:
        scores = compute_scores(scores_file, CoresetConfig(score=score))
        # The worse half is the better one of the scores upside down.
        scores = scores if half == "better half" else -scores
        count = round(len(scores) * ratio)
        return scores_file.rows[top_k(scores, count, keep=SCORES[score].keep_end)]
    coreset = select_images(
        source,
        check.good,
        sample_prune=ratio,
        seed=seed,
        scores=scores_file,
        config=settings.sampling(score),
        sha256=check.sha256,
    )
    return coreset.rows


def _about_scores(settings: Settings, files: list[ScoresFile]) -> dict[str, Any]:
    """Return how the scoring runs were made and how their scores agree, if there are any."""
    if not files:
        return {}
    accuracy = float(np.mean([one.provenance["history"][-1]["accuracy"] for one in files]))
    scoring = {**asdict(settings.scoring), "train_accuracy": accuracy}
    return dict(zip(_ABOUT_SCORES, (scoring, _correlations(files[0])), strict=True))


def _correlations(scores_file: ScoresFile) -> dict[str, dict[str, float]]:
    """Return Spearman's rank correlation between scores, each pointing to its harder or better end."""
    from scipy.stats import spearmanr  # A second, which most commands need not wait.

    values = {name: hardness(compute_scores(scores_file, CoresetConfig(score=name)), name) for name in SCORED}
    return {
        one: {other: float(spearmanr(values[one], values[other]).statistic) for other in SCORED}
        for one in SCORED
    }
