"""What some minutes of training buy: test accuracy from a 50% pack and from decoded pixels; resumable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import click
import numpy as np
import torch

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.training.evaluation import open_test
from edgeprune.training.reports import TerminalReport
from edgeprune.work.image_store import ImageStore
from edgeprune_formats import Pack, open_pack
from edgeprune_runtime.networks.names import Stem
from edgeprune_runtime.output_files import write_text
from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training import TrainConfig, TrainLoader
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.profiling import profile

from ..harness.cells import pack_facts, pack_loader, pack_shape, train_steps
from ..harness.images import decoded_cifar10
from ..harness.markdown import Column, mean_and_range, render
from ..harness.pixel_loader import PixelLoader
from ..harness.results import save

__all__ = ["Settings", "minutes_table", "run"]

SOURCES = {"pixels": "decoded pixels", "pack": "pack, half of the components"}
MEASURED_STEPS, ROUNDS = 8, 3


@dataclass(frozen=True)
class Settings:
    """What is compared, and for how long.

    Attributes
    ----------
    models : tuple of str
        Networks.
    minutes : float
        Of training, for each; the test comes on top.
    seeds : int
        Runs of each.
    batch_size : int
        Images in a step.
    lr : float
        Peak learning rate.
    device : str
        As `TrainConfig`.
    freq_prune : float
        Share of the components that the pack leaves out.
    stem : str
        Of the networks, as `TrainConfig`; their results have names of their own where it is not auto.
    """

    models: tuple[str, ...]
    minutes: float
    seeds: int
    batch_size: int
    lr: float
    device: str
    freq_prune: float = 0.5
    stem: Stem = "auto"

    @property
    def ending(self) -> str:
        """What the names of a stem that was asked for end in."""
        return "" if self.stem == "auto" else f"-{self.stem}"

    def config(self, model: str, seed: int) -> TrainConfig:
        """Return the settings of one run: a single epoch, however often it goes through the images."""
        return TrainConfig(
            model=model,
            stem=self.stem,
            epochs=1,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=seed,
            device=self.device,
        )


def run(settings: Settings, data: Path, output: Path, runs: Path) -> None:
    """Train each network from both, and save what the minutes bought: ``minutes-NETWORK.json``."""
    source = f"npz:{decoded_cifar10(data, runs / 'cifar10-jpeg.npz')}"
    path = runs / f"cifar10-{settings.freq_prune:g}.h5"
    if not path.exists():
        build_pack(source, path, BuildConfig(codec="sparse-f32", freq_prune=settings.freq_prune))
    keep_freed_memory()
    cells = {
        model: [
            (settings.config(model, seed), images) for seed in range(settings.seeds) for images in SOURCES
        ]
        for model in settings.models
    }
    with open_pack(path) as pack:
        facts = {"train_images": len(pack), "source": "cifar10-jpeg.npz"}
        for of_model in cells.values():
            _measure(settings, source, pack, runs, of_model)
        for model, of_model in cells.items():
            rows = [_cell(settings, source, pack, runs, config, images) for config, images in of_model]
            results = {**asdict(settings), "models": [model], **facts, "rows": rows}
            click.echo(save(output, f"minutes-{model}{settings.ending}", results))


def _folder(settings: Settings, runs: Path, config: TrainConfig, images: str) -> Path:
    return runs / f"{config.model}-{images}-{settings.minutes:g}-{config.seed}{settings.ending}"


def _measure(
    settings: Settings, source: str, pack: Pack, runs: Path, cells: Sequence[tuple[TrainConfig, str]]
) -> None:
    """Settle how many steps the minutes allow, so that only this short part wants a quiet machine.

    Settings take turns, and the median counts, for a machine that is not equally fast all the time.
    """
    chosen = {cell: _folder(settings, runs, *cell).with_suffix(".json") for cell in cells}
    missing = [cell for cell, path in chosen.items() if not path.exists()]
    seconds: dict[tuple[TrainConfig, str], list[float]] = {cell: [] for cell in missing}
    for config, images in missing * ROUNDS:
        measured = profile(
            _loader(source, pack, config, images),
            config,
            **pack_shape(pack),
            steps=MEASURED_STEPS,
            operators=0,
        )
        seconds[config, images].append(measured.step)
    for config, images in missing:
        step = median(seconds[config, images])
        steps = max(1, int(60 * settings.minutes / step))
        found = {"steps": steps, "step_seconds": step, "threads": torch.get_num_threads()}
        write_text(chosen[config, images], json.dumps(found) + "\n")
        click.echo(
            f"{config.model}, {SOURCES[images]}: {1000 * step:.0f} ms a step, {steps:,} steps", err=True
        )


def _cell(
    settings: Settings, source: str, pack: Pack, runs: Path, config: TrainConfig, images: str
) -> dict[str, Any]:
    folder, facts = _folder(settings, runs, config, images), pack_facts(pack)
    facts["provenance"]["way"] = images
    found = json.loads(folder.with_suffix(".json").read_text())
    told = f"{config.model}, {SOURCES[images]}, {found['steps']:,} steps, seed {config.seed}"
    metrics = train_steps(
        _loader(source, pack, config, images),
        found["steps"],
        config,
        folder,
        **facts,
        test=open_test(source, pack.header),
        on_event=TerminalReport(1, told),
    )
    count = found["steps"] * config.batch_size
    return {
        "model": config.model,
        "way": images,
        "seed": config.seed,
        "precision": place(config).precision,
        **found,
        "passes": count / len(pack),
        "minutes": count / metrics["images_per_second"] / 60,
        **{name: metrics[name] for name in ("train_accuracy", "test_accuracy", "peak_memory_bytes")},
    }


def _loader(source: str, pack: Pack, config: TrainConfig, images: str) -> TrainLoader:
    if images == "pack":
        return pack_loader(pack, config)
    originals = open_source(source)
    store = ImageStore(originals, np.arange(len(originals)), place(config).device)
    return PixelLoader(store, config.batch_size, (pack.header.mean, pack.header.std), seed=config.seed)


def minutes_table(results: dict[str, Any]) -> list[str]:
    """Return one network's test accuracies, and how often it saw the images."""
    (model,) = results["models"]
    intro = (
        f"{model}: {results['minutes']:g} minutes of training for each row, {results['rows'][0]['threads']} "
        f"threads; {results['train_images']:,} images of CIFAR-10 (decoded from a JPEG copy), batches of "
        f"{results['batch_size']}, {results['seeds']} seed{'s' * (results['seeds'] > 1)}; tested on 10,000 "
        f"images of the same copy."
    )
    columns = [
        Column(f"{model}, trained from", lambda rows: SOURCES[rows[0]["way"]]),
        Column("test accuracy, %", _accuracies),
        Column("train accuracy, %", lambda rows: 100 * _mean(rows, "train_accuracy"), "{:.1f}"),
        Column("step, ms", lambda rows: 1000 * _mean(rows, "step_seconds"), "{:.0f}"),
        Column("steps", lambda rows: _mean(rows, "steps"), "{:,.0f}"),
        Column("each image seen", lambda rows: _mean(rows, "passes"), "{:.1f} times"),
    ]
    groups = [[row for row in results["rows"] if row["way"] == name] for name in SOURCES]
    return render(columns, groups, intro)


def _mean(rows: list[dict[str, Any]], name: str) -> Any:
    return mean(row[name] for row in rows)


def _accuracies(rows: list[dict[str, Any]]) -> str:
    found = [row["test_accuracy"] for row in rows]
    return mean_and_range(found) if len(found) > 1 else f"{100 * found[0]:.1f}"
