"""How masks are learned. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgeprune_formats import ConfigError
from edgeprune_runtime.checks import check_types
from edgeprune_runtime.training.settings import Precision

__all__ = ["MaskConfig"]


@dataclass(frozen=True)
class MaskConfig:
    """How an FSE-Net is learned (paper, Algorithm 1 and App. B).

    Attributes
    ----------
    epochs, batch_size : int
        Passes over the images; images per step, summed over all processes.
    lr : float
        Peak learning rate of Adam, which falls to 0 along half a cosine.
    k : int or None
        Components of highest energy that are always kept; None stands for the paper's number, see
        `edgeprune.presets.mask_preset`.
    accuracy_weight : float or None
        Lambda of eq. 6, likewise.
    precision : str
        Of the classifier: ``"auto"``, ``"float32"`` or ``"bfloat16"``.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    epochs: int = field(default=300, metadata={"help": "Passes over the images to train the FSE-Net."})
    batch_size: int = field(
        default=128, metadata={"help": "Images in each step of the FSE-Net, over all processes."}
    )
    lr: float = field(default=3e-4, metadata={"help": "Peak of the learning rate of the FSE-Net."})
    k: int | None = field(
        default=None,
        metadata={
            "help": "Number of highest-energy components that each channel always keeps.",
            "flag": "--k",
            "default_text": "as published",
        },
    )
    accuracy_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of accuracy against entropy in the loss (lambda of equation 6).",
            "flag": "--lambda",
            "default_text": "as published",
        },
    )
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`MaskConfig.{name}` must be at least 1, not {getattr(self, name)}")
        if not 0 < self.lr <= 1:
            raise ConfigError(f"`MaskConfig.lr` must be positive and at most 1, not {self.lr}")
        if self.k is not None and self.k < 0:
            raise ConfigError(f"`MaskConfig.k` must not be negative: {self.k}")
        if self.accuracy_weight is not None and not 0 <= self.accuracy_weight < math.inf:
            raise ConfigError(
                f"`MaskConfig.accuracy_weight` must be at least 0 and finite, not {self.accuracy_weight}"
            )
