"""What some minutes of a network's own defaults buy on CIFAR-10, from a pack; resumable."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import click
import torch

from edgeprune import BuildConfig, build_pack
from edgeprune.inference.evaluation import evaluate
from edgeprune.inference.predictors import open_predictor
from edgeprune.training.evaluation import open_test
from edgeprune.training.reports import TerminalReport
from edgeprune_formats import Pack, open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.augmentation import LoaderAugment
from edgeprune_runtime.output_files import write_text
from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.defaults import defaults_of
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.profiling import profile

from ..harness.cells import pack_facts, pack_loader, pack_shape, train_steps
from ..harness.images import decoded_cifar10
from ..harness.markdown import Column, mean_and_range, render
from ..harness.results import save

__all__ = ["Settings", "own_settings", "recipe_sentence", "recipe_table", "run"]

MEASURED_STEPS, ROUNDS = 4, 3


@dataclass(frozen=True)
class Settings:
    """What is trained, and for how long.

    Attributes
    ----------
    model : str
        A network with defaults of its own, see `edgeprune_runtime.training.defaults`.
    minutes : float
        Of training; the test comes on top.
    seeds : int
        Runs.
    quality : float
        Of the pack.
    device : str
        As `TrainConfig`.
    """

    model: str
    minutes: float
    seeds: int
    quality: float
    device: str

    def config(self, seed: int) -> tuple[TrainConfig, LoaderAugment]:
        """Return the settings of one run, of a single epoch however long, and its augmentation."""
        return own_settings(self.model, seed, self.device)


def own_settings(model: str, seed: int, device: str) -> tuple[TrainConfig, LoaderAugment]:
    """Return what a network brings with it, for a single epoch however long, and its augmentation."""
    own = {"augment": "crop+flip", **defaults_of(model), "epochs": 1}
    augment: LoaderAugment = own.pop("augment")
    return TrainConfig(model=model, seed=seed, device=device, **own), augment


def run(settings: Settings, data: Path, output: Path, runs: Path, *, only_measure: bool = False) -> None:
    """Train, and save ``recipe-NETWORK.json``; or only settle how many steps the minutes allow."""
    source = f"npz:{decoded_cifar10(data, runs / 'cifar10-jpeg.npz')}"
    path = runs / f"cifar10-q{settings.quality:g}.h5"
    if not path.exists():
        build_pack(source, path, BuildConfig(quality=settings.quality))
    keep_freed_memory()
    with open_pack(path) as pack:
        steps = _steps(settings, pack, runs)
        if only_measure:
            return
        rows = [_row(settings, source, pack, runs, seed, steps) for seed in range(settings.seeds)]
        facts = {"train_images": len(pack), "pack_bytes": path.stat().st_size, **steps}
    results = {**asdict(settings), **facts, "config": asdict(settings.config(0)[0]), "rows": rows}
    click.echo(save(output, f"recipe-{settings.model}", results))


def _name(settings: Settings) -> str:
    precision = place(settings.config(0)[0]).precision
    return f"{settings.model}-q{settings.quality:g}-{settings.minutes:g}-{precision}"


def _loader(settings: Settings, pack: Pack, seed: int) -> PackLoader:
    config, augment = settings.config(seed)
    return pack_loader(pack, config, augment=augment)


def _steps(settings: Settings, pack: Pack, runs: Path) -> dict[str, Any]:
    """Return how many steps the minutes allow, so that only this short part wants a quiet machine."""
    config, _ = settings.config(0)
    path = runs / f"{_name(settings)}.json"
    if not path.exists():
        seconds = [
            profile(
                _loader(settings, pack, 0), config, **pack_shape(pack), steps=MEASURED_STEPS, operators=0
            ).step
            for _ in range(ROUNDS)
        ]
        step = median(seconds)
        threads = torch.get_num_threads()
        steps = max(1, int(60 * settings.minutes / step))
        write_text(path, json.dumps({"steps": steps, "step_seconds": step, "threads": threads}) + "\n")
    found: dict[str, Any] = json.loads(path.read_text())
    click.echo(
        f"{settings.model}: {1000 * found['step_seconds']:.0f} ms a step in {found['threads']} threads, "
        f"{found['steps']:,} steps in {settings.minutes:g} minutes",
        err=True,
    )
    return found


def _row(
    settings: Settings, source: str, pack: Pack, runs: Path, seed: int, steps: dict[str, Any]
) -> dict[str, Any]:
    folder, (config, _) = runs / f"{_name(settings)}-{seed}", settings.config(seed)
    told = f"{config.model}, {steps['steps']:,} steps, seed {seed}"
    metrics = train_steps(
        _loader(settings, pack, seed),
        steps["steps"],
        config,
        folder,
        **pack_facts(pack),
        test=open_test(source, pack.header),
        on_event=TerminalReport(1, told),
    )
    mirrored = evaluate(open_predictor(folder, tta="flip"), source)
    return {
        "seed": seed,
        "precision": place(config).precision,
        "passes": steps["steps"] * config.batch_size / len(pack),
        "trained_minutes": steps["steps"] * config.batch_size / metrics["images_per_second"] / 60,
        "mirrored_accuracy": mirrored.record()["accuracy"],
        **{name: metrics[name] for name in ("train_accuracy", "test_accuracy", "peak_memory_bytes")},
    }


def recipe_table(results: dict[str, Any]) -> list[str]:
    """Return the test accuracies of one network."""
    rows, batch = results["rows"], results["config"]["batch_size"]
    seeds = f"{len(rows)} seed{'s' * (len(rows) > 1)}"
    intro = (
        f"{results['model']} with its own default settings: as many steps as {results['minutes']:g} minutes "
        f"allow with {results['threads']} threads, {1000 * results['step_seconds']:.0f} ms each; {seeds}. "
        f"{results['train_images']:,} images of CIFAR-10 (decoded from a JPEG copy) in a pack of quality "
        f"{results['quality']:g}, {results['pack_bytes'] / 1e6:.1f} MB; batches of {batch}; tested on 10,000 "
        f"images of the same copy."
    )
    columns = [
        Column(f"{results['model']}, tested on", lambda row: row[0]),
        Column("test accuracy, %", lambda row: _accuracies(rows, row[1])),
        Column("steps", lambda row: results["steps"], "{:,}"),
        Column("each image seen", lambda row: mean(one["passes"] for one in rows), "{:.1f} times"),
        Column(
            "peak memory, MiB", lambda row: max(one["peak_memory_bytes"] for one in rows) / 2**20, "{:,.0f}"
        ),
    ]
    kinds = [
        ("images as they are", "test_accuracy"),
        ("images and their mirror images (`--tta flip`)", "mirrored_accuracy"),
    ]
    return render(columns, kinds, intro)


def recipe_sentence(results: dict[str, Any]) -> list[str]:
    """Return what the minutes buy, in a sentence."""
    rows = results["rows"]
    plain, mirrored = (_accuracies(rows, name) for name in ("test_accuracy", "mirrored_accuracy"))
    seeds = f"{len(rows)} seed{'s' * (len(rows) > 1)}"
    return [
        f"From a pack of {results['pack_bytes'] / 1e6:.1f} MB, `{results['model']}` learns CIFAR-10 (a JPEG "
        f"copy) to {plain}% of the test images, or {mirrored}% with their mirror images, in "
        f"{results['steps']:,} steps: as many as {results['minutes']:g} minutes allow with "
        f"{results['threads']} threads on quiet cores; {seeds}."
    ]


def _accuracies(rows: list[dict[str, Any]], name: str) -> str:
    found = [row[name] for row in rows]
    return mean_and_range(found) if len(found) > 1 else f"{100 * found[0]:.2f}"
