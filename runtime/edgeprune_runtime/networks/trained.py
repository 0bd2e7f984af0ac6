"""A trained network: its weights, the images it takes, and the classes it tells apart."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line
from edgeprune_formats.limits import MAX_CHANNELS, MAX_CLASSES, MAX_SIDE
from edgeprune_formats.strict_json import parse_json

from ..checks import from_json
from ..errors import TrainingError
from ..input_files import CONFIG_FILE, MODEL_FILE, damage_remedy, input_problem
from ..normalization import Normalization
from ..task import Task
from .code import BuildNetwork, allow_code
from .libraries import builder_of
from .models import create_model
from .names import MODEL_NAMES, Stem, is_code, name_problem

__all__ = [
    "DAMAGE",
    "MODEL_FILE",
    "Facts",
    "TrainedNetwork",
    "load_trained",
    "rebuild_network",
    "resolve_model",
    "trained_file",
]

DAMAGE = (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError)
"""What a file that is no network, or a damaged one, raises."""


@dataclass(frozen=True)
class Facts:
    """What ``model.safetensors`` says of its network; the attributes are those of `TrainedNetwork`."""

    model: str
    num_classes: int
    image_shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] | None = None
    epoch: int | None = None
    task: Task | None = None
    stem: Stem = "auto"

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1 or max(self.image_shape) > MAX_SIDE:
            raise ValueError(f"image_shape is {self.image_shape}")
        if not 1 <= self.num_classes <= MAX_CLASSES:
            raise ValueError(f"num_classes is {self.num_classes}")
        if self.task is not None and self.task.mean and len(self.task.mean) != self.num_classes:
            raise ValueError(f"{self.num_classes} outputs and {len(self.task.mean)} values")


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network that was trained, and the images it takes.

    Attributes
    ----------
    path : Path
        The folder of the run, or the file, that it comes from.
    model : torch.nn.Module
        On the CPU, in evaluation mode: normalized float32 [n, C, H, W] to logits [n, classes].
    name : str
        As `edgeprune_runtime.networks.models.create_model` takes it.
    image_shape : (int, int, int)
        Channels, height and width in pixels.
    num_classes : int
    class_names : tuple of str, optional
        One for each class, where they are known.
    normalization : Normalization, optional
        Of the images it takes, where that is known.
    stage : str, optional
        Which weights of a run these are, where they are not those of its end.
    task : Task
        What it has learned.
    """

    path: Path
    model: nn.Module
    name: str
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    stage: str | None = None
    task: Task = Task()  # noqa: RUF009 - frozen

    @property
    def known_normalization(self) -> Normalization:
        """How pixels on [0, 1] become what the network takes.

        Raises
        ------
        TrainingError
            It is not known.
        """
        if self.normalization is None:
            what = "does not say how its images are normalized (mean and std)"
            raise TrainingError(f"{self.path}: {what}; train it from a pack")
        return self.normalization

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each channel of the images it takes, for pixels on [0, 1]."""
        return tuple(self.known_normalization.mean)

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of each channel of the images it takes, for pixels on [0, 1]."""
        return tuple(self.known_normalization.std)

    def on_images(self) -> NormalizedNetwork:
        """Return what maps images [n, C, H, W] on [0, 1] to logits or, of other targets, to predictions."""
        return NormalizedNetwork(self.model, self.known_normalization, self.task).eval()

    def identity(self) -> dict[str, Any]:
        """Return which network it is, for provenance, ready for JSON.

        Returns
        -------
        dict
            ``file`` (its name), ``sha256`` (of the names and bytes of all tensors), ``model``,
            ``num_classes`` and ``image_shape``.
        """
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return {
            "file": self.path.name,
            "sha256": digest.hexdigest(),
            "model": self.name,
            "num_classes": self.num_classes,
            "image_shape": list(self.image_shape),
        }


class NormalizedNetwork(nn.Module):
    """A network behind the normalization of its images, and before what makes predictions of its outputs.

    Several labels come as a probability each, by the sigmoid function, and values in the unit of the data;
    classes stay logits.

    Parameters
    ----------
    network : torch.nn.Module
        Normalized float32 [n, C, H, W] to logits [n, classes].
    normalization : Normalization
    task : Task
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor
    value_mean: torch.Tensor
    value_std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        normalization: Normalization,
        task: Task = Task(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.network = network
        # Torch 2.6 calls a node "mean" as well, were that the name of a buffer.
        self.register_buffer("pixel_mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(normalization.std).view(1, -1, 1, 1))
        self._kind = task.kind
        if task.kind == "value":
            self.register_buffer("value_mean", torch.tensor(task.mean))
            self.register_buffer("value_std", torch.tensor(task.std))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 images ``[n, C, H, W]`` on [0, 1] to logits ``[n, classes]``, or to predictions."""
        outputs: torch.Tensor = self.network((images - self.pixel_mean) / self.pixel_std)
        if self._kind == "multilabel":
            return outputs.sigmoid()
        return outputs * self.value_std + self.value_mean if self._kind == "value" else outputs


