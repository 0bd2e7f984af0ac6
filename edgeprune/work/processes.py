"""The processes that share the work of a run: this one alone, or several that ``torchrun`` has started.

Every process reads the same images and holds the same network. A batch is cut into as many parts as there
are processes; gradients and batch statistics are summed over them, so that a step is the one a single
process would take, but for the order of additions.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Workers", "local_processes", "local_rank", "process_rank"]


def process_rank() -> int:
    """Return this process's number among those that ``torchrun`` started; 0 for the first, or alone."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number among those of the run on this host."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_processes() -> int:
    """Return how many processes of the run are on this host."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Workers:
    """This process, alone; `edgeprune.work.distributed.DistributedWorkers` for one of several.

    Attributes
    ----------
    rank : int
        0 for the first, which writes the files and prints.
    count : int
        Processes in all.
    device : str
        What this process computes on: as asked for, or with several processes and CUDA a device of its own.
    """

    rank: int = 0
    count: int = 1
    device: str = "auto"

    def bounds(self, length: int) -> tuple[int, int]:
        """Return where this process's part of `length` rows begins and ends; parts differ by one at most."""
        return length * self.rank // self.count, length * (self.rank + 1) // self.count

    def part(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return this process's part of the rows of a batch."""
        start, stop = self.bounds(len(rows))
        return rows[start:stop]

    def share(self, part: int, length: int) -> float:
        """Return the factor that makes a mean over `part` of `length` rows count for as much as it should.

        `torch.nn.parallel.DistributedDataParallel` averages gradients as though parts were equal.
        """
        return part * self.count / length

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        return tensor

    def any(self, flag: bool) -> bool:
        """Tell whether `flag` is true in any process."""
        return flag

    def first(self, flag: bool) -> bool:
        """Return the first process's `flag` in every process."""
        return self.any(flag and self.rank == 0)

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.any(False)

    def from_first(self, content: bytes) -> bytes:
        """Return the first process's `content` in every process."""
        return content

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what training steps call in place of `model`, so that gradients are averages."""
        return model

    def synchronized(self, model: nn.Module) -> nn.Module:
        """Return the model with batch normalization over the parts of all processes; same parameters."""
        return model
