"""Checkpoints that survive a crash at any moment, without pickle.

A checkpoint is two files: ``checkpoint-NNNN.safetensors`` with tensors, and ``checkpoint-NNNN.json``, which
holds everything else and the SHA-256 of the former. Renaming the second into place is the commit: before it
the checkpoint before counts, after it the new one. The last two are kept, and where the newer turns out to be
damaged, the older one counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edgeprune_formats.errors import one_line
from edgeprune_formats.files import file_sha256, read_regular
from edgeprune_formats.strict_json import parse_json

from ...checks import from_json
from ...errors import TrainingError
from ...output_files import RESUME, write_tensors, write_text

__all__ = [
    "Checkpoint",
    "has_checkpoint",
    "load_checkpoint",
    "read_state",
    "read_tensors",
    "remove_uncommitted",
    "save_checkpoint",
]

_FORMAT = 2
_KEPT = 2
_MAX_MANIFEST_BYTES = 2**26
_NAME = re.compile(r"checkpoint-(\d{4,})\.(json|safetensors)")
_ASIDE = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` read.

    Attributes
    ----------
    tensors : dict of str to torch.Tensor
        The tensors as saved, on the CPU.
    state : dict of str to Any
        The JSON state as saved.
    damage : str or None
        What is wrong with the newer checkpoint that this one stands in for.
    """

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]
    damage: str | None = None


def save_checkpoint(
    run_dir: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], *, remedy: str = RESUME
) -> None:
    """Write a checkpoint and make it the one that counts, whole or not at all; keep the one before.

    Parameters
    ----------
    run_dir : Path
        An existing folder.
    tensors : mapping of str to torch.Tensor
        Tensors of any shape, type and device that safetensors can store.
    state : mapping of str to Any
        Anything that JSON can hold; no NaN or infinity.
    remedy : str
        What an error says to do after there is room: `RESUME` or `AGAIN`.

    Raises
    ------
    DiskFullError, TrainingError
        If a file cannot be written. The previous checkpoint is then still valid, or the new one already is.
    """
    # After the last that was committed, not the highest in the folder: a file that was never committed is to
    # be replaced, or a disk that is full would hold one more of them after each attempt.
    before = _committed(run_dir)
    manifest = _path(run_dir, before[-1] + 1 if before else 1)
    digest = write_tensors(manifest.with_suffix(".safetensors"), tensors, remedy=remedy)
    content = {"format": _FORMAT, "sha256": digest, "state": state}
    content["checksum"] = _checksum(content)
    write_text(manifest, json.dumps(content, indent=1, allow_nan=False) + "\n", remedy=remedy)
    _remove_others(run_dir, [path.stem for path in (*(_path(run_dir, n) for n in before), manifest)[-_KEPT:]])


def load_checkpoint(run_dir: Path, *, set_aside: bool = True) -> Checkpoint:
    """Read the newest checkpoint that is whole, verified; one that is damaged is set aside.

    Parameters
    ----------
    run_dir : Path
        A folder that `save_checkpoint` has written to.
    set_aside : bool
        False leaves the folder as it is, which may be that of another process.

    Raises
    ------
    TrainingError
        If there is no checkpoint, or a file of every one is missing, cut off or changed.
    """
    damage: list[tuple[Path, TrainingError]] = []
    for number in reversed(_committed(run_dir)):
        path = _path(run_dir, number)
        try:
            manifest = _read_manifest(path)
            tensors = read_tensors(path.with_suffix(".safetensors"), manifest.sha256)
        except TrainingError as error:
            damage.append((path, error))
            continue
        for damaged, _ in damage if set_aside else ():
            # So that the next checkpoint takes its number, and not the place of this one.
            with contextlib.suppress(OSError):
                damaged.rename(damaged.with_name(damaged.name + _ASIDE))
        return Checkpoint(tensors, manifest.state, str(damage[0][1]) if damage else None)
    if damage:
        raise damage[0][1]
    raise _damaged(_path(run_dir, 1), os.strerror(errno.ENOENT))


def has_checkpoint(run_dir: Path) -> bool:
    """Tell whether a checkpoint was ever committed in the folder."""
    return bool(_committed(run_dir))


def remove_uncommitted(run_dir: Path) -> None:
    """Remove what was written of a folder's first checkpoint; call it only where none `has_checkpoint`."""
    _remove_others(run_dir, [])


def read_state(run_dir: Path) -> dict[str, Any]:
    """Return the JSON state of the newest checkpoint that has a sound one, without reading its tensors.

    Raises
    ------
    TrainingError
        If there is none.
    """
    *newer, oldest = [_path(run_dir, number) for number in reversed(_committed(run_dir) or [1])]
    for path in newer:
        with contextlib.suppress(TrainingError):
            return _read_manifest(path).state
    return _read_manifest(oldest).state


def _path(run_dir: Path, number: int) -> Path:
    return run_dir / f"checkpoint-{number:04d}.json"


def _committed(run_dir: Path) -> list[int]:
    """Return the numbers of the checkpoints in a folder, ascending; none where it is missing."""
    if not run_dir.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in run_dir.iterdir())
    return sorted(int(match[1]) for match in found if match and match[2] == "json")


def _remove_others(run_dir: Path, keep: list[str]) -> None:
    for path in list(run_dir.iterdir()):
        match = _NAME.fullmatch(path.name.removesuffix(_ASIDE))
        if match and path.name not in {f"{stem}.{kind}" for stem in keep for kind in ("json", "safetensors")}:
            # The new checkpoint counts whether or not the old files go.
            with contextlib.suppress(OSError):
                path.unlink()


def read_tensors(path: Path, digest: str) -> dict[str, torch.Tensor]:
    """Read a safetensors file that has this SHA-256, or raise `TrainingError`; no value may be infinite."""
    try:
        if path.exists() and not path.is_file():
            raise _damaged(path, "not a regular file")
        if file_sha256(path) != digest:
            raise _damaged(path, "its content does not match its SHA-256")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, getattr(error, "strerror", None) or str(error)) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _damaged(path, f"{name} has values that are not finite")
    return tensors


@dataclass(frozen=True)
class _Manifest:
    """The JSON file of a checkpoint but for its checksum."""

    format: int
    sha256: str
    state: dict[str, Any]


def _read_manifest(path: Path) -> _Manifest:
    try:
        content = parse_json(read_regular(path, _MAX_MANIFEST_BYTES))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _damaged(path, f"it is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise _damaged(path, f"it is not of checkpoint format {_FORMAT}")
    if content.pop("checksum", None) != _checksum(content):
        raise _damaged(path, "its content does not match its checksum")
    try:
        return from_json(_Manifest, content)
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _checksum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, allow_nan=False).encode()).hexdigest()


def _damaged(path: Path, reason: str) -> TrainingError:
    remedy = "restore the file, or start again in another folder"
    return TrainingError(f"{path}: the checkpoint cannot be read ({one_line(reason)}); {remedy}")
