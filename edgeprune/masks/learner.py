"""Training an FSE-Net against a classifier that stays as it is (paper, Algorithm 1)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError

from .components import check_counts, unchecked_selection
from .fse_net import FSENet, importance
from .torch_dct import dct2, idct2

__all__ = ["COUNTS", "MaskLearner", "fse_loss", "read_figures"]

COUNTS = ("correct", "images")
"""The figures of `MaskLearner` that are sums over a batch; the others are means."""

Weigh = Callable[[torch.Tensor], torch.Tensor]
_MOMENTS = ("exp_avg", "exp_avg_sq")


def fse_loss(
    logits: torch.Tensor, labels: torch.Tensor, accuracy_weight: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the loss of an FSE-Net (eq. 6) and its two terms.

    ``mean H(softmax z) - accuracy_weight * mean p_y``. The paper has the accuracy in place of the mean
    probability ``p_y`` of the label, but that has no gradient; the probability is its expected value where
    labels are drawn from the softmax.

    Parameters
    ----------
    logits : float [n, K]
        Of any precision; the loss is computed in float32.
    labels : int64 [n]
    accuracy_weight : float
        The paper's lambda.

    Returns
    -------
    loss, entropy, probability : float32, 0-d
        The entropy in nats.
    """
    logs = functional.log_softmax(logits.float(), dim=1)
    entropy = -(logs.exp() * logs).sum(1).mean()
    probability = logs.gather(1, labels[:, None]).exp().mean()
    return entropy - accuracy_weight * probability, entropy, probability


