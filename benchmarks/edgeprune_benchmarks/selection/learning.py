"""What scoring and learning masks cost: time of an epoch, images/s against the bare step, peak memory."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from edgeprune import open_source
from edgeprune.masks.classifier import classifier_from_scores
from edgeprune.masks.config import MaskConfig
from edgeprune.masks.learning import learn_masks
from edgeprune.packs.config import METHODS
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.run import run_scoring
from edgeprune.scoring.scores_file import ScoresFile
from edgeprune.sources import Source, SourceCheck, check_source
from edgeprune.work.processes import Workers
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.step import Learner

from ..harness.images import decoded_cifar10, lossless, unpack_photographs
from ..harness.peak import peak_mib
from ..harness.process import run_python
from ..harness.results import save, spread

__all__ = ["measure", "run"]


@dataclass(frozen=True)
class Setting:
    """One measurement: which images, which network, how many epochs, how many images a step."""

    label: str
    source: str
    size: int | None
    model: str
    epochs: int
    batch_size: int


def run(data: Path, output: Path, device: str) -> None:
    """Measure each setting in a process of its own, and save."""
    gpu = place(ScoreConfig(device=device).training("resnet18")).device.type == "cuda"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = f"imagefolder:{unpack_photographs(data, folder / 'photographs')}"
        cifar = f"npz:{lossless(data)}"
        settings = [
            Setting("CIFAR-10, lossless sample", cifar, None, "resnet8", 3, 64),
            Setting("CIFAR-10, lossless sample", cifar, None, "resnet18", 1, 128),
            Setting("250 photographs at 224", photographs, 224, "resnet34", 1, 32),
        ]
        if gpu:
            whole = f"npz:{decoded_cifar10(data, folder / 'cifar10-jpeg.npz')}"
            settings.append(Setting("CIFAR-10, JPEG copy", whole, None, "resnet18", 5, 256))
        rows = [_child(setting, folder, device) for setting in settings]
    click.echo(save(output, "learning", {"rows": rows}))


def _child(setting: Setting, folder: Path, device: str) -> dict[str, Any]:
    """Measure in another process, so that its peak memory is its own."""
    code = "import sys; from edgeprune_benchmarks.selection.learning import measure; measure(*sys.argv[1:])"
    where = folder / f"{len(list(folder.iterdir()))}"
    where.mkdir()
    given = json.dumps({**vars(setting), "device": device})
    row: dict[str, Any] = run_python(setting.label, "-c", code, given, str(where))
    click.echo(f"{setting.label}, {setting.model}: {row}")
    return row


def measure(given: str, folder: str) -> None:
    """Score and learn masks, and print what it cost as one line of JSON."""
    asked = json.loads(given)
    device = asked.pop("device")
    setting = Setting(**asked)
    source = open_source(setting.source, size=setting.size)
    check = check_source(source)
    config = ScoreConfig(
        model=setting.model,
        epochs=setting.epochs,
        # Every fifth epoch, as the paper does; a shorter run records in its last, and that is left out below.
        every=min(5, setting.epochs),
        batch_size=setting.batch_size,
        lr=0.01,
        device=device,
    )
    placement = place(config.training(setting.model))
    bare = [_bare_step(config, setting, source.shape, len(source.class_names))]
    scores = run_scoring(source, check, Path(folder) / "scores.h5", config)
    bare.append(_bare_step(config, setting, source.shape, len(source.class_names)))
    row = {
        "source": setting.label,
        "shape": source.shape,
        "images": len(check.good),
        "model": setting.model,
        "batch_size": setting.batch_size,
        "epochs": setting.epochs,
        "device": str(placement.device),
        "threads": torch.get_num_threads(),
        "images_held": scores.provenance["images_held"],
        "bare_step_images_per_second": spread(bare),
        **_scoring_cost(scores.provenance["history"], len(check.good)),
        "scoring_peak": _peaks(placement.device),
    }
    seconds = _mask_seconds(source, check, scores, setting, device, Path(folder))
    row |= {
        "mask_epoch_seconds": seconds,
        "mask_images_per_second": len(check.good) / seconds,
        "mask_peak": _peaks(placement.device),
    }
    print(json.dumps(row))


def _scoring_cost(history: list[dict[str, Any]], images: int) -> dict[str, float]:
    """Return the rate of steps, the time of an epoch, and the share of the time in what epochs record."""
    seconds = sum(epoch["seconds"] for epoch in history)
    # One pass over all images records entropies; the rest of the records are taken in every epoch.
    recording = sum(epoch["record_seconds"] for epoch in history)
    return {
        "step_images_per_second": len(history) * images / (seconds - recording),
        "epoch_seconds": seconds / len(history),
        "record_share": recording / seconds,
        "record_share_every_5": _share_every_five(history),
    }


def _mask_seconds(
    source: Source, check: SourceCheck, scores: ScoresFile, setting: Setting, device: str, folder: Path
) -> float:
    """Learn masks for an epoch, and return its seconds."""
    epochs: list[dict[str, Any]] = []
    learn_masks(
        source,
        check,
        classifier_from_scores(scores),
        folder / "masks.fse-net.safetensors",
        MaskConfig(epochs=1, batch_size=setting.batch_size),
        freq_prune=METHODS["lf"].freq_prune,
        workers=Workers(device=device),
        report=epochs.append,
    )
    return float(epochs[-1]["seconds"])


def _share_every_five(history: list[dict[str, Any]]) -> float:
    """Return the share of the time in the records if entropies are recorded in every fifth epoch.

    From one epoch with entropies and, if there is one, those without.
    """
    with_entropies = [epoch for epoch in history if epoch["entropy"] is not None][-1]
    training = with_entropies["seconds"] - with_entropies["record_seconds"]
    plain = [epoch["record_seconds"] for epoch in history if epoch["entropy"] is None]
    each = sum(plain) / len(plain) if plain else 0.0
    recording = with_entropies["record_seconds"] + 4 * each
    return float(recording / (recording + 5 * training))


def _bare_step(config: ScoreConfig, setting: Setting, shape: tuple[int, int, int], classes: int) -> float:
    """Return images/s of the training step on one batch that is ready: the limit for the scoring run."""
    training = config.training(setting.model)
    placement = place(training)
    learner = Learner(training, placement, classes, min(shape[1:]))
    images = torch.randn(setting.batch_size, *shape)
    labels = torch.zeros(setting.batch_size, dtype=torch.int64)
    images, labels = placement.put(images, labels)
    learner.model.train()
    steps = 5 if placement.device.type == "cpu" else 100
    for step in range(2 * steps):
        if step == steps:
            _wait(placement.device)
            started = time.perf_counter()
        learner.step(images, labels, 0.01, step)
    _wait(placement.device)
    return steps * setting.batch_size / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peaks(device: torch.device) -> dict[str, float]:
    """Return the process's peak memory so far in MiB, of the host and, on CUDA, of the device."""
    peaks = {"host_mib": peak_mib()}
    if device.type == "cuda":
        peaks["device_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peaks
