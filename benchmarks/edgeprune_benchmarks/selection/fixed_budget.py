"""Training a network for a number of steps on part of a source that lies on the device, as CCS does."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.sources import Source, SourceCheck
from edgeprune.training.evaluation import TestBatches
from edgeprune.work.image_store import ImageStore
from edgeprune_formats import __version__
from edgeprune_runtime.training import TrainConfig, train
from edgeprune_runtime.training.defaults import defaults_of
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.settings import Precision

from ..harness.pixel_loader import PixelLoader, normalized

__all__ = ["Recipe", "train_on"]


@dataclass(frozen=True)
class Recipe:
    """How every network of a comparison is trained, whatever the size of its coreset.

    Attributes
    ----------
    model : str
        One of `edgeprune_runtime.networks.models.MODEL_NAMES`.
    iterations, batch_size : int
        Steps, and images in each.
    lr : float
        Peak learning rate of SGD, Nesterov momentum 0.9.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``, as `TrainConfig` takes it.
    weight_decay, label_smoothing, ema : float, float, float or None
        As `TrainConfig` takes them.
    brought : bool
        Whether what has no field here is as the network brings it with it, see
        `edgeprune_runtime.training.defaults`; but crops and flips are for all.
    """

    model: str
    iterations: int
    batch_size: int
    lr: float
    device: str
    precision: Precision = "auto"
    weight_decay: float = TrainConfig.weight_decay
    label_smoothing: float = TrainConfig.label_smoothing
    ema: float | None = TrainConfig.ema
    brought: bool = False

    def config(self, seed: int) -> TrainConfig:
        """Return the settings of one network: a single epoch, however often it sees an image."""
        brought = defaults_of(self.model) if self.brought else {}
        settings = brought | asdict(self) | {"epochs": 1, "seed": seed}
        for name in {"iterations", "brought", "augment"} & {*settings}:
            del settings[name]
        return TrainConfig(**settings)

    def facts(self) -> dict[str, Any]:
        """Return all that a network depends on beside its images and its seed, for `measure_cells`.

        Also what has no field here, so that a cell is not taken again after a default has changed, nor beside
        cells of another precision where that is chosen by the machine.
        """
        config = self.config(0)
        training = asdict(config) | {"precision": place(config).precision}
        return {"edgeprune": __version__, "iterations": self.iterations, "training": training}


def train_on(
    source: Source, check: SourceCheck, test: Source, rows: NDArray[np.int64], recipe: Recipe, seed: int
) -> float:
    """Train on some rows of a source, which was checked, and return the accuracy on all images of `test`."""
    config = recipe.config(seed)
    device = place(config).device
    _, height, width = source.shape
    statistics = check.statistics(rows, height * width)
    store, tested = ImageStore(source, rows, device), ImageStore(test, np.arange(len(test)), device)
    loader = PixelLoader(store, recipe.batch_size, statistics, seed=seed, steps=recipe.iterations)
    classes = len(source.class_names)
    parts = np.array_split(np.arange(len(test)), -(-len(test) // 500))
    labels = np.concatenate([test.labels[part] for part in parts])
    batches = TestBatches(
        lambda: (images for images, _ in normalized(tested, parts, repeat(None), statistics)), labels
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = train(loader, config, run, num_classes=classes, image_shape=source.shape, test=batches)
    return float(result.metrics[-1]["test_accuracy"])
