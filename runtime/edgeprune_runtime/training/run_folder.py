"""The files of a RUN folder beside its checkpoints: what was asked, what was measured, what came out."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune_formats import ConfigError, __version__
from edgeprune_formats.errors import one_line
from edgeprune_formats.files import LOCK_FILE, file_sha256, open_lock, read_regular
from edgeprune_formats.limits import MAX_CHANNELS
from edgeprune_formats.strict_json import parse_json

from ..errors import TrainingError
from ..input_files import input_problem, is_pickle
from ..networks.code import BuildNetwork
from ..networks.freezing import freeze
from ..networks.shapes import shaped_network
from ..networks.trained import MODEL_FILE, load_trained
from .checkpoint import RESUME, has_checkpoint, remove_uncommitted, write_tensors, write_text
from .placement import Placement
from .settings import TrainConfig

__all__ = [
    "describe_run",
    "is_finished",
    "load_model",
    "locked",
    "network_facts",
    "open_run",
    "opened_run",
    "read_description",
    "save_model",
    "versions",
    "write_metrics",
]

_CONFIG_FILE = "config.json"
_METRICS_FILE = "metrics.jsonl"
_LOCK_FILE = LOCK_FILE
_MAX_CONFIG_BYTES = 2**26
_PROVENANCE = "provenance "
_DERIVED = ("num_classes", "image_shape", "steps_per_epoch")
# What may differ when a run goes on: consequences of the other entries, versions, and what a run is free in.
_DESCRIPTIVE = ("versions", "parameters", "notes", "schedules")


def describe_run(
    config: TrainConfig,
    placement: Placement,
    *,
    num_classes: int,
    image_shape: Sequence[int],
    steps_per_epoch: int,
    init: Path | None,
    teacher: Path | None = None,
    provenance: Mapping[str, Any] | None,
    notes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what ``config.json`` holds of a run, with ``"auto"`` replaced by what it stands for.

    Raises
    ------
    ConfigError
        If there is nothing to train on, or the network cannot be built or does not take such images.
    TrainingError
        If the weights to begin with, or the teacher's, cannot be read.
    """
    if len(image_shape) != 3 or not 1 <= image_shape[0] <= MAX_CHANNELS:
        what = f"the networks take 1 to {MAX_CHANNELS} channels, (channels, h, w)"
        raise ConfigError(f"images of shape {tuple(image_shape)}: {what}")
    if steps_per_epoch < 1:
        raise ConfigError("the training set yields no batch; lower `batch_size` or keep the last batch")
    model, _ = shaped_network(config.model, num_classes, image_shape, config.stem)
    freeze(model, config.freeze, num_classes)
    description = {
        "config": {**asdict(config), "device": str(placement.device), "precision": placement.precision},
        "num_classes": num_classes,
        "image_shape": list(image_shape),
        "steps_per_epoch": steps_per_epoch,
        "init": None if init is None else _sha256(init),
        "teacher": None if teacher is None else _sha256(teacher / MODEL_FILE),
        "provenance": dict(provenance or {}),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": versions(),
        "notes": {
            **(notes or {}),
            "threads": torch.get_num_threads(),
            **{name: str(path) for name, path in (("init", init), ("teacher", teacher)) if path is not None},
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(description))
    return plain


def versions() -> dict[str, str]:
    """Return the versions that what is trained depends on."""
    return {
        "edgeprune": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def open_run(
    run_dir: Path, description: Mapping[str, Any], resume: bool, *, may_grow: bool = False
) -> dict[str, Any]:
    """Begin a new run in a folder that is `locked`, or check that the run in it is the one to go on with.

    With `may_grow` it may have more epochs than it was to have.

    Returns
    -------
    dict
        The description; of a run that goes on for more epochs than it was to with ``schedules``, the epochs
        at which each schedule of the learning rate ends.

    Raises
    ------
    ConfigError
        If the folder holds a run that is not to be resumed, or one with other settings.
    TrainingError
        If ``config.json`` cannot be read or written.
    """
    path = run_dir / _CONFIG_FILE
    if not _holds_run(run_dir):
        _write_config(path, description)
        return dict(description)
    if not resume:
        raise ConfigError(f"{run_dir} already holds a run; go on with `resume=True`, or use another folder")
    old = _read_config(path)
    asked, epochs = old.get("config", {}), description["config"].get("epochs")
    ends = old.get("schedules", [asked.get("epochs")])
    grows = may_grow and isinstance(epochs, int) and isinstance(ends[-1], int) and epochs > ends[-1]
    if grows:
        old = {**old, "config": {**asked, "epochs": epochs}, "schedules": [*ends, epochs]}
    new = dict(description)
    if has_checkpoint(run_dir) and new.get("init") is None:
        # The first step alone needs the weights to begin with.
        new["init"] = old.get("init")
    _require_same(run_dir, old, new)
    if grows:
        _write_config(path, old)
    return {**new, "schedules": old["schedules"]} if "schedules" in old else new


def read_description(run_dir: Path) -> dict[str, Any]:
    """Return what ``config.json`` holds of the run in a folder; empty where there is none.

    Raises
    ------
    TrainingError
        If it cannot be read.
    """
    path = run_dir / _CONFIG_FILE
    return _read_config(path) if path.exists() else {}


@contextlib.contextmanager
def opened_run(run_dir: Path, description: Mapping[str, Any], resume: bool) -> Iterator[dict[str, Any]]:
    """Make and lock the folder of a run until the block ends, and give what `open_run` returns.

    On an error before the first checkpoint of a new run its files are removed again, so that the same command
    can be given again once what was wrong is right.
    """
    made = not run_dir.exists()
    with locked(run_dir):
        new = not _holds_run(run_dir)
        try:
            yield open_run(run_dir, description, resume, may_grow=True)
        except Exception:
            if new and not has_checkpoint(run_dir):
                with contextlib.suppress(OSError):
                    remove_uncommitted(run_dir)
                    for path in (run_dir / _CONFIG_FILE, run_dir / _LOCK_FILE, *run_dir.glob("best-*")):
                        path.unlink(missing_ok=True)
                    if made:
                        run_dir.rmdir()
            raise


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Make a folder if it is missing, and keep other processes from working in it.

    A process that ends, however it does, frees it. A file system without locks keeps nobody out, and a
    warning says so.

    Raises
    ------
    ConfigError
        If it cannot be made, or another process works in it.
    """
    while True:
        lock, held = _open_lock(run_dir)
        try:
            if held is False:
                raise ConfigError(f"{run_dir}: another process trains in it; use another folder")
            # Whoever held it before may have failed, and removed what this process has just locked.
            if (run_dir / _LOCK_FILE).exists():
                if held is None:
                    what = "the file system has no locks; start no second process there"
                    warnings.warn(f"{run_dir}: {what}", stacklevel=3)
                yield
                return
        finally:
            os.close(lock)


def _open_lock(run_dir: Path) -> tuple[int, bool | None]:
    _make_folder(run_dir)
    try:
        return open_lock(run_dir / _LOCK_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{run_dir / _LOCK_FILE} is a symbolic link; remove it") from error
        raise ConfigError(f"{run_dir} cannot be locked: {error.strerror}; use another folder") from error


def write_metrics(run_dir: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``metrics.jsonl`` by one line of JSON for each epoch of `history`.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    write_text(run_dir / _METRICS_FILE, "".join(json.dumps(epoch) + "\n" for epoch in history), remedy=RESUME)


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


def network_facts(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rebuilds the network of a run, see `edgeprune_runtime.networks.trained.Facts`."""
    config = description["config"]
    network = {"model": config["model"]}
    if config.get("stem", "auto") != "auto":
        network["stem"] = config["stem"]
    network |= {name: description[name] for name in ("num_classes", "image_shape")}
    known = [name for name in ("mean", "std", "class_names", "task") if name in description["provenance"]]
    return network | {name: description["provenance"][name] for name in known}


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


def _sha256(path: Path) -> str:
    problem = None if is_pickle(path) else input_problem(path)
    if problem is not None:
        raise TrainingError(f"{path}: {problem}")
    try:
        return file_sha256(path)
    except OSError as error:
        raise TrainingError(f"{path}: the weights cannot be read ({error.strerror})") from error


def _holds_run(run_dir: Path) -> bool:
    # Tensors of a checkpoint that was never committed are no run: the disk failed at the first one.
    names = (_CONFIG_FILE, _METRICS_FILE, MODEL_FILE)
    return has_checkpoint(run_dir) or any((run_dir / name).exists() for name in names)


def _make_folder(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{run_dir} cannot be made a folder for the run: {error.strerror}") from error


def _read_config(path: Path) -> dict[str, Any]:
    remedy = "start again in another folder"
    try:
        description = parse_json(read_regular(path, _MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read ({one_line(error)}); {remedy}") from error
    parts = ("config", "provenance", "notes", "versions")
    if (
        not isinstance(description, dict)
        or any(not isinstance(description.get(name, {}), dict) for name in parts)
        or not _are_schedules(description)
    ):
        raise TrainingError(f"{path} is not the record of a run; {remedy}")
    return description


def _are_schedules(description: Mapping[str, Any]) -> bool:
    """Tell whether the schedules, where there are several, end one after the other, the last with the run."""
    if "schedules" not in description:
        return True
    ends = description["schedules"]
    return (
        isinstance(ends, list)
        and all(type(end) is int for end in ends)
        and [0, *ends] == sorted({0, *ends})
        and ends[-1:] == [description.get("config", {}).get("epochs")]
    )


def _write_config(path: Path, description: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(description, indent=1) + "\n")


def _require_same(run_dir: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    before, now = _settings(old), _settings(new)
    # Causes before what follows from them.
    for name in sorted(before.keys() | now.keys(), key=lambda name: (name in _DERIVED, name)):
        one, other = before.get(name), now.get(name)
        # True equals 1, and `freeze` means another thing by each.
        if one != other or isinstance(one, bool) != isinstance(other, bool):
            # A forged record may name anything.
            known = name.removeprefix(_PROVENANCE)
            what = one_line(f"{known} was {before.get(name)!r} and is now {now.get(name)!r}")
            raise ConfigError(
                f"{run_dir} cannot be resumed: {what}; resume with the former, or start in another folder"
            )


def _settings(description: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, entry in description.items():
        if name == "config":
            # Runs of earlier releases have what there was no choice of.
            settings |= {**asdict(TrainConfig()), **entry}
        elif name == "provenance":
            settings |= {f"{_PROVENANCE}{key}": value for key, value in entry.items()}
        elif name not in _DESCRIPTIVE:
            settings[name] = entry
    return settings
