"""What commands that compute with torch share: whether it is there, and how many threads it takes."""

from __future__ import annotations

import importlib
import importlib.util
import os

import click

from edgeprune.text import count_text, say_if_read
from edgeprune_formats import ConfigError

from .fields import option

__all__ = ["THREADS", "choose_threads", "require_torch"]

# With this share of the processors free, or less, a thread on each would wait for those of others.
_HELD = 0.6
# Of many thousands the system gives no more at some point, and torch ends without a word.
_MOST_THREADS = 1024
THREADS = option(
    "--threads",
    type=click.IntRange(1, _MOST_THREADS),
    help="CPU threads to compute with.  [default: OMP_NUM_THREADS if set, else one per free core]",
)


def require_torch(what: str = "training", extra: str = "torch") -> None:
    """Raise `ConfigError` where torch is not installed, or cannot be loaded.

    Parameters
    ----------
    what : str
        Needs it, for the message.
    extra : str
        Of this package, that installs it.
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(f"{what} needs torch; pip install 'edgeprune[{extra}]'")
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(f"torch cannot be loaded ({error}); reinstall it, or allow more memory") from error


def choose_threads(threads: int | None) -> None:
    """Set how many threads torch computes with, before it starts them.

    None is as many as there may be; of processors that other processes hold, those are left out, with a word.
    """
    import torch

    from edgeprune_runtime.system.machine import cpu_quota, free_processors, save_address_space

    save_address_space()
    # OMP_NUM_THREADS, which torch has read, may ask for fewer; a container's quota is not known to it.
    most = min(torch.get_num_threads(), cpu_quota())
    if threads is None and most > 1 and "OMP_NUM_THREADS" not in os.environ:
        free = free_processors()
        # All threads of a step wait for the last, which shares its processor with another process.
        if free is not None and free <= _HELD * most:
            threads = max(1, round(free))
            say_if_read(
                f"edgeprune: other processes are running, {free:.1f} of {most} cores are free: computing in "
                f"{count_text(threads, 'thread')} (--threads {most} takes all)",
                err=True,
            )
    torch.set_num_threads(threads or most)
