"""``config.json`` in the folder of a run: what was asked, and whether a run that goes on asks the same."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line
from edgeprune_formats.files import file_sha256, read_regular
from edgeprune_formats.limits import MAX_CHANNELS
from edgeprune_formats.strict_json import parse_json

from ...errors import TrainingError
from ...input_files import CONFIG_FILE, input_problem, is_pickle
from ...networks.freezing import freeze
from ...networks.shapes import shaped_network
from ...networks.trained import trained_file
from ...output_files import write_text
from ...system.devices import resolve_device
from ...system.machine import versions
from ..placement import Placement
from ..settings import TrainConfig

__all__ = [
    "as_begun",
    "describe_run",
    "network_facts",
    "read_config",
    "read_description",
    "require_same",
    "write_config",
]

_MAX_CONFIG_BYTES = 2**26
# What a setting is of: the run itself, its provenance, or the pack that the provenance tells of.
_OWN, _PROVENANCE, _PACK = "run", "provenance", "pack "
_Name = tuple[str, ...]
# Of several packs the list of them, which a single pack does not have.
_PACKS = _PACK, "packs"
_DERIVED = ("num_classes", "image_shape", "steps_per_epoch")
# What may differ when a run goes on: consequences of the other entries, versions, and what a run is free in.
_DESCRIPTIVE = ("versions", "parameters", "notes", "schedules")


def as_begun(config: TrainConfig, run_dir: Path) -> TrainConfig:
    """Return settings whose precision is that of the run to be resumed, where they leave the choice.

    On a device of another kind the choice is made anew.

    Raises
    ------
    TrainingError
        The record cannot be read.
    """
    record = read_description(run_dir).get("config", {})
    precision, device = record.get("precision"), str(record.get("device")).partition(":")[0]
    if config.precision != "auto" or device != resolve_device(config.device).type:
        return config
    return replace(config, precision=precision) if precision in ("float32", "bfloat16") else config


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
    sizes = config.resolutions.sizes
    model, _ = shaped_network(config.model, num_classes, image_shape, config.stem, sizes)
    freeze(model, config.freeze, num_classes)
    description = {
        "config": {**asdict(config), "device": str(placement.device), "precision": placement.precision},
        "num_classes": num_classes,
        "image_shape": list(image_shape),
        "steps_per_epoch": steps_per_epoch,
        "init": None if init is None else _sha256(init),
        "teacher": None if teacher is None else _sha256(trained_file(teacher)),
        "provenance": dict(provenance or {}),
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": versions(),
        "notes": {
            **(notes or {}),
            "threads": torch.get_num_threads(),
            **{name: str(path) for name, path in (("init", init), ("teacher", teacher)) if path is not None},
        },
    }
    # Names of files need not be text, and JSON is.
    try:
        text = json.dumps(description, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`provenance` and `notes` are to be what JSON holds ({error})") from error
    plain: dict[str, Any] = json.loads(text.encode(errors="replace"))
    return plain


def read_description(run_dir: Path) -> dict[str, Any]:
    """Return what ``config.json`` holds of the run in a folder; empty where there is none.

    Raises
    ------
    TrainingError
        If it cannot be read.
    """
    path = run_dir / CONFIG_FILE
    return read_config(path) if path.exists() else {}


def network_facts(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rebuilds the network of a run, see `edgeprune_runtime.networks.trained.Facts`."""
    config = description["config"]
    network = {"model": config["model"]}
    if config.get("stem", "auto") != "auto":
        network["stem"] = config["stem"]
    network |= {name: description[name] for name in ("num_classes", "image_shape")}
    known = [name for name in ("mean", "std", "class_names", "task") if name in description["provenance"]]
    return network | {name: description["provenance"][name] for name in known}


def _sha256(path: Path) -> str:
    problem = None if is_pickle(path) else input_problem(path)
    if problem is not None:
        raise TrainingError(f"{path}: {problem}")
    try:
        return file_sha256(path)
    except OSError as error:
        raise TrainingError(f"{path}: the weights cannot be read ({error.strerror})") from error


def read_config(path: Path) -> dict[str, Any]:
    """As `read_description`, of a file that must be there."""
    remedy = "start again in another folder"
    try:
        description = parse_json(read_regular(path, _MAX_CONFIG_BYTES))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = "let this user read it"
        raise TrainingError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
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


def write_config(path: Path, description: Mapping[str, Any]) -> None:
    """Write what `read_config` reads.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    write_text(path, json.dumps(description, indent=1) + "\n")


def require_same(run_dir: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Require that a run that goes on is asked what it was asked before.

    Raises
    ------
    ConfigError
        If a setting differs.
    """
    before, now = _settings(old), _settings(new)
    for name in sorted(before.keys() | now.keys(), key=_rank):
        one, other = before.get(name), now.get(name)
        # True equals 1, and `freeze` means another thing by each.
        if one != other or isinstance(one, bool) != isinstance(other, bool):
            # A forged record may name anything.
            absent = "a single one" if name == _PACKS else "not set"
            former, given = (one_line(absent if value is None else repr(value)) for value in (one, other))
            what = f"{one_line(_named(name))} was {former} and is now {given}"
            raise ConfigError(
                f"{run_dir} cannot be resumed: {what}; resume with the former, or start in another folder"
            )


def _rank(name: _Name) -> tuple[bool, bool, bool, _Name]:
    """Return the place of a setting in the order of comparison: packs, and causes before what follows."""
    return name[0] != _PACK, name != _PACKS, name[1] in _DERIVED, name


def _named(name: _Name) -> str:
    known = " ".join(name[1:])
    return f"it learned from another pack: its {known}" if name[0] == _PACK else known


def _settings(description: Mapping[str, Any]) -> dict[_Name, Any]:
    """Return what a run was asked, each by its kind and its names from the outermost on."""
    settings: dict[_Name, Any] = {}
    for name, entry in description.items():
        if name == "config":
            # Runs of earlier releases have what there was no choice of.
            settings |= {(_OWN, key): value for key, value in {**asdict(TrainConfig()), **entry}.items()}
        elif name == "provenance":
            for key, value in entry.items():
                kind = _PACK if key.startswith(_PACK) else _PROVENANCE
                settings |= _flat((kind, key.removeprefix(_PACK)), value)
        elif name not in _DESCRIPTIVE:
            settings[_OWN, name] = entry
    return settings


def _flat(name: _Name, value: object) -> dict[_Name, Any]:
    """Return the entries of nested mappings and of lists of them, each by its names from the outermost on."""
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        value = {"count": len(value), **{str(number): one for number, one in enumerate(value)}}
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[_Name, Any] = {}
    for key, entry in value.items():
        flat |= _flat((*name, key), entry)
    return flat
