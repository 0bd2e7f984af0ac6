"""How much memory a step of training takes, told before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgeprune_formats import ConfigError

from ..networks.freezing import freeze, set_training
from ..networks.shapes import shaped_network
from ..system.machine import available_bytes
from .placement import Placement
from .settings import TrainConfig

__all__ = ["StepMemory", "choose_parts", "free_bytes", "memory_warning", "shares_host_memory", "step_memory"]

# Fitted to the peaks of all networks, at 32x32 and 224x224, in steps of 8 to 128 images on a CPU: they lay
# between half and all of what `step_memory` says.
_SAVED, _LARGEST, _BASE_BYTES = 1.75, 4.5, 128 * 2**20
# Of what is free, the part that a step may take; the rest is for whatever else the machine does.
_SHARE = 0.8


@dataclass(frozen=True)
class StepMemory:
    """An upper estimate of the memory that training a network takes.

    Attributes
    ----------
    fixed_bytes : int
        Weights, gradients, momentum, average, and what a library takes for its own use.
    image_bytes : int
        For each image that goes through the network at a time.
    """

    fixed_bytes: int
    image_bytes: int

    def images(self, room: int) -> int:
        """Return how many images may go through at a time in so many bytes; 0 or less where none may."""
        return (room - self.fixed_bytes) // self.image_bytes


def step_memory(config: TrainConfig, num_classes: int, image_shape: Sequence[int]) -> StepMemory:
    """Estimate the memory of training steps, without taking any.

    The network runs on shapes alone (torch's meta device; one that cannot, on the CPU), and what autograd
    keeps for the backward pass is counted. bfloat16 mostly takes less; the estimate is that of float32.

    Parameters
    ----------
    config : TrainConfig
        Of which the network, `stem`, `freeze` and `ema` count.
    num_classes : int
        Length of the network's output.
    image_shape : sequence of int
        Channels, height and width in pixels.
    """
    model, device = shaped_network(config.model, num_classes, image_shape, config.stem)
    freeze(model, config.freeze, num_classes)
    set_training(model, config.freeze)
    weights = sum(p.nbytes for p in model.parameters())
    (one, _), (two, largest) = (_kept(model, device, images, image_shape) for images in (2, 4))
    copies = 5 if config.ema else 4
    image = 4 * image_shape[0] * image_shape[1] * image_shape[2]
    return StepMemory(
        fixed_bytes=copies * weights + _BASE_BYTES,
        image_bytes=int(_SAVED * (two - one) / 2 + _LARGEST * largest / 4) + 2 * image,
    )


def choose_parts(config: TrainConfig, memory: StepMemory, room: int) -> int:
    """Return in how few parts batches of `config.batch_size` images fit so many bytes.

    Raises
    ------
    ConfigError
        If not even parts of two images fit.
    """
    images = memory.images(int(_SHARE * room))
    if images < min(2, config.batch_size):
        need = (memory.fixed_bytes + 2 * memory.image_bytes) / _SHARE
        raise ConfigError(
            f"{config.model} needs about {need / 1e6:,.0f} MB for two images at a time, and "
            f"{room / 1e6:,.0f} MB are free; free memory, choose a smaller network or smaller images"
        )
    parts = -(-config.batch_size // images)
    # Parts differ by one image at most, and none may be of one.
    return max(1, min(parts, config.batch_size // 2))


def memory_warning(config: TrainConfig, memory: StepMemory, images: int, placement: Placement) -> str | None:
    """Return a warning where a step hardly fits the free memory: the system would end it without a word.

    That is where half of what `step_memory` says is more than what is free. None where it is not, where that
    is not known, and for a GPU with memory of its own, on which torch says what is short.

    Parameters
    ----------
    config : TrainConfig
        Of which the network, `batch_size` and `accumulate` count.
    memory : StepMemory
        Of the network.
    images : int
        In the training set; no batch has more.
    placement : Placement
        Where it computes.
    """
    free = free_bytes(placement) if shares_host_memory(placement.device) else None
    at_once = -(-min(config.batch_size, images) // config.accumulate)
    need = memory.fixed_bytes + at_once * memory.image_bytes
    if free is None or need / 2 <= free:
        return None
    return (
        f"{at_once:,} images at a time may take up to {need / 1e6:,.0f} MB with {config.model}, and "
        f"{free / 1e6:,.0f} MB are free; if the process is ended without a message, take smaller batches, or "
        "--batch-size auto"
    )


def free_bytes(placement: Placement) -> int | None:
    """Return the memory that is free where a run computes; None where that is not known."""
    device = placement.device
    if device.type != "cuda":
        return available_bytes()
    # A GPU in the memory of the host counts cached files as used, which the system gives up.
    free = available_bytes() if shares_host_memory(device) else int(torch.cuda.mem_get_info(device)[0])
    # What torch holds from an earlier run of this process is used again.
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return None if free is None else free + held


def shares_host_memory(device: torch.device) -> bool:
    """Tell whether what a device holds lies in the memory that the processor uses, as on a Jetson."""
    return device.type == "cpu" or bool(torch.cuda.get_device_properties(device).is_integrated)


def _kept(model: nn.Module, device: torch.device, images: int, image_shape: Sequence[int]) -> tuple[int, int]:
    """Return the bytes that autograd keeps of a batch, and those of the largest output of a layer."""
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}
    largest = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # The tensors are held, so that no storage gets the number of another.
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor
        return tensor

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.nbytes)

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    batch = torch.zeros(images, *image_shape, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        functional.cross_entropy(model(batch), torch.zeros(images, dtype=torch.int64, device=device))
    for hook in hooks:
        hook.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), largest


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
