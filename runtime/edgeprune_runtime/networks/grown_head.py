"""Beginning with a run of other classes: the last layer keeps the rows of those that it knows, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import printable
from edgeprune_formats.strict_json import parse_json

from ..checks import from_json
from ..class_names import class_numbers, same_classes
from ..errors import TrainingError
from ..task import Task
from .layers import head_of
from .trained import DAMAGE, MODEL_FILE, Facts

__all__ = ["GrownHead", "grow_head", "head_tensors", "weights_file"]


@dataclass(frozen=True)
class GrownHead:
    """What became of a run's last layer for other classes.

    Attributes
    ----------
    kept, new : tuple of str
        Classes whose rows are the run's, and whose rows stay fresh.
    dropped : tuple of str
        Classes of the run that are not wanted any more.
    """

    kept: tuple[str, ...]
    new: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        new = f", {len(self.new):,} new ({_some(self.new)})" if self.new else ""
        gone = f", {len(self.dropped):,} of the run left out ({_some(self.dropped)})" if self.dropped else ""
        return f"classes of the last layer: {len(self.kept):,} kept by name{new}{gone}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")


def weights_file(init: Path) -> Path:
    """Return the file of weights that a run's folder, or the file itself, stands for.

    Raises
    ------
    TrainingError
        The folder holds a run that is not finished.
    """
    if (init / MODEL_FILE).exists():
        return init / MODEL_FILE
    if (init / "config.json").exists():
        raise TrainingError(f"{init} holds no trained model to begin with; finish the run with `resume=True`")
    return init


def head_tensors(model: nn.Module, num_classes: int) -> dict[str, torch.Tensor]:
    """Return copies of the last layer's tensors, by their names; none where it is not known which it is."""
    try:
        name, head = head_of(model, num_classes)
    except ConfigError:
        return {}
    return {f"{name}.{key}": value.detach().clone() for key, value in head.named_parameters()}


def grow_head(
    model: nn.Module,
    fresh: Mapping[str, torch.Tensor],
    path: Path,
    class_names: Sequence[str] | None,
    task: Task = Task(),  # noqa: B008 - frozen
) -> GrownHead | str | None:
    """Give the last layer the rows and biases that a run has for the classes it knows, by name.

    Where the file does not say which classes it knows, or these are the wanted ones in the same order,
    nothing is changed. Of a run that has learned another target the layer stays fresh; of values its outputs
    are brought to the mean and the standard deviation of the new ones.

    Parameters
    ----------
    model : torch.nn.Module
        Its other layers have their weights already.
    fresh : mapping of str to torch.Tensor
        `head_tensors` of `model` as it was drawn: the rows of new classes.
    path : Path
        The run's ``model.safetensors``.
    class_names : sequence of str, optional
        The classes of the outputs, where they are known.
    task : Task
        What is to be learned.

    Returns
    -------
    GrownHead, str or None
        What became of the classes, or a line on a layer that stays fresh; None where nothing was changed.

    Raises
    ------
    TrainingError
        A row that is kept holds NaN or infinity.
    """
    facts, given = _head_of_file(path, fresh)
    if facts is None:
        return None
    earlier = facts.task or Task()
    is_other = (earlier.kind, earlier.target) != (task.kind, task.target)
    if is_other and not (earlier.is_ranked and task.is_ranked):
        _set(model, fresh)
        return f"the last layer is fresh: the run has learned {earlier}"
    if task.kind == "value":
        _rescale(model, fresh, earlier, task)
        return None
    known = facts.class_names
    if class_names is None or known is None or not given or same_classes(known, class_names):
        return None
    numbers = class_numbers(class_names, known)
    wanted = [place for place, number in enumerate(numbers) if number is not None]
    rows = [number for number in numbers if number is not None]
    grown = {name: drawn.clone() for name, drawn in fresh.items()}
    for name, drawn in grown.items():
        drawn[wanted] = given[name][rows].to(drawn.dtype)
        if not torch.isfinite(drawn).all():
            raise TrainingError(f"{path}: {name} holds NaN or infinity; take weights that are finite")
    _set(model, grown)
    return GrownHead(
        tuple(class_names[place] for place in wanted),
        tuple(name for name, number in zip(class_names, numbers, strict=True) if number is None),
        tuple(name for number, name in enumerate(known) if number not in rows),
    )


def _set(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].data.copy_(tensor)


def _rescale(model: nn.Module, names: Iterable[str], earlier: Task, task: Task) -> None:
    """Let a layer that gave ``(value - mean) / std`` of a run's values give that of others."""
    if len(earlier.std) != len(task.std):
        return
    mean, std = torch.tensor(task.mean), torch.tensor(task.std)
    factor, offset = torch.tensor(earlier.std) / std, (torch.tensor(earlier.mean) - mean) / std
    parameters = dict(model.named_parameters())
    for name in names:
        tensor = parameters[name].data
        tensor.mul_(factor.view(-1, *[1] * (tensor.ndim - 1)))
        if tensor.ndim == 1:
            tensor.add_(offset)


def _head_of_file(
    path: Path, own: Mapping[str, torch.Tensor]
) -> tuple[Facts | None, dict[str, torch.Tensor]]:
    """Return what a file of a run knows of its network, and its last layer where that fits."""
    try:
        with safe_open(path, "pt") as content:
            facts = from_json(Facts, parse_json((content.metadata() or {})["edgeprune"].encode()))
            held = {name: content.get_tensor(name) for name in own if name in content.keys()}  # noqa: SIM118
    except DAMAGE:
        return None, {}
    fits = all(name in held and held[name].shape == (facts.num_classes, *own[name].shape[1:]) for name in own)
    return facts, held if fits else {}
