"""What pruning costs in accuracy: the same network and seed, from a pack and from original pixels."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune_formats import EdgePruneError, open_pack
from edgeprune_runtime import PackLoader

from ..harness.cells import train_epochs
from ..harness.images import lossless
from ..harness.results import save

__all__ = ["run"]

MODELS = ("shufflenet_v2", "mobilenet_v2", "efficientnet_b0")
RATIOS = (0.0, 0.5)


def run(data: Path, output: Path, *, epochs: int, seeds: int, device: str, runs: Path) -> None:
    """Train every network from both packs with every seed, going on where an earlier call stopped."""
    source = f"npz:{lossless(data)}"
    packs = {ratio: _pack(source, ratio, runs) for ratio in RATIOS}
    _check_pixels(source, packs[0.0])
    rows = []
    for model in MODELS:
        for seed in range(seeds):
            for ratio, pack in packs.items():
                folder = runs / f"{model}-{ratio}-{epochs}-{seed}"
                rows.append(_train(source, pack, folder, model, ratio, epochs, seed, device))
    results = {"epochs": epochs, "train_images": len(open_pack(packs[0.0])), "device": device, "rows": rows}
    click.echo(save(output, "accuracy", results))


def _pack(source: str, ratio: float, runs: Path) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"train-{ratio}.h5"
    if not path.exists():
        build_pack(source, path, BuildConfig(codec="sparse-f32", freq_prune=ratio))
    return path


def _check_pixels(source: str, path: Path) -> None:
    """Raise unless the pack that drops nothing decodes to the original pixels, which it stands for."""
    loader = PackLoader(path, 256, backend="scipy")
    images = np.concatenate([batch for batch, _ in loader])
    pixels = open_source(source).read(loader.pack.source_index.astype(np.intp))
    if np.abs(images - pixels / 255).max() > 1e-5:
        raise EdgePruneError("the pack without pruning does not decode to the original pixels")


def _train(
    source: str, pack: Path, folder: Path, model: str, ratio: float, epochs: int, seed: int, device: str
) -> dict[str, Any]:
    click.echo(f"{model}, frequency pruning {ratio:.0%}, seed {seed}")
    started = time.perf_counter()
    settings: dict[str, Any] = {"model": model, "epochs": epochs, "seed": seed, "device": device}
    metrics = train_epochs(pack, folder, source, batch_size=64, **settings)
    config = json.loads((folder / "config.json").read_text())
    return {
        "model": model,
        "freq_prune": ratio,
        "seed": seed,
        "test_accuracy": metrics["test_accuracy"],
        "train_accuracy": metrics["train_accuracy"],
        "images_per_second": metrics["images_per_second"],
        "seconds_this_call": time.perf_counter() - started,
        "precision": config["config"]["precision"],
    }
