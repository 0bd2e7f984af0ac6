"""Training from a pack against the same steps on ready batches and on JPEG files, epoch by epoch in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from edgeprune_formats import Pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_runtime import PackLoader
from edgeprune_runtime.system.machine import cpu_quota, keep_freed_memory
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.placement import Placement, place
from edgeprune_runtime.training.step import Learner

from ..codec.packs import ImageSet, build
from ..harness.results import save, spread
from .images import timed_images
from .peers.loaders import Job

__all__ = ["measure", "run", "write_files"]

# Images a batch, and images at most, of each size.
BATCHES = {"32x32": 128, "224x224": 16}
COUNTS = {"32x32": 1280, "224x224": 96}
QUALITY = 90
MODELS = ("shufflenet_v2", "mobilenet_v2", "efficientnet_b0")


def run(
    data: Path,
    output: Path,
    *,
    rounds: int,
    count: int | None,
    device: str,
    models: Iterable[str] = MODELS,
) -> None:
    """Measure each network at each size and save the result."""
    # As edgeprune train does.
    keep_freed_memory()
    found = []
    for size, batch in BATCHES.items():
        with tempfile.TemporaryDirectory() as folder:
            images = timed_images(data, Path(folder), size, min(count or COUNTS[size], COUNTS[size]))
            pack = build(images, Path(folder) / "pack.h5", codec="quantized")
            files = write_files(images, Path(folder) / "files")
            for model in models:
                found.append({"size": size, **measure(pack, files, model, rounds, batch, device)})
    results = {"threads": torch.get_num_threads(), "workers": cpu_quota(), "quality": QUALITY, "rows": found}
    click.echo(save(output, "time-epoch", results))


def write_files(images: ImageSet, folder: Path) -> Path:
    """Write images as JPEG files, a folder a class, and return the folder."""
    for number, (pixels, label) in enumerate(zip(images.pixels, images.labels.tolist(), strict=True)):
        path = folder / f"{label:04d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path, quality=QUALITY, subsampling="4:2:0")
    return folder


def measure(pack: Pack, files: Path, model: str, rounds: int, batch: int, device: str) -> dict[str, Any]:
    """Time epochs from the pack, from ready batches and from JPEG files in turn; each decodes in each epoch.

    Returns
    -------
    dict
        Seconds of each, ratios to ready batches round by round, and how long the pack's and the files'
        epochs take without training.
    """
    config = TrainConfig(model=model, batch_size=batch, device=device)
    placement = place(config)
    learner = Learner(config, placement, len(pack.header.class_names), pack.header.height)
    learner.train()
    loader = _loader(pack, batch, placement)
    ready = [(images.clone(), labels.clone()) for images, labels in loader]
    loaders: dict[str, Iterable[Any]] = {"pack": loader, "ready": ready, "files": _files(pack, files, batch)}
    alone = {"decoding": "pack", "decoding files": "files"}
    seconds: dict[str, list[float]] = {name: [] for name in (*loaders, *alone)}
    for number in range(rounds + 1):
        # Which one begins changes, so that what a processor's temperature does falls on all.
        order = list(loaders)[number % 3 :] + list(loaders)[: number % 3]
        taken = {name: _epoch(learner, loaders[name], placement) for name in order}
        taken |= {name: _epoch(None, loaders[of], placement) for name, of in alone.items()}
        if number:
            for name, found in taken.items():
                seconds[name].append(found)
    ratios = {
        name: spread([one / other for one, other in zip(seconds[name], seconds["ready"], strict=True)])
        for name in ("pack", "files")
    }
    row: dict[str, Any] = {
        "model": model,
        "device": str(placement.device),
        "precision": placement.precision,
        "images": len(pack),
        "batch": batch,
        "steps": len(ready),
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "ratio_to_ready": ratios["pack"],
        "files_ratio_to_ready": ratios["files"],
    }
    click.echo(
        f"{model}: {row['seconds']['ready']['median']:.2f} s from ready batches, the pack "
        f"{ratios['pack']['median']:.3f}x, files {ratios['files']['median']:.3f}x"
    )
    return row


def _files(pack: Pack, files: Path, batch: int) -> Iterable[Any]:
    """Return JPEG files through torchvision's ImageFolder and torch's DataLoader, workers kept."""
    header = pack.header
    job = Job(files, files, header.mean, header.std, batch, cpu_quota())
    images = ImageFolder(str(files), transform=job.transform())
    return DataLoader(images, batch, shuffle=True, drop_last=True, **job.workers_options())


def _loader(pack: Pack, batch: int, placement: Placement) -> PackLoader:
    # A quarter of the coefficients fits, so that most chunks are read and decoded again in each epoch.
    return PackLoader(
        pack,
        batch,
        shuffle=True,
        backend="torch",
        device=placement.device,
        normalize=True,
        drop_last=True,
        cache_bytes=memory_bytes(pack.header) * len(pack) // 4,
    )


def _epoch(learner: Learner | None, batches: Iterable[Any], placement: Placement) -> float:
    """Return the seconds of one pass, with a step on each batch if there is a learner."""
    started = time.perf_counter()
    for step, (images, labels) in enumerate(batches):
        if learner is not None:
            learner.step(*placement.put(images, labels), 0.01, step)
    if placement.device.type == "cuda":
        torch.cuda.synchronize(placement.device)
    return time.perf_counter() - started
