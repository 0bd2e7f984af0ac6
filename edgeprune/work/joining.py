"""Joining the processes that torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from edgeprune_formats import ConfigError

from .processes import Workers

__all__ = ["joined"]


@contextmanager
def joined(device: str = "auto") -> Iterator[Workers]:
    """Join the processes that ``torchrun`` started, if it did, until the block ends.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. With several processes each takes the CUDA device
        of its local rank.

    Raises
    ------
    ConfigError
        More processes than CUDA devices, or one device for several processes.
    TrainingError
        Another process of the run has died.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Workers(device=device)
        return
    try:
        from .distributed import joined_processes
    except ImportError as error:
        raise ConfigError("several processes need torch; pip install 'edgeprune[build]'") from error

    with joined_processes(device, count) as workers:
        yield workers
