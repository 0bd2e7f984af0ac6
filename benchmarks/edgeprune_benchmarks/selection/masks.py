"""Learned masks against energy masks: what a classifier sees, and what can be learned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.masks.classifier import classifier_from_scores
from edgeprune.masks.config import MaskConfig
from edgeprune.masks.fse_file import load_fse_net
from edgeprune.scoring.config import ScoreConfig
from edgeprune.sources import check_source
from edgeprune.work.progress import EpochLines
from edgeprune_formats import open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.networks.trained import TrainedNetwork

from ..harness.cells import score_images, train_epochs
from ..harness.deadline import Deadline
from ..harness.results import save

__all__ = ["Settings", "run"]

RATIOS = (0.5, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Settings:
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


def run(settings: Settings, output: Path, runs: Path, name: str) -> None:
    """Fill the table and write ``NAME.json``; whatever `runs` holds is not done again.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    deadline = Deadline(settings.minutes)
    runs.mkdir(parents=True, exist_ok=True)
    source, scores = open_source(settings.source), runs / "scores.h5"
    scores_file = score_images(source, check_source(source), scores, settings.scoring, deadline)
    classifier = classifier_from_scores(scores_file)
    pairs = [("none", 0.0), *((mask, ratio) for ratio in RATIOS for mask in ("energy", "learned"))]
    rows = [_row(settings, mask, ratio, classifier, scores, deadline) for mask, ratio in pairs]
    results = {
        "source": Path(settings.source).name.removesuffix(".npz"),
        "train_images": len(source),
        "test_images": len(open_source(settings.source, split="test")),
        "plan": {**asdict(settings), "source": Path(settings.source).name},
        "classifier": classifier.identity(),
        "rows": rows,
    }
    click.echo(save(output, name, results))


def _row(
    settings: Settings, mask: str, ratio: float, classifier: TrainedNetwork, scores: Path, deadline: Deadline
) -> dict[str, Any]:
    pack = _pack(settings, mask, ratio, scores, deadline)
    row = {"mask": mask, "freq_prune": ratio, **_seen(pack, classifier, settings.device)}
    if mask == "learned":
        row["history"] = load_fse_net(pack.with_suffix(".fse-net.safetensors"))[1]["history"]
    row["test_accuracy"] = [_trained(settings, pack, seed, deadline) for seed in range(settings.seeds)]
    click.echo(str({key: value for key, value in row.items() if key != "history"}))
    return row


def _pack(settings: Settings, mask: str, ratio: float, scores: Path, deadline: Deadline) -> Path:
    epochs = f"-{settings.masks.epochs}" if mask == "learned" else ""
    path = scores.with_name(f"{mask}-{ratio}{epochs}.h5")
    if not path.exists():
        method = "lf" if mask == "learned" else "energy"
        config = BuildConfig(
            method=method,
            codec="sparse-f32",
            freq_prune=ratio,
            masks=settings.masks,
            device=settings.device,
        )
        given = scores if mask == "learned" else None
        with deadline.stopping():
            build_pack(settings.source, path, config, scores=given, report=deadline.watched(EpochLines()))
    return path


@torch.no_grad()
def _seen(path: Path, classifier: TrainedNetwork, device: str) -> dict[str, Any]:
    """Return what the classifier, trained on whole images, makes of the pack's images, and their PSNR."""
    loader = PackLoader(
        path, 256, backend="torch", device=device, normalize=(classifier.mean, classifier.std)
    )
    entropy = correct = 0.0
    network = classifier.model
    for images, labels in loader:
        network = network.to(images.device)
        logs = network(images).log_softmax(dim=1).double()
        entropy -= float((logs.exp() * logs).sum())
        correct += float((logs.argmax(1) == labels).sum())
    pack = open_pack(path)
    return {
        "components": pack.header.components,
        "psnr_db": pack.header.provenance["result"]["psnr_db"],
        "entropy": entropy / len(pack),
        "classifier_accuracy": correct / len(pack),
    }


def _trained(settings: Settings, pack: Path, seed: int, deadline: Deadline) -> float:
    click.echo(f"training from {pack.name}, seed {seed}")
    with deadline.stopping():
        metrics = train_epochs(
            pack,
            pack.with_name(f"{pack.stem}-{settings.model}-{settings.epochs}-{seed}"),
            settings.source,
            model=settings.model,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=seed,
            device=settings.device,
        )
    return float(metrics["test_accuracy"])
