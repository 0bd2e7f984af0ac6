"""What JPEG copies cost a network that starts the same from exact pixels and from copies; resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.inference.evaluation import evaluate
from edgeprune.inference.predictors import open_predictor
from edgeprune_formats import open_pack
from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training.placement import place

from ..codec.budgets import COPIES, reencoded
from ..codec.packs import ImageSet
from ..codec.quality import psnr
from ..harness.cells import count_cells, measure_cells, pack_facts, pack_loader, restore_cells, train_steps
from ..harness.deadline import Deadline
from ..harness.images import all_lossless, write_npz
from ..harness.markdown import Column, apart, mean_and_range, render
from ..harness.results import save
from .recipe import own_settings

__all__ = ["EXACT", "KINDS", "Settings", "copies_table", "run"]

EXACT = "exact pixels"
KINDS = (EXACT, "JPEG copies")


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes
    ----------
    model : str
        A network, trained by its own settings where it has some.
    steps : int
        Of each run, in one fall of the learning rate.
    seeds : int
        Runs from each kind of images; one seed gives both the same weights, order and crops.
    quality : float
        Of the packs.
    device : str
        As `TrainConfig`.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    model: str
    steps: int
    seeds: int
    quality: float
    device: str
    minutes: float | None

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        config, augment = own_settings(self.model, 0, self.device)
        placed = place(config)
        facts = {"steps": self.steps, "quality": self.quality, "training": asdict(config), "augment": augment}
        return facts | {"precision": placed.precision, "device": placed.device.type}


def run(settings: Settings, data: Path, output: Path, runs: Path) -> None:
    """Train from both kinds of images with every seed, and write ``copies-MODEL.json`` after each network.

    Raises
    ------
    OutOfTimeError
        The time was over before the end; whatever `runs` holds is not done again.
    """
    keep_freed_memory()
    sources = {EXACT: all_lossless(data, runs / "exact.npz")}
    sources[KINDS[1]] = _copies(sources[EXACT], runs / "copies.npz")
    packs = {kind: runs / f"{kind.replace(' ', '-')}-q{settings.quality:g}.h5" for kind in KINDS}
    for kind, path in packs.items():
        if not path.exists():
            build_pack(f"npz:{sources[kind]}", path, BuildConfig(quality=settings.quality))
    cells = {
        f"{settings.model}-{seed}-{number}": partial(_train, settings, sources, packs[kind], runs, kind, seed)
        for seed in range(settings.seeds)
        for number, kind in enumerate(KINDS)
    }
    told, name = settings.facts(), f"copies-{settings.model}"
    before = restore_cells(output / f"{name}.json", runs, told)
    facts = {**_counts(sources), "cells": count_cells(cells, before), "cell_settings": told}
    settings_told = {key: value for key, value in asdict(settings).items() if key != "minutes"}

    def tell(rows: list[dict[str, Any]]) -> None:
        click.echo(save(output, name, {**settings_told, **facts, "rows": rows}))

    tell(measure_cells(cells, runs, told, Deadline(settings.minutes), tell, before))


def _copies(exact: Path, path: Path) -> Path:
    """Write the JPEG copies of both splits of an npz file to another, and return it."""
    if path.exists():
        return path
    arrays: dict[str, NDArray[Any]] = {}
    for split in ("train", "test"):
        images = reencoded(ImageSet.of(open_source(f"npz:{exact}", split=split), split))
        arrays |= {f"x_{split}": images.pixels, f"y_{split}": images.labels}
    return write_npz(path, arrays)


def _counts(sources: dict[str, Path]) -> dict[str, Any]:
    """Return how many images there are, and how near the copies are to the exact pixels."""
    with np.load(sources[EXACT]) as exact, np.load(sources[KINDS[1]]) as copies:
        test = exact["x_test"]
        found = psnr(copies["x_test"], test)
        counts = {"train_images": len(exact["x_train"]), "test_images": len(test)}
        return {**counts, "psnr_db": found, "copies": COPIES}


def _train(
    settings: Settings, sources: dict[str, Path], path: Path, runs: Path, kind: str, seed: int
) -> dict[str, Any]:
    folder = runs / f"{settings.model}-q{settings.quality:g}-{settings.steps}-{seed}-{KINDS.index(kind)}"
    config, augment = own_settings(settings.model, seed, settings.device)
    with open_pack(path) as pack:
        loader = pack_loader(pack, config, augment=augment)
        metrics = train_steps(loader, settings.steps, config, folder, **pack_facts(pack))
    network = open_predictor(folder)
    accuracies = {of: evaluate(network, f"npz:{sources[of]}").record()["accuracy"] for of in KINDS}
    told = ", ".join(f"{accuracy:.2%} on {of}" for of, accuracy in accuracies.items())
    click.echo(f"{settings.model}, seed {seed}, from {kind}: test accuracy {told}")
    row = {"images": kind, "seed": seed, "test_accuracy": accuracies[kind]}
    row |= {f"accuracy on {of}": accuracy for of, accuracy in accuracies.items()}
    return row | {name: metrics[name] for name in ("train_accuracy", "train_loss")}


def copies_table(results: dict[str, Any]) -> list[str]:
    """Return the accuracies from each kind of images on both, and what the copies cost."""
    rows, told = results["rows"], results["cell_settings"]

    def shown(key: str) -> Callable[[str], str]:
        return lambda kind: mean_and_range([row[key] for row in rows if row["images"] == kind])

    columns = [
        Column(f"{results['model']}, trained from a pack of", str),
        Column("seeds", lambda kind: sum(row["images"] == kind for row in rows)),
        *(Column(f"accuracy on {kind}, %", shown(f"accuracy on {kind}")) for kind in KINDS),
        Column("train accuracy, %", shown("train_accuracy")),
        Column(
            "tested on its own kind, difference to exact pixels, points",
            lambda kind: apart(rows, kind, EXACT),
        ),
    ]
    batch = told["training"]["batch_size"]
    codec, quality = results["copies"]
    intro = (
        f"{results['model']} with its own default settings, {results['steps']:,} batches of {batch}, "
        f"{told['precision']}: each image is seen "
        f"{results['steps'] * batch / results['train_images']:.1f} times. {results['train_images']:,} images "
        f"of CIFAR-10, tested on {results['test_images']:,}. The copies are {codec} files of quality "
        f"{quality}, with {results['psnr_db']:.1f} dB. Both kinds are stored in packs of quality "
        f"{results['quality']:g}. With the same seed both rows have the same random weights, order and "
        f"crops. Mean (lowest to highest) of the seeds; for the difference, mean and 95% interval."
    )
    return render(columns, list(KINDS), intro)
