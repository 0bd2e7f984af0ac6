"""Files that exist only while an output is being made: their names, and how those of killed runs go away."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune_formats import PackWriteError
from edgeprune_formats.files import sweep

__all__ = ["sweep_leftovers", "trial_folder", "work_folder"]

_TRIALS = ".trials"


def work_folder(path: Path) -> Path:
    """Return the folder that holds what a run for `path` needs to go on after a stop."""
    return path.with_name(f"{path.name}.work")


@contextmanager
def trial_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`, on the same disk, which goes away with all it holds at the end.

    A process that is killed leaves it behind; `sweep_leftovers` removes it at the next start.

    Raises
    ------
    PackWriteError
        It cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(_TRIALS, f"{_prefix(path)}{os.getpid()}-", path.parent))
    except OSError as error:
        raise PackWriteError(f"{path.parent}: {error.strerror}; choose another folder") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_leftovers(path: Path) -> None:
    """Remove partial files and trial folders of `path` whose processes, of this host, have ended."""
    sweep(path)
    prefix = _prefix(path)
    for folder in path.parent.glob(f"{glob.escape(prefix)}*{_TRIALS}"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdecimal() and not _is_running(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.{socket.gethostname()}-"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        # There is one, of another user.
        return True
    return True
