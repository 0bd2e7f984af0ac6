"""What a training run is asked to do. Needs no torch, so that a command line can say what there is to set."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from edgeprune_formats import ConfigError

from ..checks import check_types, shortened
from ..loading.order.resolutions import ResolutionSchedule
from ..loading.order.sampling import Sampling
from ..networks.names import MODEL_NAMES, STEMS, Stem, name_problem

__all__ = ["TEACHER", "Adversary", "Precision", "ScheduleShape", "TrainConfig"]

Precision = Literal["auto", "float32", "bfloat16"]
TEACHER = "teacher"
"""The name of the column of a pack that holds a teacher's probabilities."""
ClassWeights = Literal["none", "balanced"]
Optimizer = Literal["sgd", "muon"]
ScheduleShape = Literal["cosine", "linear"]
AdversaryMethod = Literal["n-fgsm", "pgd"]
_ADVERSARIES: tuple[AdversaryMethod, ...] = get_args(AdversaryMethod)


@dataclass(frozen=True)
class Adversary:
    """How training images are perturbed, see `edgeprune_runtime.training.objectives.adversarial`.

    Attributes
    ----------
    method : str
        ``"n-fgsm"`` or ``"pgd"``.
    eps : float
        Linf budget in 1/255 of the range of a pixel.

    Raises
    ------
    ConfigError
        No such method, or no such budget.
    """

    method: AdversaryMethod
    eps: float = 8.0

    def __post_init__(self) -> None:
        try:
            check_types(self)
            sound = 0 < self.eps <= 255
        except ConfigError:
            sound = False
        if not sound:
            eps = f"{self.eps:g}" if isinstance(self.eps, int | float) else self.eps
            name = shortened(f"{self.method}:{eps}")[1:-1]
            raise ConfigError(
                f"no adversary {name}; choose one of {', '.join(_ADVERSARIES)}, with a "
                "budget in 1/255, above 0 and at most 255, such as n-fgsm:8"
            )

    @classmethod
    def parse(cls, text: str) -> Adversary:
        """Return the adversary that ``METHOD`` or ``METHOD:EPS`` names.

        Raises
        ------
        ConfigError
            There is none.
        """
        method, colon, eps = text.partition(":")
        try:
            return cls(cast(AdversaryMethod, method), float(eps) if colon else cls.eps)
        except ValueError:
            raise ConfigError(
                f"the budget of {shortened(text)} is not a number, such as n-fgsm:8 has it"
            ) from None


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run, checked when constructed.

    Attributes
    ----------
    model : str
        One of `edgeprune_runtime.networks.names.MODEL_NAMES`, ``torchvision:NAME``, ``timm:NAME`` or
        ``package.module:function``, see `edgeprune_runtime.networks.models.create_model`.
    stem : str
        ``"auto"``, ``"imagenet"`` or ``"small"``, of the networks in `MODEL_NAMES`; see `create_model` there.
    epochs : int
        Passes over the training images.
    batch_size : int
        Images per step. The loader makes the batches; here it is recorded and held against a resumed run.
    accumulate : int
        Parts that a batch goes through the network in, one after the other, their gradients added up: the
        memory of a part for the step of a batch. Batch normalization sees the parts.
    freeze : bool or int
        True trains the last layer alone, k also the last k blocks before it, see
        `edgeprune_runtime.networks.freezing.blocks_of`. What is frozen keeps its statistics of batch
        normalization, and needs weights to begin with.
    lr : float
        Peak learning rate, see `edgeprune_runtime.training.progress.schedule.learning_rate`.
    schedule : str
        How the learning rate falls: ``"cosine"`` or ``"linear"``.
    warm_up : float
        Share of the steps in which the learning rate rises first, in [0, 0.5].
    optimizer : str
        ``"sgd"``, or ``"muon"`` for the convolutions, see `edgeprune_runtime.training.optimizers.Muon`.
    momentum : float
        Momentum of SGD, in [0, 1).
    nesterov : bool
        Whether the momentum is Nesterov's, where there is momentum.
    weight_decay : float
        L2 penalty on the weights of convolutions and linear layers; biases and norm layers have none.
    ema : float, optional
        Decay of an exponential moving average of the weights, in (0, 1). The average is what is tested and
        kept at the end. None turns it off.
    adversarial : str, optional
        Train on perturbed images: ``"METHOD:EPS"`` of an `Adversary`, such as ``"n-fgsm:8"``. None trains
        on the images as they are.
    label_smoothing : float
        Share of each label that is spread evenly over all classes, in [0, 1) (Szegedy et al. 2016, sec. 7).
    distill : float
        Share of the loss, in [0, 1], that is the cross entropy to the probabilities of the pack's column
        `TEACHER` in place of the label, see `edgeprune_runtime.training.objectives.distillation`.
    distill_temperature : float
        What logits are divided by there, with the probabilities softened to match; at least 1.
    class_weights : str
        ``"none"``, or ``"balanced"``: the loss of an image counts ``N / (C * N_c)``, with N images in all,
        C classes that have any, and N_c of its class, so that each class counts as much as another.
    sampling : str
        ``"uniform"``, or ``"balanced"``: an epoch shows each class as often as another, see `PackLoader`. The
        loader does it; here it is recorded and held against a resumed run.
    resolution_schedule : str, optional
        Sizes of the images in the first epochs, such as ``"32:6,48:3"``, see `PackLoader`; the epochs that
        follow are at full size, as are all tests. The loader does it; here it is recorded, held against the
        loader and a resumed run, and the network is tried at each size before training begins.
    clip_norm : float, optional
        The largest norm of the gradient of all weights; a larger one is scaled down to it. None leaves it.
    patience : int, optional
        Stop when the test has not become better for so many epochs, and keep the weights of the best one.
        Better is a higher test accuracy, or the same with a lower loss. None trains all epochs and keeps the
        weights of the last.
    seed : int
        Seeds the initial weights, dropout and stochastic depth.
    device : str
        ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str
        ``"auto"`` (see `place`), ``"float32"``, or ``"bfloat16"`` for autocast.

    Raises
    ------
    ConfigError
        If a value is of another type than its field, or out of range.
    """

    model: str = field(
        default="mobilenet_v2",
        metadata={
            "help": "Network to train; resnet9 has its own defaults for other options.",
            "choices": MODEL_NAMES,
        },
    )
    stem: Stem = field(
        default="auto",
        metadata={
            "help": "First layers of networks with a short name: imagenet, small (two strides fewer), or "
            "auto, "
            "which is small for images below 64 pixels.",
            "choices": STEMS,
        },
    )
    epochs: int = field(default=30, metadata={"help": "Passes over the training images."})
    batch_size: int = field(default=128, metadata={"help": "Images in each step."})
    accumulate: int = field(
        default=1, metadata={"help": "Split each batch into this many parts, to save memory."}
    )
    freeze: bool | int = field(
        default=False,
        metadata={
            "help": "Train only the last layer; with K, also the K blocks before it. For trained weights "
            "(train --init).",
            "metavar": "[K]",
        },
    )
    lr: float = field(default=0.05, metadata={"help": "Peak of the learning rate."})
    schedule: ScheduleShape = field(
        default="cosine",
        metadata={
            "help": "Decay of the learning rate: half a cosine, or linear.",
            "choices": get_args(ScheduleShape),
        },
    )
    warm_up: float = field(
        default=0.05, metadata={"help": "Share of the steps for the warm-up of the learning rate, 0 to 0.5."}
    )
    optimizer: Optimizer = field(
        default="sgd",
        metadata={
            "help": "Optimizer: SGD with Nesterov momentum, or Muon for the convolutions and SGD for the "
            "rest.",
            "choices": get_args(Optimizer),
        },
    )
    momentum: float = field(default=0.9, metadata={"help": "Momentum of SGD, above 0 and below 1."})
    nesterov: bool = True
    weight_decay: float = field(
        default=5e-4, metadata={"help": "L2 penalty on the weights of convolutions and linear layers."}
    )
    ema: float | None = field(
        default=None,
        metadata={
            "help": "Decay of a moving average of the weights, e.g. 0.999. The average is tested and saved.",
            "default_text": "no average",
        },
    )
    adversarial: str | None = field(
        default=None,
        metadata={
            "help": "Train on adversarial images of n-fgsm or pgd, within EPS/255 (Linf norm); EPS is 8 if "
            "left out.",
            "metavar": "METHOD[:EPS]",
            "default_text": "unchanged images",
        },
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "Share of each label to spread evenly over all classes, e.g. 0.1."}
    )
    distill: float = field(
        default=0.0,
        metadata={
            "help": "Share of the loss, 0 to 1, that compares with the teacher's probabilities in PACK (see "
            "build "
            "--teacher), e.g. 0.7; the rest compares with the labels.",
        },
    )
    distill_temperature: float = field(
        default=1.0,
        metadata={
            "help": "Temperature, at least 1, that softens the probabilities of teacher and network, for "
            "--distill."
        },
    )
    class_weights: ClassWeights = field(
        default="none",
        metadata={
            "help": "Weight the loss so that all classes count equally (balanced).",
            "choices": get_args(ClassWeights),
        },
    )
    sampling: Sampling = field(
        default="uniform",
        metadata={
            "help": "Show all classes equally often in an epoch (balanced).",
            "choices": get_args(Sampling),
        },
    )
    resolution_schedule: str | None = field(
        default=None,
        metadata={
            "help": "Train the first epochs on smaller images, to save time. 32:6,48:3 is six epochs at 32 "
            "pixels, "
            "three at 48, then full size. A pack in tiles has only some sizes.",
            "metavar": "SIZE:EPOCHS,...",
            "default_text": "full size",
        },
    )
    clip_norm: float | None = field(
        default=None,
        metadata={
            "help": "Largest norm of the gradient; a larger one is scaled down to it.",
            "default_text": "no limit",
        },
    )
    patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after this many epochs without a better test result, and keep the best weights. "
            "Needs --test.",
            "default_text": "all epochs, the last weights",
        },
    )
    seed: int = field(
        default=0,
        metadata={"help": "Seed of the initial weights, the order of the images and the augmentation."},
    )
    device: str = field(
        default="auto",
        metadata={
            "help": "Device to compute on: auto (CUDA if available), cpu, cuda or cuda:N.",
        },
    )
    precision: Precision = field(
        default="auto",
        metadata={
            "help": "Number format: float32, bfloat16 (autocast), or auto, which is bfloat16 on CUDA from "
            "compute capability 8.0 on, and for ResNets on CPUs with AMX.",
            "choices": get_args(Precision),
        },
    )

    def __post_init__(self) -> None:
        check_types(self)
        if problem := name_problem(self.model):
            raise ConfigError(problem)
        if not _is_device_name(self.device):
            raise ConfigError(f"unknown device {shortened(self.device)}; use auto, cpu, cuda or cuda:N")
        for name, rule, is_wrong in self._checks():
            if is_wrong:
                raise ConfigError(f"`TrainConfig.{name}` is {shortened(getattr(self, name))}; {rule}")
        if self.adversarial is not None:
            Adversary.parse(self.adversarial)
        if self.resolutions.epochs > self.epochs:
            raise ConfigError(
                f"`TrainConfig.resolution_schedule` has {self.resolutions.epochs} epochs, and `epochs` is "
                f"{self.epochs}; give fewer, or raise `epochs`"
            )

    @property
    def resolutions(self) -> ResolutionSchedule:
        """`resolution_schedule`, parsed; without a stage where there is none."""
        return ResolutionSchedule.parse(self.resolution_schedule)

    def _checks(self) -> list[tuple[str, str, bool]]:
        parts, size, ema = self.accumulate, self.batch_size, self.ema
        clip, patience = self.clip_norm, self.patience
        warmth = self.distill_temperature
        return [
            ("epochs", "it must be at least 1", self.epochs < 1),
            ("batch_size", "it must be at least 1", size < 1),
            ("batch_size", "it must be below 2**31", size >= 2**31),
            ("accumulate", "it must be at least 1", parts < 1),
            ("accumulate", f"it leaves parts of one image of {size}", parts > 1 and size < 2 * parts),
            ("freeze", "it must be at least 1", self.freeze is not False and self.freeze < 1),
            ("lr", "it must be positive and finite", not 0 < self.lr < math.inf),
            ("warm_up", "it must be in [0, 0.5]", not 0 <= self.warm_up <= 0.5),
            ("momentum", "it must be in [0, 1)", not 0 <= self.momentum < 1),
            ("weight_decay", "it must be >= 0 and finite", not 0 <= self.weight_decay < math.inf),
            ("ema", "it must be in (0, 1)", ema is not None and not 0 < ema < 1),
            ("label_smoothing", "it must be in [0, 1)", not 0 <= self.label_smoothing < 1),
            ("distill", "it must be in [0, 1]", not 0 <= self.distill <= 1),
            ("distill_temperature", "it must be at least 1 and finite", not 1 <= warmth < math.inf),
            (
                "distill_temperature",
                "it has no effect without `distill`; leave it out",
                warmth != 1 and self.distill == 0,
            ),
            ("clip_norm", "it must be positive and finite", not 0 < (1 if clip is None else clip) < math.inf),
            ("patience", "it must be at least 1", patience is not None and patience < 1),
            (
                "class_weights",
                'use it or `sampling="balanced"`, not both',
                self.class_weights == self.sampling == "balanced",
            ),
            ("seed", "it must be in [0, 2**63)", not 0 <= self.seed < 2**63),
        ]


def _is_device_name(name: str) -> bool:
    return name in ("auto", "cpu", "cuda") or (name.startswith("cuda:") and name[5:].isdecimal())
