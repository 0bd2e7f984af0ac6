"""The weights of a run's best epoch, in a file beside its checkpoints."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import TrainingError
from ...output_files import RESUME, write_tensors
from ..progress.stopping import best_epoch
from .checkpoint import Checkpoint, read_tensors

__all__ = ["best_files", "best_weights", "kept_weights", "remove_other_bests", "write_best"]

_NAME = re.compile(r"best-[0-9]{4,}\.safetensors")
Digests = Mapping[str, str]
"""The SHA-256 of each file, by the number of its epoch."""


def write_best(run_dir: Path, epoch: int, weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Write the weights of an epoch, before the checkpoint that counts it; return its digest.

    Raises
    ------
    TrainingError
        They cannot be written.
    """
    return {str(epoch): write_tensors(_path(run_dir, epoch), weights, remedy=RESUME)}


def best_files(run_dir: Path) -> list[Path]:
    """Return the files in a folder that have a name of `write_best`."""
    return [path for path in run_dir.iterdir() if _NAME.fullmatch(path.name)]


def remove_other_bests(
    run_dir: Path, history: Sequence[Mapping[str, Any]], digests: Digests
) -> dict[str, str]:
    """Remove the files that neither of the last two checkpoints needs; return the digests of the others."""
    needed = {best_epoch(part) for part in (history, history[:-1]) if part}
    for path in best_files(run_dir):
        if path not in {_path(run_dir, epoch) for epoch in needed}:
            with contextlib.suppress(OSError):
                path.unlink()
    return {epoch: digest for epoch, digest in digests.items() if int(epoch) in needed}


def best_weights(run_dir: Path, epoch: int, digests: Digests) -> dict[str, torch.Tensor]:
    """Return the weights of an epoch, verified.

    Raises
    ------
    TrainingError
        The file is missing, cut off or changed.
    """
    path = _path(run_dir, epoch)
    if str(epoch) not in digests:
        raise TrainingError(f"{path}: the checkpoint does not have its SHA-256")
    return read_tensors(path, digests[str(epoch)])


def kept_weights(run_dir: Path, checkpoint: Checkpoint) -> tuple[int | None, dict[str, torch.Tensor]]:
    """Return the weights that a run keeps at a checkpoint, and the epoch whose they are, of a best one.

    They are those of the best epoch, where the run has patience and they can be read, or else the moving
    average, where there is one.
    """
    state, every = checkpoint.state, checkpoint.tensors
    if best := state.get("best"):
        epoch = best_epoch(state["history"])
        # Another process may have gone on, and removed them, since the checkpoint was read.
        with contextlib.suppress(TrainingError):
            return epoch, best_weights(run_dir, epoch, best)
    start = "average." if any(name.startswith("average.") for name in every) else "model."
    return None, {name.removeprefix(start): every[name] for name in every if name.startswith(start)}


def _path(run_dir: Path, epoch: int) -> Path:
    return run_dir / f"best-{epoch:04d}.safetensors"
