"""Checkpoints that survive a crash at any moment, without pickle.

A checkpoint is two files: tensors in ``checkpoint-NNNN.safetensors``, a new file each time, and
``state.json``, which names that file and its SHA-256 and holds everything else. Renaming ``state.json`` into
place is the commit: before it the previous checkpoint counts, after it the new one, and the older tensor
file goes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from edgeprune_formats import TrainingError

__all__ = [
    "STATE_FILE",
    "Checkpoint",
    "has_checkpoint",
    "load_checkpoint",
    "read_state",
    "save_checkpoint",
    "write_tensors",
    "write_text",
]

STATE_FILE = "state.json"
_FORMAT = 1
_TENSOR_FILE = re.compile(r"checkpoint-\d{4,}\.safetensors")
_TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Checkpoint:
    """What `load_checkpoint` read.

    Attributes
    ----------
    tensors : dict of str to torch.Tensor
        The tensors as saved, on the CPU.
    state : dict of str to Any
        The JSON state as saved.
    """

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def save_checkpoint(run_dir: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint and make it the one that counts, whole or not at all.

    Parameters
    ----------
    run_dir : Path
        An existing folder.
    tensors : mapping of str to torch.Tensor
        Tensors of any shape, type and device that safetensors can store.
    state : mapping of str to Any
        Anything that JSON can hold; no NaN or infinity.

    Raises
    ------
    TrainingError
        If a file cannot be written. The previous checkpoint is then still valid, or the new one already is.
    """
    path = run_dir / f"checkpoint-{_committed_number(run_dir) + 1:04d}.safetensors"
    digest = write_tensors(path, tensors)
    record = {"format": _FORMAT, "tensors": path.name, "sha256": digest, "state": state}
    record["checksum"] = _checksum(record)
    write_text(run_dir / STATE_FILE, json.dumps(record, indent=1, allow_nan=False) + "\n")
    _remove_stale(run_dir, keep=path.name)


def load_checkpoint(run_dir: Path) -> Checkpoint:
    """Read the checkpoint that counts and verify it.

    Parameters
    ----------
    run_dir : Path
        A folder that `save_checkpoint` has written to.

    Raises
    ------
    TrainingError
        If there is no checkpoint, or a file of it is missing, cut off or changed.
    """
    record = _read_record(run_dir)
    path = run_dir / record["tensors"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise _damaged(path, f"its content does not match the SHA-256 in {STATE_FILE}")
    try:
        return Checkpoint(load(content), record["state"])
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def has_checkpoint(run_dir: Path) -> bool:
    """Tell whether a checkpoint was ever committed in the folder."""
    return (run_dir / STATE_FILE).exists()


def read_state(run_dir: Path) -> dict[str, Any]:
    """Return the JSON state of the checkpoint that counts, without reading its tensors.

    Raises
    ------
    TrainingError
        If there is none or it is damaged.
    """
    state: dict[str, Any] = _read_record(run_dir)["state"]
    return state


def write_text(path: Path, text: str) -> None:
    """Replace a file by `text` in UTF-8, so that a crash leaves the old or the new content.

    Raises
    ------
    TrainingError
        If it cannot be written; an older file of that name is then unchanged, or already replaced whole.
    """
    with _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> str:
    """Replace a safetensors file, so that a crash leaves the old or the new content.

    Parameters
    ----------
    path : Path
        The file.
    tensors : mapping of str to torch.Tensor
        Stored row-major whatever their memory format.
    metadata : dict of str to str, optional
        Goes into the header's ``__metadata__``.

    Returns
    -------
    str
        The SHA-256 of the file in hexadecimal.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    rows = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        save_file(rows, temporary, metadata)
        with temporary.open("rb+") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            os.fsync(file.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        yield temporary
        # safetensors makes its files for their owner alone; the user's umask is to decide.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)  # noqa: PTH105 - tests make this call fail
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{path}: cannot be written ({reason}); what was complete before is kept: "
        raise TrainingError(
            message + "free space or fix the folder, then go on (edgeprune train: with --resume)"
        ) from error


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a folder, and needs no call to make a rename durable.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _committed_number(run_dir: Path) -> int:
    # Not the highest number in the folder: a file that was never committed is to be replaced, or a disk
    # that is full would hold one more of them after each attempt.
    if not has_checkpoint(run_dir):
        return 0
    return int(_read_record(run_dir)["tensors"].removesuffix(".safetensors").rpartition("-")[2])


def _remove_stale(run_dir: Path, keep: str) -> None:
    for path in list(run_dir.iterdir()):
        is_tensor_file = _TENSOR_FILE.fullmatch(path.name.removesuffix(_TEMPORARY))
        if path.name != keep and (is_tensor_file or path.name == STATE_FILE + _TEMPORARY):
            # The new checkpoint counts whether or not the old files go.
            with contextlib.suppress(OSError):
                path.unlink()


def _read_record(run_dir: Path) -> dict[str, Any]:
    path = run_dir / STATE_FILE
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise _damaged(path, f"it is not of checkpoint format {_FORMAT}")
    if record.pop("checksum", None) != _checksum(record):
        raise _damaged(path, "its content does not match its checksum")
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, allow_nan=False).encode()).hexdigest()


def _damaged(path: Path, reason: str) -> TrainingError:
    remedy = "restore the file, or start again in another folder"
    return TrainingError(f"{path}: the checkpoint cannot be read ({reason}); {remedy}")
