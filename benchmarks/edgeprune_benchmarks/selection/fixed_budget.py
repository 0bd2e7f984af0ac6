"""Training a network for a number of steps on part of a source that lies on the device, as CCS does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.sources import Source
from edgeprune.work.image_store import ImageStore
from edgeprune_formats import EdgePruneError
from edgeprune_runtime.decode.augmentation import draw
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.config import place
from edgeprune_runtime.training.step import Learner, learning_rate

from ..harness.pixel_loader import channel_statistics

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
    """

    model: str
    iterations: int
    batch_size: int
    lr: float
    device: str
    precision: str = "auto"


def train_on(source: Source, test: Source, rows: NDArray[np.int64], recipe: Recipe, seed: int) -> float:
    """Train on some rows of a source and return the accuracy on all images of `test`."""
    config = TrainConfig(
        model=recipe.model,
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        seed=seed,
        device=recipe.device,
        precision=recipe.precision,
    )
    placement = place(config)
    store = ImageStore(source, rows, placement.device)
    statistics = channel_statistics(source, rows)
    mean, std = (torch.tensor(of, device=placement.device).view(1, -1, 1, 1) for of in statistics)
    torch.manual_seed(seed)
    learner = Learner(config, placement, len(source.class_names), min(source.shape[1:]))
    learner.model.train()
    order = list(_order(len(rows), recipe, seed))
    batches = ((part, _crops(source, recipe, seed, step)) for step, part in enumerate(order))
    loss = torch.zeros(())
    for step, images in enumerate(store.batches(batches)):
        labels = store.labels[torch.from_numpy(order[step]).to(placement.device, non_blocking=True)]
        lr = learning_rate(step, recipe.iterations, recipe.lr)
        loss, _ = learner.step((images.float() / 255 - mean) / std, labels, lr, step)
    if not torch.isfinite(loss):
        raise EdgePruneError(f"seed {seed}: the loss became {float(loss)}; lower --lr")
    tested = ImageStore(test, np.arange(len(test)), placement.device)
    learner.model.eval()
    correct = 0.0
    parts = np.array_split(np.arange(len(test)), -(-len(test) // 500))
    for part, images in zip(parts, tested.batches([(part, None) for part in parts]), strict=True):
        labels = tested.labels[torch.from_numpy(part).to(placement.device)]
        correct += float(learner.score((images.float() / 255 - mean) / std, labels)[1])
    return correct / len(test)


def _order(images: int, recipe: Recipe, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each step: shuffled epochs, one after the other, cut in batches."""
    random = np.random.default_rng(seed)
    need = recipe.iterations * recipe.batch_size
    rows = np.concatenate([random.permutation(images) for _ in range(-(-need // images))])
    yield from rows[:need].reshape(recipe.iterations, recipe.batch_size)


def _crops(source: Source, recipe: Recipe, seed: int, step: int) -> Any:
    _, height, width = source.shape
    return draw(
        "crop+flip", seed=seed, epoch=0, batch=step, count=recipe.batch_size, height=height, width=width
    )
