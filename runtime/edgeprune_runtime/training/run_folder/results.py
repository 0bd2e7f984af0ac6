"""What comes out of a run: the metrics of its epochs, and the trained network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...input_files import METRICS_FILE, MODEL_FILE
from ...networks.code import BuildNetwork
from ...networks.trained import load_trained
from ...output_files import RESUME, write_tensors, write_text
from .description import network_facts

__all__ = ["is_finished", "load_model", "save_model", "write_metrics"]


def write_metrics(run_dir: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``metrics.jsonl`` by one line of JSON for each epoch of `history`.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    write_text(run_dir / METRICS_FILE, "".join(json.dumps(epoch) + "\n" for epoch in history), remedy=RESUME)


def save_model(
    run_dir: Path, model: nn.Module, description: Mapping[str, Any], epoch: int | None = None
) -> None:
    """Write the trained network to ``model.safetensors``, with what `load_model` needs to rebuild it.

    The epoch is noted where it is not simply the last.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    # One entry: safetensors writes several in an order of its own, and equal runs are to give equal files.
    facts = network_facts(description) | ({} if epoch is None else {"epoch": epoch})
    entry = {"edgeprune": json.dumps(facts)}
    write_tensors(run_dir / MODEL_FILE, model.state_dict(), entry, remedy=RESUME)


def is_finished(run_dir: Path) -> bool:
    """Tell whether the folder holds a trained network."""
    return (run_dir / MODEL_FILE).exists()


def load_model(run_dir: str | Path, trust_model: str | BuildNetwork | None = None) -> nn.Module:
    """Return the network that a finished run has trained, on the CPU and in evaluation mode.

    Parameters
    ----------
    run_dir : str or Path
        The folder given to `train`.
    trust_model : str or callable, optional
        What builds the network, where it is no name of a library's: see
        `edgeprune_runtime.networks.trained.load_trained`.

    Returns
    -------
    torch.nn.Module
        Maps normalized float32 images ``[n, channels, height, width]`` to logits ``[n, num_classes]``. The
        moving average of the weights where the run kept one.

    Raises
    ------
    ConfigError
        If its network is built by code that was not named.
    TrainingError
        If the run is not finished, or its ``model.safetensors`` is damaged.
    """
    return load_trained(Path(run_dir), trust_model).model
