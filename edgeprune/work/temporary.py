"""What is kept while an output is being made, and beside it: the names."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

__all__ = ["artifact_path", "foreign_name", "images_folder", "work_folder"]

# NFS keeps a file so that is removed while it is open; the others are of file managers.
_OF_SYSTEMS = re.compile(r"\.nfs.*|\.DS_Store|Thumbs\.db|desktop\.ini")


def work_folder(path: Path) -> Path:
    """Return the folder that holds what a run for `path` needs to go on after a stop."""
    return path.with_name(f"{_shortened(path.name, 240)}.work")


def images_folder(path: Path) -> Path:
    """Return the folder that holds the decoded images of a run for `path`; each further node has another."""
    node = int(os.environ.get("GROUP_RANK", "0"))
    return path.with_name(f"{_shortened(path.name, 220)}.images{node or ''}")


def artifact_path(pack: Path, suffix: str) -> Path:
    """Return the name of a file that is kept beside a pack, such as ``NAME.scores.h5``."""
    return pack.with_name(f"{_shortened(pack.stem, 220)}{suffix}")


def foreign_name(folder: Path, own: re.Pattern[str]) -> str | None:
    """Return a name in a folder that is not one of a run's own, as a pattern, nor of what systems leave.

    Raises
    ------
    OSError
        It cannot be listed.
    """
    names = sorted(entry.name for entry in folder.iterdir())
    return next((name for name in names if not (own.fullmatch(name) or _OF_SYSTEMS.fullmatch(name))), None)


def _shortened(name: str, most: int) -> str:
    """Return a name; of one that takes more bytes, its beginning and a hash of the whole."""
    raw = os.fsencode(name)
    if len(raw) <= most:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: most - 17].decode(errors='ignore')}-{digest}"
