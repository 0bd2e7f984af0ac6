"""What a coreset costs in accuracy: every score, sampled by CCS, against random and all images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from edgeprune import open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.sampling import top_k
from edgeprune.coresets.scores import SCORES, hardness
from edgeprune.coresets.selection import compute_scores, select_images
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.scores_file import ScoresFile
from edgeprune.sources import Source, SourceCheck, check_source

from ..harness.cells import measure_cells, score_images
from ..harness.deadline import Deadline
from ..harness.results import save
from .fixed_budget import Recipe, train_on

__all__ = ["Settings", "run"]

RATIOS = (0.5, 0.7, 0.8, 0.9)
SCORED = ("entropy", "forgetting", "el2n", "aum", "joint_entropy")


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
        The one run that gives all scores.
    seeds : int
        Coresets drawn, and networks trained, for each cell.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    source: str
    recipe: Recipe
    scoring: ScoreConfig
    seeds: int
    minutes: float | None

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        sampling = {name: asdict(_sampling(name)) for name in ("random", *SCORED)}
        return {
            "source": Path(self.source).name,
            "scoring": asdict(self.scoring),
            "sampling": sampling,
            **self.recipe.facts(),
        }


def run(settings: Settings, output: Path, runs: Path, name: str) -> None:
    """Fill the table and write ``NAME.json``; whatever `runs` holds is not done again.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    deadline = Deadline(settings.minutes)
    source, test = open_source(settings.source), open_source(settings.source, split="test")
    check = check_source(source)
    runs.mkdir(parents=True, exist_ok=True)
    scores_file = score_images(source, check, runs / "scores.h5", settings.scoring, deadline)

    def measure(method: str, ratio: float, seed: int) -> dict[str, Any]:
        rows = _coreset(method, ratio, seed, source, check, scores_file)
        accuracy = train_on(source, check, test, rows, settings.recipe, seed)
        click.echo(f"{method}, {ratio:.0%} pruned, seed {seed}: {accuracy:.2%}")
        place = {"method": method, "sample_prune": ratio, "seed": seed}
        return {**place, "images": len(rows), "test_accuracy": accuracy}

    cells = {
        f"{method}-{ratio}-{seed}": partial(measure, method, ratio, seed)
        for seed in range(settings.seeds)
        for method, ratio in [("full", 0.0), *_methods()]
    }
    rows = measure_cells(cells, runs, settings.facts(), deadline)
    accuracy = scores_file.provenance["history"][-1]["accuracy"]
    results = {
        "source": Path(settings.source).name.removesuffix(".npz"),
        "train_images": len(source),
        "test_images": len(test),
        "recipe": asdict(settings.recipe),
        "scoring": {**asdict(settings.scoring), "train_accuracy": accuracy},
        "rows": rows,
        "rank_correlation": _correlations(scores_file),
    }
    click.echo(save(output, name, results))


def _methods() -> list[tuple[str, float]]:
    ccs = [(method, ratio) for ratio in RATIOS for method in ("random", *SCORED)]
    return [*ccs, ("joint_entropy, better half", 0.5), ("joint_entropy, worse half", 0.5)]


def _coreset(
    method: str, ratio: float, seed: int, source: Source, check: SourceCheck, scores_file: ScoresFile
) -> NDArray[np.int64]:
    """Return the rows of a coreset."""
    if method == "full":
        return check.good.astype(np.int64)
    score, _, half = method.partition(", ")
    if half:
        scores = compute_scores(scores_file, CoresetConfig(score=score))
        # The worse half is the better one of the scores upside down.
        scores = scores if half == "better half" else -scores
        count = round(len(scores) * ratio)
        return scores_file.rows[top_k(scores, count, keep=SCORES[score].keep_end)]
    # Uniformly at random without regard to classes, as the published rows are.
    coreset = select_images(
        source,
        check.good,
        sample_prune=ratio,
        seed=seed,
        scores=scores_file,
        config=_sampling(score),
        sha256=check.sha256,
    )
    return coreset.rows


def _sampling(score: str) -> CoresetConfig:
    return (
        CoresetConfig(score="random", sampling="top-k") if score == "random" else CoresetConfig(score=score)
    )


def _correlations(scores_file: ScoresFile) -> dict[str, dict[str, float]]:
    """Return Spearman's rank correlation between scores, each pointing to its harder or better end."""
    values = {name: hardness(compute_scores(scores_file, CoresetConfig(score=name)), name) for name in SCORED}
    return {
        one: {other: float(spearmanr(values[one], values[other]).statistic) for other in SCORED}
        for one in SCORED
    }