def trained_file(run: Path) -> Path:
    """Return the file of a run's trained network.

    Raises
    ------
    TrainingError
        The run is not finished, or the folder is that of no run.
    """
    file = run / MODEL_FILE
    if not file.exists():
        is_run = (run / CONFIG_FILE).exists()
        remedy = (
            "finish the run with `resume=True`" if is_run else "name the folder of a run of edgeprune train"
        )
        raise TrainingError(f"{run} holds no trained model; {remedy}")
    return file


def load_trained(path: Path, trust_model: str | BuildNetwork | None = None) -> TrainedNetwork:
    """Return the trained network of a run's folder, or of a ``model.safetensors``.

    Parameters
    ----------
    path : Path
    trust_model : str or callable, optional
        What builds the network, for one that a function of the user's builds: its name, as the run records
        it, or the function. Its code is run, so the file's word for it does not do.

    Raises
    ------
    ConfigError
        The network is built by code that was not named, or by a library that is not installed.
    TrainingError
        The run is not finished, or the file is missing or damaged.
    """
    file = path
    if path.is_dir() or (path.name == MODEL_FILE and not path.exists()):
        file = trained_file(path if path.is_dir() else path.parent)
    try:
        problem = input_problem(file)
        if problem is not None:
            raise ValueError(problem)
        with safe_open(file, "pt") as content:
            facts = vars(from_json(Facts, parse_json((content.metadata() or {})["edgeprune"].encode())))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - not a dict
    except DAMAGE as error:
        raise _damaged(file, error) from error
    # Before what is wrong counts as damage: a name that needs leave, or a library that is missing.
    facts["model"] = resolve_model(file, facts["model"], trust_model)
    try:
        return rebuild_network(path, tensors, facts)
    except DAMAGE as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> TrainingError:
    remedy = damage_remedy(file, "train it again")
    reason = one_line(error).removesuffix(f"; {remedy}")
    return TrainingError(f"{file}: not a model of a run, or damaged ({reason}); {remedy}")


def resolve_model(file: Path, recorded: str, trust_model: str | BuildNetwork | None) -> str:
    """Return the name that a recorded network is built by, once it is known that it can be.

    Raises
    ------
    ConfigError
        It is built by code that was not named, or by a library that is not installed.
    TrainingError
        It is no name.
    """
    if name_problem(recorded) is not None:
        raise _damaged(file, ConfigError(f"unknown model {recorded!r}"))
    name = recorded if trust_model is None or not is_code(recorded) else allow_code(trust_model)
    if name in MODEL_NAMES:
        return name
    try:
        builder_of(name)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    return name


def rebuild_network(
    path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> TrainedNetwork:
    """Return a network made of its tensors and what is known of it.

    Parameters
    ----------
    path : Path
        Where it comes from.
    tensors : mapping of str to torch.Tensor
        Its state dict.
    facts : mapping of str to Any
        ``model`` (its name), ``num_classes``, ``image_shape`` and, where they are known, ``mean``, ``std``,
        ``class_names``, ``task`` (a `Task`) and ``stem``.

    Raises
    ------
    ConfigError, KeyError, RuntimeError, TypeError, ValueError
        They do not fit each other, or a weight is not finite.
    """
    channels, height, width = map(int, facts["image_shape"])
    classes = facts["num_classes"]
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"images of {channels} channels; networks take 1 to {MAX_CHANNELS}")
    stem: Stem = facts.get("stem", "auto")
    model = _filled(tensors, (facts["model"], classes, min(height, width), channels, stem))
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")
    names = facts.get("class_names")
    return TrainedNetwork(
        path,
        model.eval(),
        facts["model"],
        (channels, height, width),
        classes,
        tuple(map(str, names)) if names and len(names) == classes else None,
        _normalization(facts, channels),
        task=facts.get("task") or Task(),
    )


def _filled(tensors: Mapping[str, torch.Tensor], arguments: tuple[str, int, int, int, Stem]) -> nn.Module:
    """Build a network that has these tensors."""
    name = arguments[0]
    if not is_code(name):
        # Before a name and a size in the file have memory taken.
        with contextlib.suppress(ConfigError), torch.device("meta"):
            model = create_model(*arguments)
            _load(model, tensors, assign=True)
            if name in MODEL_NAMES:
                return model
    # Others may hold tensors that are not in their state dict, and need values.
    with torch.random.fork_rng([]):
        model = create_model(*arguments)
    _load(model, tensors, assign=False)
    return model


def _load(model: nn.Module, tensors: Mapping[str, torch.Tensor], *, assign: bool) -> None:
    for name, own in model.state_dict().items():
        if name in tensors and tensors[name].dtype != own.dtype:
            raise ValueError(f"{name} is {tensors[name].dtype}, not {own.dtype}")
    model.load_state_dict(dict(tensors), assign=assign)


def _normalization(facts: Mapping[str, Any], channels: int) -> Normalization | None:
    try:
        found = Normalization(facts["mean"], facts["std"])
    except (KeyError, ConfigError):
        return None
    return found if len(found.mean) == channels else None
