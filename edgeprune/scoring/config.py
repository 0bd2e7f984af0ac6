"""How images are scored. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from edgeprune_formats import ConfigError
from edgeprune_runtime.checks import check_types
from edgeprune_runtime.decode.augmentation import AUGMENTS, Augment
from edgeprune_runtime.networks.names import MODEL_NAMES
from edgeprune_runtime.training.settings import Precision, TrainConfig

from ..presets import data_family, je_cadence

__all__ = ["ScoreConfig"]

# What is the same in any training run is told in the same words.
_TRAINING = {field.name: field.metadata for field in fields(TrainConfig)}


@dataclass(frozen=True)
class ScoreConfig:
    """Settings of a scoring run; the paper's where it gives one (App. B).

    Attributes
    ----------
    model : str or None
        One of `edgeprune_runtime.networks.names.MODEL_NAMES`; None stands for resnet18 below 64 pixels and
        resnet34 from there on.
    epochs : int
        Passes over the images.
    every : int or None
        Epochs from one record of entropies to the next; None stands for 5, or 2 from 64 pixels on.
    batch_size : int
        Images per step, summed over all processes.
    lr : float
        Peak learning rate of SGD with Nesterov momentum 0.9; warm-up, then a cosine.
    weight_decay : float
        On the weights of convolutions and linear layers.
    augment : str
        ``"none"``, ``"crop"``, ``"flip"`` or ``"crop+flip"``.
    seed : int
        Fixes weights, order and augmentation.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str
        ``"auto"``, ``"float32"`` or ``"bfloat16"``.
    compile : bool
        Whether steps run through `torch.compile`.
    jobs : int or None
        Threads that read images ahead of the network; None stands for as many as there are processors for
        this process. No score depends on it.

    Raises
    ------
    ConfigError
        `every` or `jobs` is out of range; the other values are checked when the run starts.
    """

    model: str | None = field(
        default=None,
        metadata={
            "help": "Network that scores the images.",
            "choices": MODEL_NAMES,
            "default_text": "resnet18; resnet34 from 64 pixels on",
        },
    )
    epochs: int = field(default=200, metadata={"help": "Passes over the images of the scoring run."})
    every: int | None = field(
        default=None,
        metadata={
            "help": "Epochs between two records of the entropies.",
            "default_text": "5; 2 from 64 pixels on",
        },
    )
    batch_size: int = field(default=256, metadata={"help": "Images in each step, over all processes."})
    lr: float = field(default=0.1, metadata=_TRAINING["lr"])
    weight_decay: float = field(default=5e-4, metadata=_TRAINING["weight_decay"])
    augment: Augment = field(
        default="crop+flip",
        metadata={
            "help": "Random changes of the images: crop (after reflect padding), flip (horizontal) or both.",
            "choices": AUGMENTS,
        },
    )
    seed: int = field(default=0, metadata=_TRAINING["seed"])
    device: str = field(default="auto", metadata=_TRAINING["device"])
    precision: Precision = field(default="auto", metadata=_TRAINING["precision"])
    compile: bool = field(default=False, metadata={"help": "Compile the training step with torch.compile."})
    jobs: int | None = field(
        default=None,
        metadata={
            "help": "Threads that read and decode images for the network.",
            "default_text": "all cores",
        },
    )

    def __post_init__(self) -> None:
        check_types(self)
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"`jobs` must be at least 1, not {self.jobs}")
        if self.every is not None and not 1 <= self.every <= self.epochs:
            raise ConfigError(
                f"`every` is {self.every}; it must be at least 1 and at most the epochs, {self.epochs}"
            )

    def model_for(self, shape: tuple[int, int, int]) -> str:
        """Return the network's name for images of a shape (C, H, W)."""
        from edgeprune_runtime.networks.models import SMALL_IMAGE

        return self.model or ("resnet18" if min(shape[1:]) < SMALL_IMAGE else "resnet34")

    def every_for(self, classes: int, shape: tuple[int, int, int]) -> int:
        """Return the epochs between two records for images of a shape, at most the epochs there are."""
        every = self.every or je_cadence(data_family(classes, *shape[1:]))
        return min(every, self.epochs)

    def training(self, model: str) -> TrainConfig:
        """Return the settings as those of a training run.

        Raises
        ------
        ConfigError
            A value out of range.
        """
        own = {name: getattr(self, name) for name in _TRAINING if hasattr(self, name)}
        try:
            return TrainConfig(**own | {"model": model})
        except ConfigError as error:
            # All that can be out of range has the same name here.
            raise ConfigError(str(error).replace("`TrainConfig.", "`ScoreConfig.")) from None
