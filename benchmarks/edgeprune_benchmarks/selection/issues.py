"""What is found of wrong labels and near duplicates that were planted, and of real near duplicates."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeprune import open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.selection import compute_scores
from edgeprune.issues.duplicates import DISTANCE, MAX_DISTANCE, Duplicates, Fingerprints, find_duplicates
from edgeprune.issues.mislabeled import find_suspects
from edgeprune.issues.prints import fingerprints
from edgeprune.scoring.config import ScoreConfig
from edgeprune.sources import Source, check_source
from edgeprune.sources.arrays import ArraySource
from edgeprune.sources.check import refuse_bad
from edgeprune_formats import __version__
from edgeprune_runtime.training.settings import TrainConfig

from ..harness.cells import measure_cells, score_images
from ..harness.deadline import Deadline
from ..harness.images import decoded_cifar10, lossless
from ..harness.results import save

__all__ = ["Settings", "run"]

Pixels = NDArray[np.uint8]
NOISE = 0.1
RANKS = (50, 100, 200, 400)
COPIES = 500


@dataclass(frozen=True)
class Settings:
    """The scale of the measurement.

    Attributes
    ----------
    data : Path
        Folder of the images.
    scoring : ScoreConfig
        The runs in which wrong labels are looked for.
    seeds : int
        Such runs, each with labels of its own that are wrong.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    data: Path
    scoring: ScoreConfig
    seeds: int
    minutes: float | None


