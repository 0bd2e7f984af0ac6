"""One step of training: the network, its optimizer and its moving average, and their tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from ..networks.freezing import freeze, set_training
from ..networks.grown_head import grow_head, head_tensors
from ..networks.models import create_model
from ..networks.resnet9 import whiten
from ..networks.warm_start import load_weights, require_no_fresh_layer
from ..task import Task
from .objectives.adversarial import Objective
from .optimizers import make_optimizer
from .placement import MEMORY_FORMAT, Placement
from .settings import TrainConfig

__all__ = ["Learner", "update_average"]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, updates: int, decay: float) -> None:
    """Move an exponential moving average of the weights one step towards the model's.

    The decay is ``min(decay, (1 + updates) / (10 + updates))``, so that the random initial weights are
    forgotten early on. Buffers are copied.

    Parameters
    ----------
    average, model : torch.nn.Module
        Two networks of one architecture; the first is changed.
    updates : int
        How many updates came before this one.
    decay : float
        Upper limit of the decay, in (0, 1).
    """
    weight = 1 - min(decay, (1 + updates) / (10 + updates))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, weight)
    for kept, buffer in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)


class Learner:
    """A network in training.

    Attributes
    ----------
    model : torch.nn.Module
        The network that steps are taken with.
    tested : torch.nn.Module
        The network to test and to keep: the moving average where there is one, otherwise `model`.
    forward : torch.nn.Module
        What steps call: `model`, or a wrapper of it that a caller puts here, compiled or data-parallel.
    lap : callable
        Is told ``"forward"``, ``"backward"``, ``"optimizer"`` and ``"average"`` when a step is through it.
    num_classes : int
        Outputs of the network.
    fresh : tuple of str
        The tensors of `model` that were not in the file of weights; empty without one.
    fitted : list of str
        A line on each tensor that was changed to fit, and one on a last layer that keeps rows by name.
    """

    def __init__(
        self,
        config: TrainConfig,
        placement: Placement,
        num_classes: int,
        image_size: int,
        weights: Path | None = None,
        objective: Objective = Objective(),  # noqa: B008 - frozen
        channels: int = 3,
        class_names: Sequence[str] | None = None,
        task: Task = Task(),  # noqa: B008 - frozen
    ) -> None:
        self.num_classes = num_classes
        self._config = config
        self._placement = placement
        self._objective = objective
        self.lap: Callable[[str], object] = _no_lap
        model = create_model(config.model, num_classes, image_size, channels, config.stem)
        self.fitted: list[str] = []
        self.fresh: tuple[str, ...] = ()
        if weights is not None:
            drawn = head_tensors(model, num_classes)
            self.fresh = load_weights(model, weights, num_classes, tell=self.fitted.append)
            grown = grow_head(model, drawn, weights, class_names, task)
            if grown is not None:
                self.fitted.append(str(grown))
                self.fresh = tuple(name for name in self.fresh if name not in drawn)
            if isinstance(grown, str):
                self.fresh += tuple(drawn)
        freeze(model, config.freeze, num_classes)
        if weights is not None:
            require_no_fresh_layer(model, self.fresh, weights)
        self.model = model.to(placement.device).to(memory_format=MEMORY_FORMAT)
        self.forward: nn.Module = self.model
        self._optimizer = make_optimizer(self.model, config)
        self._whitens = weights is None or "whiten.weight" in self.fresh
        self.tested = copy.deepcopy(self.model).eval() if config.ema else self.model

    def train(self) -> None:
        """Put the network in training mode; what is frozen keeps its statistics."""
        set_training(self.model, self._config.freeze)

    def step(
        self, images: torch.Tensor, labels: torch.Tensor, lr: float, number: int, *, share: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step of SGD on the mean loss of a batch, in as many parts as the settings say.

        Parameters
        ----------
        images : torch.Tensor
            float32 ``[n, C, H, W]`` on the device.
        labels : torch.Tensor
            int64 ``[n]``, probabilities float32 ``[n, num_classes]``, or another target, on the device.
        lr : float
            Learning rate of this step.
        number : int
            Steps of the run before this one.
        share : float
            Factor on the gradient, for a process whose part of a batch is larger or smaller than others'.

        Returns
        -------
        tuple of torch.Tensor
            Mean loss before the step, float32, 0-d, and the logits, float32 ``[n, num_classes]``; those of
            the perturbed images where training perturbs them.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        if number == 0 and self._whitens:
            for network in {self.model, self.tested}:
                whiten(network, images)
        losses, outputs = [], []
        parts = self._parts(len(labels))
        for some, wanted in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            for term, logits in self._objective.terms(self._logits, some, wanted):
                part = term * (len(wanted) / len(labels))
                self.lap("forward")
                torch.autograd.backward(part * share)
                self.lap("backward")
                losses.append(part.detach())
                answer = logits.detach()
            outputs.append(answer)
        if self._config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.lap("optimizer")
        if self._config.ema:
            update_average(self.tested, self.model, number, self._config.ema)
            self.lap("average")
        return torch.stack(losses).sum(), torch.cat(outputs)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        with self._placement.autocast():
            logits: torch.Tensor = self.forward(images)
        return logits.float()

    def _parts(self, images: int) -> int:
        """Return how many parts a batch goes through in: none larger than a full batch's, or of one image."""
        if self._config.accumulate == 1:
            return 1
        largest = -(-self._config.batch_size // self._config.accumulate)
        return max(1, min(-(-images // largest), images // 2))

    @torch.no_grad()
    def answers(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the network to test gives for a batch, float32 ``[n, num_classes]``."""
        with self._placement.autocast():
            outputs: torch.Tensor = self.tested(images)
        return outputs.float()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that the next step depends on, torch's random state included.

        Names are ``model.*``, ``average.*`` and ``momentum.*`` followed by the network's own, ``random.cpu``
        and ``random.cuda``.
        """
        tensors = _prefixed("model", self.model.state_dict())
        if self.tested is not self.model:
            tensors |= _prefixed("average", self.tested.state_dict())
        tensors |= _prefixed("momentum", self._momenta())
        tensors["random.cpu"] = torch.get_rng_state()
        if self._placement.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._placement.device)
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned, so that the next step is the same to the last bit on a CPU.

        Raises
        ------
        TrainingError
            If tensors are missing, unknown, or of another shape or type.
        """
        self._require_own(tensors)
        try:
            self.model.load_state_dict(_with_prefix("model", tensors))
            if self.tested is not self.model:
                self.tested.load_state_dict(_with_prefix("average", tensors))
            self._restore_momenta(_with_prefix("momentum", tensors))
            torch.set_rng_state(tensors["random.cpu"])
            if self._placement.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["random.cuda"], self._placement.device)
        except (KeyError, RuntimeError, TypeError) as error:
            raise _unfit(str(error)) from error

    def _require_own(self, tensors: Mapping[str, torch.Tensor]) -> None:
        # There are no momenta before the first step.
        needed = {name: own for name, own in self.tensors().items() if not name.startswith("momentum.")}
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        known = needed | _prefixed("momentum", trained)
        if missing := needed.keys() - tensors.keys():
            raise _unfit(f"{min(missing)} is missing")
        for name, tensor in tensors.items():
            own = known.get(name)
            if own is None:
                if name.startswith(("model.", "average.", "momentum.")):
                    raise _unfit(f"{name} is unknown")
                continue
            if (tensor.shape, tensor.dtype) != (own.shape, own.dtype):
                raise _unfit(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}, not {own.dtype} {list(own.shape)}"
                )

    def _momenta(self) -> dict[str, torch.Tensor]:
        state = self._optimizer.state
        momenta = {name: state[p].get("momentum_buffer") for name, p in self.model.named_parameters()}
        return {name: momentum for name, momentum in momenta.items() if momentum is not None}

    def _restore_momenta(self, momenta: Mapping[str, torch.Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, momentum in momenta.items():
            parameter = parameters[name]
            # In the parameter's own memory format, as SGD would have made it: the order of elements decides
            # which of them the vectorised loops round with a fused multiply-add.
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(momentum)
            self._optimizer.state[parameter]["momentum_buffer"] = buffer


def _unfit(reason: str) -> TrainingError:
    return TrainingError(
        f"the checkpoint does not fit the model: {one_line(reason)}; start again in another folder"
    )


def _no_lap(name: str) -> None:
    pass


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
