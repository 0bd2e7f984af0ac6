"""Files that appear whole or not at all, and what to do where the disk is full."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from edgeprune_formats.files import file_sha256, partial_folder, replacing

from .errors import TrainingError

__all__ = ["AGAIN", "RESUME", "DiskFullError", "write_tensors", "write_text"]

RESUME, AGAIN = "go on with `resume=True`", "run the same command again"
"""What to do once a file can be written: in a run of training, and in other work."""


class DiskFullError(TrainingError):
    """A file cannot be written because the file system, or the user's share of it, is full."""


def write_text(path: Path, text: str, *, remedy: str = AGAIN) -> None:
    """Replace a file by `text` in UTF-8, so that a crash leaves the old or the new content.

    Raises
    ------
    DiskFullError, TrainingError
        If it cannot be written; an older file of that name is then unchanged, or already replaced whole.
    """
    with _replacing(path, remedy) as temporary:
        temporary.write_bytes(text.encode())


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: dict[str, str] | None = None,
    *,
    remedy: str = AGAIN,
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
    remedy : str
        What an error says to do after there is room: `AGAIN` or `RESUME`.

    Returns
    -------
    str
        The SHA-256 of the file in hexadecimal.

    Raises
    ------
    DiskFullError, TrainingError
        If it cannot be written.
    """
    rows = _unshared({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with _replacing(path, remedy) as temporary:
        save_file(rows, temporary, metadata)
        return file_sha256(temporary)


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with memory of their own each, as safetensors wants them: networks may tie some."""
    seen: set[int] = set()
    rows: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        rows[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return rows


@contextlib.contextmanager
def _replacing(path: Path, remedy: str) -> Iterator[Path]:
    try:
        with partial_folder(path) as folder, replacing(path, folder / path.name):
            temporary = folder / path.name
            yield temporary
            # safetensors makes its files for their owner alone; they are to be as any new file of the user.
            new = folder / ".mode"
            new.touch()
            temporary.chmod(stat.S_IMODE(new.stat().st_mode))
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"{path}: cannot be written ({reason}); what was complete before is kept: "
        raise (DiskFullError if _is_full(error) else TrainingError)(
            message + f"free space or fix the folder, then {remedy}"
        ) from error


def _is_full(error: OSError | SafetensorError) -> bool:
    full = errno.ENOSPC, errno.EDQUOT
    if isinstance(error, OSError):
        return error.errno in full
    # safetensors tells what the system said in words only.
    return any(f"os error {number}" in str(error) for number in full)