def read_figures(figures: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Bring the figures of `MaskLearner` to the host in one transfer, which waits for the device.

    Raises
    ------
    TrainingError
        The loss is not finite.
    """
    values = torch.stack([value.double() for value in figures.values()]).tolist()
    read = dict(zip(figures, values, strict=True))
    if not math.isfinite(read["loss"]):
        raise TrainingError(f"the loss of the FSE-Net became {read['loss']}; lower its learning rate")
    return read


class MaskLearner:
    """An FSE-Net in training, with its optimizer (Adam) and the frozen classifier.

    The selection is a hard mask, which has no gradient. The step goes straight through it: forward the mask,
    backward as if it were the sigmoid weights. The classifier may run in a lower precision; spectra,
    weights, selection and loss are float32.

    Parameters
    ----------
    net : FSENet
        On the device of the images to come.
    classifier : torch.nn.Module
        Maps normalized images [n, C, H, W] to logits [n, K]. Put into evaluation mode and frozen, for good.
    k, k_total : int
        See `edgeprune.masks.components.select_components`.
    accuracy_weight : float
        The paper's lambda, see `fse_loss`.
    lr : float
        Learning rate of Adam.
    mean, std : float32 [1, C, 1, 1]
        What the classifier was trained with: pixels on [0, 1] less the mean, over the standard deviation.
    precision_context : callable, optional
        Gives the context that the classifier runs in, such as ``Placement.autocast`` of the runtime.

    Attributes
    ----------
    net : FSENet
    forward_net : callable
        What `step` calls for the weights: `net`, until a caller puts a wrapper of it here, such as
        ``DistributedDataParallel(learner.net)``.
    optimizer : torch.optim.Adam

    Raises
    ------
    ConfigError
        A number is out of range.
    """

    def __init__(
        self,
        net: FSENet,
        classifier: nn.Module,
        *,
        k: int,
        k_total: int,
        accuracy_weight: float,
        lr: float,
        mean: torch.Tensor,
        std: torch.Tensor,
        precision_context: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        check_counts(k, k_total, net.height * net.width)
        if not 0 < lr < math.inf:
            raise ConfigError(f"`lr` is {lr}; it must be positive and finite")
        if not 0 <= accuracy_weight < math.inf:
            raise ConfigError(f"`accuracy_weight` is {accuracy_weight}; it must be at least 0 and finite")
        self.net = net
        self.forward_net: Weigh = net
        self.optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        self._classifier = classifier.eval().requires_grad_(False)
        self._k, self._k_total = k, k_total
        self._accuracy_weight = accuracy_weight
        self._mean, self._std = mean, std
        self._precision = precision_context or contextlib.nullcontext

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        share: float = 1.0,
        pieces: int = 1,
        forward: Weigh | None = None,
    ) -> dict[str, torch.Tensor]:
        """Take one step on a batch.

        Never waits for the device; a loss that is not finite is found by `read_figures`.

        Parameters
        ----------
        images : uint8 or uint16 [n, C, H, W]
        labels : int64 [n]
            Both on the device of the network.
        share : float
            Scales the gradient, not the figures. Where processes with batches of different sizes average
            their gradients: n times the number of processes, over the images of all of them.
        pieces : int
            Work on the batch in so many equal pieces, whose gradients add up to the whole one, to bound
            memory; at most n. Processes that average their gradients must agree on it.
        forward : callable, optional
            Called for the weights instead of `forward_net`.

        Returns
        -------
        dict of str to torch.Tensor
            0-d, on the device, of the state before the step: ``loss``, ``entropy`` and ``probability`` (see
            `fse_loss`), ``correct`` and ``images`` (counts), and ``overlap``, the share of the components
            kept that the energy mask of as many keeps too.

        Raises
        ------
        ConfigError
            The images are of another type, or not of the size that the network takes.
        """
        self.optimizer.zero_grad()
        sums: dict[str, torch.Tensor] = {}
        parts = zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True)
        for part, part_labels in parts:
            spectra = self._spectra(part)
            figures = self._figures(spectra, (forward or self.forward_net)(spectra), part_labels)
            weight = len(part) / len(images) if pieces > 1 else 1.0
            torch.autograd.backward(figures["loss"] * (share * weight))
            for name, figure in figures.items():
                value = figure.detach() * (1 if name in COUNTS else weight)
                sums[name] = sums[name] + value if name in sums else value
        self.optimizer.step()
        return sums

    @torch.no_grad()
    def evaluate(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the figures of a batch as `step` does, without a step."""
        spectra = self._spectra(images)
        return self._figures(spectra, self.net(spectra), labels)

    def _spectra(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype not in (torch.uint8, torch.uint16):
            raise ConfigError(f"`images` must be uint8 or uint16, not {images.dtype}")
        return dct2(images.to(torch.float32) / torch.iinfo(images.dtype).max)

    def _figures(
        self, spectra: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        mask, fixed, overlap = self._selection(spectra, weights.detach())
        # The difference is exactly 0, so the components kept are unchanged and the others exactly 0. Those
        # that their energy keeps stay whatever their weights, which therefore get no gradient from them.
        straight = (weights - weights.detach()) * ~fixed
        logits = self._classify(spectra * (mask.to(torch.float32) + straight))
        loss, entropy, probability = fse_loss(logits, labels, self._accuracy_weight)
        return {
            "loss": loss,
            "entropy": entropy,
            "probability": probability,
            "correct": (logits.argmax(1) == labels).sum(),
            "overlap": overlap,
            "images": labels.new_full((), len(labels)),
        }

    def _selection(
        self, spectra: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the mask, the part of it that energy fixes, and the overlap with the energy mask."""
        energy, scores = spectra.abs().flatten(2), importance(spectra, weights).flatten(2)
        mask = unchecked_selection(energy, scores, self._k, self._k_total)
        strongest = unchecked_selection(energy, energy, self._k_total, self._k_total)
        overlap = (mask & strongest).mean(dtype=torch.float32) * (energy.shape[-1] / self._k_total)
        fixed = unchecked_selection(energy, energy, self._k, self._k) if self._k else torch.zeros_like(mask)
        return mask.view(spectra.shape), fixed.view(spectra.shape), overlap

    def _classify(self, spectra: torch.Tensor) -> torch.Tensor:
        images = (idct2(spectra) - self._mean) / self._std
        with self._precision():
            return cast(torch.Tensor, self._classifier(images.to(memory_format=torch.channels_last)))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that the next step depends on, but the classifier.

        Names are ``net.*``, then ``exp_avg.*``, ``exp_avg_sq.*`` and ``step.*`` of Adam once there was a
        step, each followed by the network's own.
        """
        named = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            named |= {f"{kind}.{name}": state[kind] for kind in (*_MOMENTS, "step") if kind in state}
        return named

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned, so that the next step is the same to the last bit on a CPU.

        Tensors of other names are left to the caller.

        Raises
        ------
        TrainingError
            Tensors are missing or of another shape. Nothing is changed then.
        """
        parameters = dict(self.net.named_parameters())
        self._require_fit(tensors, parameters)
        self.net.load_state_dict({name: tensors[f"net.{name}"] for name in self.net.state_dict()})
        self.optimizer.state.clear()
        for name, parameter in parameters.items():
            if f"step.{name}" in tensors:
                state = {kind: torch.empty_like(parameter, requires_grad=False) for kind in _MOMENTS}
                for kind, moment in state.items():
                    moment.copy_(tensors[f"{kind}.{name}"])
                # Adam counts on the CPU, whatever the parameter's device.
                self.optimizer.state[parameter] = {"step": tensors[f"step.{name}"].cpu().clone(), **state}

    def _require_fit(
        self, tensors: Mapping[str, torch.Tensor], parameters: Mapping[str, nn.Parameter]
    ) -> None:
        shapes = {f"net.{name}": tensor.shape for name, tensor in self.net.state_dict().items()}
        if any(name.startswith("step.") for name in tensors):
            shapes |= {f"{kind}.{name}": p.shape for kind in _MOMENTS for name, p in parameters.items()}
            shapes |= {f"step.{name}": torch.Size() for name in parameters}
        for name, shape in shapes.items():
            found = tensors[name].shape if name in tensors else None
            if found != shape:
                problem = f"{name} is missing" if found is None else f"{name} is {list(found)}"
                message = f"the checkpoint does not fit the FSE-Net: {problem}, not {list(shape)}"
                raise TrainingError(message)
