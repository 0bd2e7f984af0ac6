"""What is kept while an output is being made, and beside it: the names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["artifact_path", "images_folder", "work_folder"]


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


def _shortened(name: str, most: int) -> str:
    """Return a name; of one that takes more bytes, its beginning and a hash of the whole."""
    raw = os.fsencode(name)
    if len(raw) <= most:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:16]
    return f"{raw[: most - 17].decode(errors='ignore')}-{digest}"
