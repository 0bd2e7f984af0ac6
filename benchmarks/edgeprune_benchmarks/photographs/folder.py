"""A network trained from a folder of JPEG files, as torchvision's reference scripts do it.

What is taken from there (https://github.com/pytorch/vision/tree/main/references/classification):
README.md has for MobileNet-v2 ``--epochs 300 --lr 0.045 --wd 0.00004 --lr-step-size 1 --lr-gamma 0.98`` on 8
GPUs with the default of 32 images each, and for ShuffleNet-v2, of the widths 1.5 and 2, ``--batch-size=128
--lr=0.5 --lr-scheduler=cosineannealinglr --lr-warmup-epochs=5 --epochs=600 --weight-decay=0.00002
--norm-weight-decay=0.0 --label-smoothing=0.1 --train-crop-size=176 --val-resize-size=232`` on 8 GPUs, as pull
request 5906 of the same repository tells.
train.py and presets.py have SGD of momentum 0.9, a random resized crop and a flip, and test on the center, of
224 pixels, of images whose short side is 256 if the command does not say another. So the ShuffleNets train on
176 pixels and test on 224, of images of 232.

What a short run on one device changes: sizes are in proportion to the side of the tested images, the learning
rate is in proportion to the batch (Goyal et al., 2017), and it falls over the epochs that there are as far as
it does there. TrivialAugment, mixup, cutmix, random erasing, repeated augmentation and the averaged weights
of the ShuffleNets are set for 600 epochs, and left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR, StepLR
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from edgeprune_runtime.networks.warm_start import load_weights

from .clock import Clock

__all__ = ["RECIPES", "train_folder"]

Row = dict[str, Any]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class _Recipe:
    """What torchvision's commands have for one network.

    Attributes
    ----------
    network : str
        torchvision's name of it.
    lr, batch_size : float, int
        The learning rate, and the images of a step of all GPUs that it is for.
    weight_decay, norm_weight_decay : float, float
        The latter of norm layers.
    label_smoothing : float
        Of the loss.
    cosine : bool
        Whether the learning rate rises for an epoch and falls as half a cosine; otherwise it falls by the
        same factor each epoch, to `last` of what it was.
    train_crop, resize : float, float
        The side of the images to train on, and the short side that images to test on are scaled to before
        their center is taken; both as a multiple of the side of that center.
    """

    network: str
    lr: float
    batch_size: int
    weight_decay: float
    norm_weight_decay: float
    label_smoothing: float
    cosine: bool
    last: float = 0.98**300
    train_crop: float = 1.0
    resize: float = 256 / 224

    def optimizer(self, model: nn.Module, batch_size: int, factor: float) -> torch.optim.SGD:
        """Return the optimizer, of a learning rate for this batch, times a factor."""
        norms = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
        known = {id(parameter) for parameter in norms}
        others = [parameter for parameter in model.parameters() if id(parameter) not in known]
        groups = [
            {"params": others, "weight_decay": self.weight_decay},
            {"params": norms, "weight_decay": self.norm_weight_decay},
        ]
        return torch.optim.SGD(groups, factor * self.lr * batch_size / self.batch_size, momentum=0.9)

    def schedule(self, optimizer: torch.optim.Optimizer, epochs: int) -> LRScheduler:
        """Return the schedule, a step for each epoch."""
        if not self.cosine or epochs < 2:
            return StepLR(optimizer, 1, self.last ** (1 / epochs))
        rise = LinearLR(optimizer, 0.01, total_iters=1)
        return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, epochs - 1)], milestones=[1])


RECIPES = {
    "shufflenet_v2": _Recipe(
        "shufflenet_v2_x1_0",
        0.5,
        8 * 128,
        2e-5,
        0.0,
        0.1,
        cosine=True,
        train_crop=176 / 224,
        resize=232 / 224,
    ),
    "mobilenet_v2": _Recipe("mobilenet_v2", 0.045, 8 * 32, 4e-5, 4e-5, 0.0, cosine=False),
}
"""By the names that `edgeprune_runtime.networks.models` has."""


def train_folder(task: Row, clock: Clock) -> Row:
    """Train as `task` says, and return what `edgeprune_benchmarks.photographs.cell` lists."""
    torch.manual_seed(task["seed"])
    recipe, images = RECIPES[task["model"]], Path(task["images"])
    trained = _loader(images / "train", _augmented(recipe, task["size"]), task, shuffle=True)
    with clock.stopped():
        tested = _loader(images / "test", _plain(recipe, task["size"]), task, shuffle=False)
    classes = len(trained.dataset.classes)  # type: ignore[attr-defined]
    model = torchvision.models.get_model(recipe.network, weights=None, num_classes=classes)
    if task["init"] is not None:
        load_weights(model, Path(task["init"]) / "model.safetensors", classes)
    optimizer = recipe.optimizer(model, task["batch_size"], task["peer_lr"])
    schedule = recipe.schedule(optimizer, task["epochs"])
    loss, curve, startup = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing), [], clock.minutes
    for _ in range(task["epochs"]):
        _epoch(model, trained, loss, optimizer)
        schedule.step()
        with clock.stopped():
            accuracy = _accuracy(model, tested)
        curve.append([clock.minutes, accuracy])
    steps = task["epochs"] * len(trained)
    seen = steps * task["batch_size"]
    return {"curve": curve, "steps": steps, "images_seen": seen, "startup_minutes": startup}


def _augmented(recipe: _Recipe, size: int) -> v2.Compose:
    crop = v2.RandomResizedCrop(round(recipe.train_crop * size), antialias=True)
    return v2.Compose([crop, v2.RandomHorizontalFlip(), *_to_tensor()])


def _plain(recipe: _Recipe, size: int) -> v2.Compose:
    scaled = v2.Resize(round(recipe.resize * size), antialias=True)
    return v2.Compose([scaled, v2.CenterCrop(size), *_to_tensor()])


def _to_tensor() -> list[nn.Module]:
    return [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]


def _loader(images: Path, transform: v2.Compose, task: Row, *, shuffle: bool) -> DataLoader[Any]:
    """Return batches of a folder, made by a process for each core, which stay from epoch to epoch.

    Of shuffled images, the rest of an epoch is left out: 2,017 images in batches of 32 leave a single one.
    """
    return DataLoader(
        ImageFolder(str(images), transform),
        task["batch_size"],
        shuffle=shuffle,
        num_workers=task["threads"],
        persistent_workers=True,
        drop_last=shuffle,
    )


def _epoch(
    model: nn.Module, batches: Iterable[Any], loss: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()


@torch.inference_mode()
def _accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    model.eval()
    right = [model(images).argmax(1) == labels for images, labels in batches]
    return float(torch.cat(right).float().mean())
