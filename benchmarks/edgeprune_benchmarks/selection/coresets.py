"""What a coreset costs in accuracy: every score, sampled by CCS, against random and all images.

Each cell of the table is a file in the folder of runs, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from edgeprune import BuildConfig, open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.sampling import top_k
from edgeprune.coresets.scores import SCORES, hardness
from edgeprune.coresets.selection import choose_images, compute_scores
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.run import run_scoring
from edgeprune.scoring.scores_file import ScoreRecords
from edgeprune.sources import Source, SourceCheck, check_source
from edgeprune.work.progress import EpochLines
from edgeprune_runtime.training.checkpoint import write_text

from ..harness.results import save
from .fixed_budget import Recipe, train_on

__all__ = ["Plan", "run"]

RATIOS = (0.5, 0.7, 0.8, 0.9)
SCORED = ("entropy", "forgetting", "el2n", "aum", "joint_entropy")


@dataclass(frozen=True)
class Plan:
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


def run(plan: Plan, output: Path, runs: Path, name: str) -> None:
    """Fill the table and write ``NAME.json``; whatever `runs` holds is not done again."""
    started = time.monotonic()
    source, test = open_source(plan.source), open_source(plan.source, split="test")
    check = check_source(source)
    runs.mkdir(parents=True, exist_ok=True)
    report = EpochLines()
    records = run_scoring(source, check, runs / "scores.h5", plan.scoring, report=report)
    cells = [
        (method, ratio, seed) for seed in range(plan.seeds) for method, ratio in [("full", 0.0), *_methods()]
    ]
    rows: list[dict[str, Any]] = []
    longest = 0.0
    for method, ratio, seed in cells:
        path = runs / f"{method}-{ratio}-{seed}.json"
        if not path.exists():
            began = time.monotonic()
            if plan.minutes is not None and began - started + longest > 60 * plan.minutes:
                click.echo(f"{len(rows)} of {len(cells)} cells are done; run the same command to go on")
                return
            chosen = _choose(method, ratio, seed, source, check, records)
            accuracy = train_on(source, test, chosen, plan.recipe, seed)
            cell = {"method": method, "sample_prune": ratio, "seed": seed, "images": len(chosen)}
            settings = {"recipe": asdict(plan.recipe), "scoring": asdict(plan.scoring)}
            write_text(path, json.dumps({**cell, "settings": settings, "test_accuracy": accuracy}))
            click.echo(f"{method}, {ratio:.0%} pruned, seed {seed}: {accuracy:.2%}")
            longest = max(longest, time.monotonic() - began)
        rows.append(_read(path, plan))
    results = {
        "source": Path(plan.source).name.removesuffix(".npz"),
        "train_images": len(source),
        "test_images": len(test),
        "recipe": asdict(plan.recipe),
        "scoring": {**asdict(plan.scoring), "train_accuracy": records.provenance["history"][-1]["accuracy"]},
        "rows": rows,
        "rank_correlation": _correlations(records),
    }
    click.echo(save(output, name, results))


def _methods() -> list[tuple[str, float]]:
    ccs = [(method, ratio) for ratio in RATIOS for method in ("random", *SCORED)]
    return [*ccs, ("joint_entropy, better half", 0.5), ("joint_entropy, worse half", 0.5)]


def _choose(
    method: str, ratio: float, seed: int, source: Source, check: SourceCheck, records: ScoreRecords
) -> NDArray[np.int64]:
    """Return the rows of a coreset."""
    if method == "full":
        return check.good.astype(np.int64)
    score, _, half = method.partition(", ")
    if half:
        scores = compute_scores(records, CoresetConfig(score=score))
        # The worse half is the better one of the scores upside down.
        scores = scores if half == "better half" else -scores
        count = round(len(scores) * ratio)
        return records.rows[top_k(scores, count, keep=SCORES[score].keep_end)]
    # Uniformly at random without regard to classes, as the published rows are.
    config = BuildConfig(method="je", sample_prune=ratio, seed=seed, coreset=_coreset(score))
    return choose_images(source, check, config, records).rows


def _coreset(score: str) -> CoresetConfig:
    return (
        CoresetConfig(score="random", sampling="top-k") if score == "random" else CoresetConfig(score=score)
    )


def _read(path: Path, plan: Plan) -> dict[str, Any]:
    cell: dict[str, Any] = json.loads(path.read_text())
    if cell.pop("settings") != {"recipe": asdict(plan.recipe), "scoring": asdict(plan.scoring)}:
        raise click.ClickException(f"{path} is of other settings; remove it or name another folder")
    return cell


def _correlations(records: ScoreRecords) -> dict[str, dict[str, float]]:
    """Return Spearman's rank correlation between scores, each pointing to its harder or better end."""
    values = {name: hardness(compute_scores(records, CoresetConfig(score=name)), name) for name in SCORED}
    return {
        one: {other: float(spearmanr(values[one], values[other]).statistic) for other in SCORED}
        for one in SCORED
    }
