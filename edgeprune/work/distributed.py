"""Several processes of one run, as ``torchrun`` starts them, joined by `torch.distributed`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError

from .processes import Workers, local_rank, process_rank

__all__ = ["DistributedWorkers", "joined_processes"]

# Peers that die close their connections, which is noticed at once; waiting this long is for peers that read
# a large source or encode a large share.
_TIMEOUT = timedelta(days=7)
_LOST = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe", "TCPStore")


class DistributedWorkers(Workers):
    """`Workers` that are several."""

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        return _sum(tensor)

    def any(self, flag: bool) -> bool:
        """Tell whether `flag` is true in any process."""
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def from_first(self, content: bytes) -> bytes:
        """Return the first process's `content` in every process."""
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0)
        buffer = torch.empty(int(length.item()), dtype=torch.uint8)
        if self.rank == 0 and content:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(buffer, 0)
        return buffer.numpy().tobytes()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what training steps call in place of `model`, so that gradients are averages."""
        wrapped: nn.Module = DistributedDataParallel(model)
        return wrapped

    def synchronized(self, model: nn.Module) -> nn.Module:
        """Return the model with batch normalization over the parts of all processes; same parameters."""
        if next(model.parameters()).device.type == "cuda":
            converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return converted
        return _synchronized_on_cpu(model)


@contextmanager
def joined_processes(device: str, count: int) -> Iterator[DistributedWorkers]:
    """Join the other processes of the run until the block ends; see `edgeprune.work.joining.joined`."""
    place = _place(device, local_rank())
    if "MASTER_ADDR" not in os.environ or "RANK" not in os.environ:
        raise ConfigError("WORLD_SIZE is set, but not by torchrun; unset it, or start with torchrun")
    came_to_the_end = False
    try:
        dist.init_process_group("gloo" if place == "cpu" else "cpu:gloo,cuda:nccl", timeout=_TIMEOUT)
        yield DistributedWorkers(process_rank(), count, place)
        came_to_the_end = True
    except RuntimeError as error:
        if any(sign in str(error) for sign in _LOST):
            raise TrainingError(
                "another process of the run has stopped, and says why unless it was killed; "
                "run the same command again to go on"
            ) from error
        raise
    finally:
        # Not with NCCL after an error: it would wait for processes that do not come, where the end of this
        # one closes the connections as well. Gloo does not wait, and cannot be left to the interpreter's end.
        if dist.is_initialized() and (came_to_the_end or place == "cpu"):
            dist.destroy_process_group()


def _place(device: str, local_rank: int) -> str:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise ConfigError(f"several processes cannot share {device}; use `device` cuda or cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} has no CUDA device, there are {torch.cuda.device_count()}; "
            "start fewer processes (torchrun --nproc-per-node) or use `device=cpu`"
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, and of its gradient in the backward pass."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.forward(ctx, gradient)


class _BatchNorm2dOnCpu(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the parts of all processes, which torch offers on GPUs alone."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name that torch gives it
        if not self.training:
            return super().forward(input)
        # Sums in bfloat16 would be worthless.
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = (0, 2, 3)
        sums = torch.cat([values.sum(axes), values.new_tensor([values.numel() / values.shape[1]])])
        sums = _sum(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        centered = values - mean[:, None, None]
        variance = _sum(centered.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach(), float(count.detach()))
        scaled = centered * torch.rsqrt(variance + self.eps)[:, None, None]
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, count: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    summed: torch.Tensor = _Sum.apply(tensor)
    return summed


def _synchronized_on_cpu(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            # Same parameters, buffers and names: only the forward pass is another.
            module.__class__ = _BatchNorm2dOnCpu
    return model