def run(settings: Settings, output: Path, runs: Path) -> None:
    """Fill the tables and write ``issues.json``; whatever `runs` holds is not done again.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    runs.mkdir(parents=True, exist_ok=True)
    deadline = Deadline(settings.minutes)
    source = open_source(f"npz:{lossless(settings.data)}")
    labels = {
        f"labels-{seed}": partial(_labels, source, settings, runs, deadline, seed)
        for seed in range(settings.seeds)
    }
    copies = {f"copies-{name}": partial(_copies, source, name) for name in CHANGES}
    real = {"real": partial(_real, settings.data, runs)}
    facts = {"edgeprune": __version__, "scoring": asdict(settings.scoring)}
    training = asdict(TrainConfig())
    found = {
        "labels": measure_cells(labels, runs, {**facts, "training": training}, deadline),
        "copies": measure_cells(copies, runs, facts, deadline),
        "real": measure_cells(real, runs, facts, deadline),
    }
    about = {"images": len(source), "noise": NOISE, "distance": DISTANCE, "scoring": asdict(settings.scoring)}
    click.echo(save(output, "issues", {**about, **found}))


def _labels(source: Source, settings: Settings, runs: Path, deadline: Deadline, seed: int) -> dict[str, Any]:
    """Give a tenth of the images another class, score them, and look where they are in the list."""
    random = np.random.default_rng(seed)
    count, classes = len(source), len(source.class_names)
    wrong = random.permutation(count)[: round(NOISE * count)]
    labels = source.labels.copy()
    labels[wrong] = (labels[wrong] + random.integers(1, classes, len(wrong))) % classes
    noisy = ArraySource(
        f"noisy-{seed}",
        source.split,
        None,
        source.class_names,
        labels,
        source.read(np.arange(count)),
        None,
        "i",
    )
    scoring = replace(settings.scoring, seed=seed)
    scores = score_images(noisy, check_source(noisy), runs / f"scores-{seed}.h5", scoring, deadline)
    ranked = find_suspects(scores, np.inf)
    hits = np.isin(ranked.rows, wrong)
    by_probabilities = np.argsort(compute_scores(scores, CoresetConfig(score="aum")), kind="stable")
    others = np.isin(scores.rows[by_probabilities], wrong)
    ranks = (*RANKS, len(wrong))
    listed = len(find_suspects(scores).rows)
    found = {
        "seed": seed,
        "planted": len(wrong),
        "accuracy": scores.provenance["history"][-1]["accuracy"],
        "precision": {str(rank): float(hits[:rank].mean()) for rank in ranks},
        "precision_of_probabilities": {str(rank): float(others[:rank].mean()) for rank in ranks},
        "listed": int(listed),
        "listed_precision": float(hits[:listed].mean()),
        "listed_recall": float(hits[:listed].sum() / len(wrong)),
    }
    click.echo(str(found))
    return found


def _shifted(image: Pixels) -> Pixels:
    shifted: Pixels = np.pad(image, ((0, 0), (0, 0), (1, 0)), mode="edge")[:, :, :-1]
    return shifted


def _recompressed(image: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=75)
    again: Pixels = np.asarray(Image.open(file)).transpose(2, 0, 1)
    return again


def _flipped(image: Pixels) -> Pixels:
    flipped: Pixels = image[:, :, ::-1]
    return flipped


def _brighter(image: Pixels) -> Pixels:
    brighter: Pixels = np.clip(image * 1.2 + 10, 0, 255).astype(np.uint8)
    return brighter


def _same(image: Pixels) -> Pixels:
    return image


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "none": _same,
    "a pixel to the right": _shifted,
    "JPEG, quality 75": _recompressed,
    "mirrored": _flipped,
    "brighter, more contrast": _brighter,
}


def _copies(source: Source, change: str) -> dict[str, Any]:
    """Add changed copies of some images, and count which are found, and what else is, at each distance."""
    count = len(source)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:COPIES])
    pixels = source.read(np.arange(count))
    copies = np.stack([CHANGES[change](one) for one in pixels[chosen]])
    both = ArraySource(
        "planted",
        source.split,
        None,
        source.class_names,
        np.concatenate([source.labels, source.labels[chosen]]),
        np.concatenate([pixels, copies]),
        None,
        "i",
    )
    prints = fingerprints(both, np.arange(len(both)), 1, refuse_bad)
    rows = []
    for distance in range(MAX_DISTANCE + 1):
        found = find_duplicates(prints, distance)
        right = np.count_nonzero(found.first[count:] == chosen)
        joined = np.count_nonzero(found.first != np.arange(len(both)))
        rows.append({"distance": distance, "recall": float(right / COPIES), "others": int(joined - right)})
    click.echo(f"{change}: {rows[DISTANCE]}")
    return {"change": change, "copies": COPIES, "rows": rows}


def _real(data: Path, runs: Path) -> dict[str, Any]:
    """Count the near duplicates in all of CIFAR-10, its JPEG copy, by distance."""
    spec = f"npz:{decoded_cifar10(data, runs / 'cifar10-jpeg.npz')}"
    halves = [open_source(spec, split=split) for split in ("train", "test")]
    parts = [fingerprints(half, np.arange(len(half)), 1, refuse_bad) for half in halves]
    train = len(halves[0])
    parts[1] = replace(parts[1], rows=parts[1].rows + train)
    labels = np.concatenate([half.labels for half in halves])
    started = time.process_time()
    found = find_duplicates(Fingerprints.joined(parts), MAX_DISTANCE)
    seconds = time.process_time() - started
    rows = [_at(found, labels, train, distance) for distance in range(MAX_DISTANCE + 1)]
    click.echo(str(rows[DISTANCE]))
    return {"train": train, "test": len(halves[1]), "find_seconds": seconds, "rows": rows}


def _at(found: Duplicates, labels: NDArray[np.int64], train: int, distance: int) -> dict[str, int]:
    later = np.nonzero((found.first != np.arange(len(found.first))) & (found.distance == distance))[0]
    first = found.first[later]
    return {
        "distance": distance,
        "images": len(later),
        "exact": int(np.count_nonzero(found.exact[later])),
        "mirrored": int(np.count_nonzero(found.mirrored[later])),
        "test_of_train": int(np.count_nonzero((first < train) & (later >= train))),
        "classes_differ": int(np.count_nonzero(labels[first] != labels[later])),
    }
