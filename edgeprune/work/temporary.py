"""Where a run keeps what it needs to go on after a stop."""

from __future__ import annotations

from pathlib import Path

__all__ = ["work_folder"]


def work_folder(path: Path) -> Path:
    """Return the folder that holds what a run for `path` needs to go on after a stop."""
    return path.with_name(f"{path.name}.work")
