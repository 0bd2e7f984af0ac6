"""Whether a network learns less from a pack than from pixels: the same start, order and crops; resumable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.psnr import psnr_db
from edgeprune_formats import open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.placement import place

from ..harness.cells import count_cells, measure_cells, restore_cells, train_epochs
from ..harness.deadline import Deadline
from ..harness.images import lossless
from ..harness.markdown import Column, apart, mean_and_range, render
from ..harness.results import save

__all__ = ["PACKS", "Settings", "accuracy_table", "run"]

PIXELS = "original pixels"
PACKS = {
    PIXELS: BuildConfig(codec="sparse-f32", freq_prune=0),
    "the same, rounded (float16)": BuildConfig(codec="sparse-f16", freq_prune=0),
    "pack, half of the components": BuildConfig(codec="sparse-f32", freq_prune=0.5),
}
"""What is trained from. The second is the control: no eye sees its error, and what parts it is chance."""


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes
    ----------
    model : str
        A network.
    epochs, batch_size : int
        Of each run.
    seeds : int
        Runs from each pack; one seed gives all of them the same weights, order and augmentation.
    device : str
        As `TrainConfig`.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    model: str
    epochs: int
    batch_size: int
    seeds: int
    device: str
    minutes: float | None

    def config(self, seed: int) -> dict[str, Any]:
        """Return the fields of `TrainConfig` of one run."""
        of = ("model", "epochs", "batch_size", "device")
        return {name: getattr(self, name) for name in of} | {"seed": seed}

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        config = TrainConfig(**self.config(0))
        packs = {name: asdict(of) for name, of in PACKS.items()}
        placed = place(config)
        training = asdict(config) | {"precision": placed.precision}
        return {"training": training, "packs": packs, "device": placed.device.type}


def run(settings: Settings, data: Path, output: Path, runs: Path) -> None:
    """Train from every pack with every seed, and write ``accuracy-MODEL.json`` after each network.

    Raises
    ------
    OutOfTimeError
        The time was over before the end; whatever `runs` holds is not done again.
    """
    source = f"npz:{lossless(data)}"
    runs.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    packs = {name: runs / f"{number}.h5" for number, name in enumerate(PACKS)}
    for name, path in packs.items():
        if not path.exists():
            build_pack(source, path, PACKS[name])
    facts = {
        "train_images": len(open_pack(packs[PIXELS])),
        "test_images": len(open_source(source, split="test")),
        "psnr": _psnr(source, packs),
    }
    cells = {
        f"{settings.model}-{seed}-{number}": partial(_train, settings, source, packs[name], runs, name, seed)
        for seed in range(settings.seeds)
        for number, name in enumerate(packs)
    }
    told = {"source": lossless(data).name, **settings.facts()}
    before = restore_cells(output / f"accuracy-{settings.model}.json", runs, told)

    def tell(rows: list[dict[str, Any]]) -> None:
        found = {key: value for key, value in asdict(settings).items() if key != "minutes"}
        precision = place(TrainConfig(**settings.config(0))).precision
        about = {**found, "precision": precision, **facts, "cells": count_cells(cells, before)}
        click.echo(save(output, f"accuracy-{settings.model}", {**about, "cell_settings": told, "rows": rows}))

    tell(measure_cells(cells, runs, told, Deadline(settings.minutes), tell, before))


def _psnr(source: str, packs: dict[str, Path]) -> dict[str, float | None]:
    """Return the PSNR of each pack's images, in dB; None where no value of a pixel is rounded otherwise."""
    opened, found = open_source(source), {}
    for name, path in packs.items():
        loader = PackLoader(path, 256, backend="scipy")
        decoded = np.concatenate([batch for batch, _ in loader])
        pixels = opened.read(loader.pack.source_index.astype(np.intp))
        error = float(np.square(decoded - pixels / 255).sum())
        exact = np.array_equal(np.rint(255 * decoded), pixels)
        found[name] = None if exact else psnr_db(error, decoded.size)
    return found


def _train(settings: Settings, source: str, pack: Path, runs: Path, name: str, seed: int) -> dict[str, Any]:
    folder = runs / f"{settings.model}-{seed}-{list(PACKS).index(name)}"
    metrics = train_epochs(pack, folder, source, **settings.config(seed))
    click.echo(f"{settings.model}, seed {seed}, {name}: test accuracy {metrics['test_accuracy']:.2%}")
    kept = ("test_accuracy", "test_loss", "train_accuracy", "images_per_second")
    return {"images": name, "seed": seed, **{key: metrics[key] for key in kept}}


def accuracy_table(results: dict[str, Any]) -> list[str]:
    """Return the accuracies from each pack, and how far they are from those of the pixels."""
    rows = results["rows"]

    def of(images: str, key: str) -> list[float]:
        return [row[key] for row in rows if row["images"] == images]

    columns = [
        Column(f"{results['model']}, trained from", str),
        Column("PSNR, dB", results["psnr"].get, "{:.1f}", none="exact"),
        Column("seeds", lambda images: len(of(images, "seed"))),
        Column("test accuracy, %", lambda images: mean_and_range(of(images, "test_accuracy"))),
        Column("train accuracy, %", lambda images: mean_and_range(of(images, "train_accuracy"))),
        Column("test accuracy, difference to pixels, points", lambda images: apart(rows, images, PIXELS)),
    ]
    # Older results do not say how many.
    tested = f"{results['test_images']:,} " if "test_images" in results else ""
    intro = (
        f"{results['train_images']:,} images in exact pixels, {results['epochs']} epochs, batches of "
        f"{results['batch_size']}, {results['precision']}; tested on {tested}original images. With the "
        f"same seed all rows have the same initial weights, order and crops. Mean (lowest to highest) of the "
        f"seeds; for differences, mean and 95% interval."
    )
    return render(columns, list(results["psnr"]), intro)
