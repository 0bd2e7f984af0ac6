"""The file of a trained FSE-Net: its tensors in safetensors, all else as JSON in one metadata entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line
from edgeprune_formats.strict_json import parse_json
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.input_files import input_problem
from edgeprune_runtime.output_files import write_tensors

from .fse_net import FSENet

__all__ = ["FSENetFile", "load_fse_net", "save_fse_net"]

_ENTRY = "edgeprune"
_SETTINGS = ("height", "width", "max_inputs", "reduction")


@dataclass(frozen=True, eq=False)
class FSENetFile:
    """A trained FSE-Net, with the file that it is in and the record of how it was trained."""

    path: Path
    net: FSENet
    record: dict[str, Any]


def save_fse_net(path: str | Path, net: FSENet, record: Mapping[str, Any]) -> None:
    """Write a trained FSE-Net; equal networks and records give equal files.

    Parameters
    ----------
    path : str or Path
        The file, replaced whole.
    net : FSENet
    record : mapping of str to Any
        How it was trained, `k` and `k_total` among the rest. Anything that JSON can hold; no NaN or infinity.

    Raises
    ------
    ConfigError
        The record does not fit into JSON.
    TrainingError
        The file cannot be written.
    """
    description = {"fse_net": {name: getattr(net, name) for name in _SETTINGS}, "record": dict(record)}
    try:
        text = json.dumps(description, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the record of an FSE-Net must fit into JSON: {error}") from error
    # One entry: safetensors writes several in an order of its own.
    write_tensors(Path(path), net.state_dict(), {_ENTRY: text})


def load_fse_net(path: str | Path) -> tuple[FSENet, dict[str, Any]]:
    """Read what `save_fse_net` wrote.

    Returns
    -------
    net : FSENet
        On the CPU.
    record : dict of str to Any

    Raises
    ------
    ArtifactError
        The file is missing or damaged, or not that of an FSE-Net.
    """
    path = Path(path)
    try:
        problem = input_problem(path) if path.exists() else None
        if problem is not None:
            raise ValueError(problem)
        description, tensors = _read(path)
        if "fse_net" not in description:
            raise ValueError("it is not the file of an FSE-Net")
        return _rebuild(description["fse_net"], tensors), dict(description["record"])
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; train an FSE-Net first, or correct the path") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = one_line(error)
        message = f"{path}: cannot be used as an FSE-Net ({reason}); train it again, or correct the path"
        raise ArtifactError(message) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    with safe_open(path, "pt") as file:
        description = parse_json((file.metadata() or {}).get(_ENTRY, "{}").encode())
        # Copies: the file stays mapped otherwise, and one that is cut off later would end the process.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    return description, tensors


def _rebuild(settings: Mapping[str, int], tensors: Mapping[str, torch.Tensor]) -> FSENet:
    # Without memory for what the file claims, nor a draw from the caller's random numbers.
    with torch.device("meta"):
        net = FSENet(**settings)
    net.load_state_dict(tensors, assign=True)
    if any(t.dtype != torch.float32 or not bool(t.isfinite().all()) for t in tensors.values()):
        raise ValueError("its weights are not finite float32 numbers")
    return net
