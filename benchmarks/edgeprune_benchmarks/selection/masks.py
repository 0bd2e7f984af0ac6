"""Learned masks against energy masks: what a classifier sees, and what can be learned."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.masks.classifier import Classifier, classifier_of_records
from edgeprune.masks.config import MaskConfig
from edgeprune.masks.fse_file import load_fse_net
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.run import run_scoring
from edgeprune.sources import check_source
from edgeprune.training.setup import train_pack
from edgeprune.work.progress import EpochLines
from edgeprune_formats import open_pack
from edgeprune_runtime import PackLoader

from ..harness.results import save

__all__ = ["Plan", "run"]

RATIOS = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Plan:
    """The scale of a comparison.

    Attributes
    ----------
    source : str
        The images, as `edgeprune.open_source` takes them.
    scoring : ScoreConfig
        Trains the classifier.
    masks : MaskConfig
        How FSE-Nets are learned.
    model, epochs, batch_size : str, int, int
        Networks that are trained from the packs.
    seeds : int
        Such networks for each pack.
    device : str
        For everything.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    source: str
    scoring: ScoreConfig
    masks: MaskConfig
    model: str
    epochs: int
    batch_size: int
    seeds: int
    device: str
    minutes: float | None


def run(plan: Plan, output: Path, runs: Path, name: str) -> None:
    """Fill the table and write ``NAME.json``; whatever `runs` holds is not done again."""
    started = time.monotonic()
    runs.mkdir(parents=True, exist_ok=True)
    source = open_source(plan.source)
    scores = runs / "scores.h5"
    records = run_scoring(source, check_source(source), scores, plan.scoring, report=EpochLines())
    classifier = classifier_of_records(records)
    jobs = [("none", 0.0), *((mask, ratio) for ratio in RATIOS for mask in ("energy", "learned"))]
    rows: list[dict[str, Any]] = []
    for mask, ratio in jobs:
        pack = _pack(plan, mask, ratio, scores, runs)
        row = {"mask": mask, "freq_prune": ratio, **_seen(pack, classifier, plan.device)}
        if mask == "learned":
            row["history"] = load_fse_net(pack.with_suffix(".fse-net.safetensors"))[1]["history"]
        row["test_accuracy"] = []
        for seed in range(plan.seeds):
            if plan.minutes is not None and time.monotonic() - started > 60 * plan.minutes:
                click.echo(f"{len(rows)} of {len(jobs)} rows are done; run the same command to go on")
                return
            row["test_accuracy"].append(_trained(plan, pack, runs, seed))
        click.echo(str({key: value for key, value in row.items() if key != "history"}))
        rows.append(row)
    results = {
        "source": Path(plan.source).name.removesuffix(".npz"),
        "train_images": len(source),
        "test_images": len(open_source(plan.source, split="test")),
        "plan": {**asdict(plan), "source": Path(plan.source).name},
        "classifier": classifier.facts,
        "rows": rows,
    }
    click.echo(save(output, name, results))


def _pack(plan: Plan, mask: str, ratio: float, scores: Path, runs: Path) -> Path:
    epochs = f"-{plan.masks.epochs}" if mask == "learned" else ""
    path = runs / f"{mask}-{ratio}{epochs}.h5"
    if not path.exists():
        method = "lf" if mask == "learned" else "energy"
        config = BuildConfig(method=method, freq_prune=ratio, masks=plan.masks, device=plan.device)
        given = scores if mask == "learned" else None
        build_pack(plan.source, path, config, scores=given, report=EpochLines())
    return path


@torch.no_grad()
def _seen(path: Path, classifier: Classifier, device: str) -> dict[str, Any]:
    """Return what the classifier, trained on whole images, makes of the pack's images, and their PSNR."""
    loader = PackLoader(
        path, 256, backend="torch", device=device, normalize=(classifier.mean, classifier.std)
    )
    entropy = correct = 0.0
    model = classifier.model
    for images, labels in loader:
        model = model.to(images.device)
        logs = model(images).log_softmax(dim=1).double()
        entropy -= float((logs.exp() * logs).sum())
        correct += float((logs.argmax(1) == labels).sum())
    pack = open_pack(path)
    return {
        "components": pack.header.components,
        "psnr_db": pack.header.provenance["result"]["psnr_db"],
        "entropy": entropy / len(pack),
        "classifier_accuracy": correct / len(pack),
    }


def _trained(plan: Plan, pack: Path, runs: Path, seed: int) -> float:
    click.echo(f"training from {pack.name}, seed {seed}")
    metrics = train_pack(
        open_pack(pack),
        runs / f"{pack.stem}-{plan.model}-{plan.epochs}-{seed}",
        test=plan.source,
        resume=True,
        augment="crop+flip",
        model=plan.model,
        epochs=plan.epochs,
        batch_size=plan.batch_size,
        lr=0.05,
        seed=seed,
        device=plan.device,
    )
    return float(metrics["test_accuracy"])
