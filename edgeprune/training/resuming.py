"""What a run in a folder was asked for, as options of ``edgeprune train``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line
from edgeprune_runtime.system.machine import cpu_quota
from edgeprune_runtime.training.run_folder.checkpoint import has_checkpoint
from edgeprune_runtime.training.run_folder.description import read_description
from edgeprune_runtime.training.settings import TrainConfig

__all__ = ["recorded_options", "require_same_signer"]


def recorded_options(run_dir: Path) -> dict[str, Any]:
    """Return the options that a run recorded, by their parameters; none where there is no run.

    What ``config.json`` does not hold, or holds as another type, is left out: the default counts, and is held
    against the record.

    Raises
    ------
    TrainingError
        The record cannot be read.
    """
    record = read_description(run_dir)
    config, provenance, notes = (record.get(name, {}) for name in ("config", "provenance", "notes"))
    found = {one.name: config[one.name] for one in fields(TrainConfig) if one.name in config}
    told = ("augment", "test", "target")
    found |= {name: provenance[name] for name in told if _is_text(provenance.get(name))}
    found |= {name: notes[name] for name in ("on_corrupt",) if _is_text(notes.get(name))}
    replay = provenance.get("replay")
    if isinstance(replay, dict):
        found |= {"replay": replay.get("share"), "new_packs": replay.get("new_packs")}
    if provenance.get("test_images_skipped"):
        found["skip_bad"] = True
    if isinstance(notes.get("threads"), int) and notes["threads"] > 0:
        # The sums of as many threads have the same order.
        found["threads"] = min(notes["threads"], cpu_quota())
    # A run that has taken a step needs its first weights no more.
    for name in ("teacher",) if has_checkpoint(run_dir) else ("teacher", "init"):
        if _is_text(notes.get(name)):
            found[name] = Path(notes[name])
    return found


def require_same_signer(run_dir: Path, is_checked: bool) -> None:
    """Refuse to go on without a check of signatures, where a run was begun with one.

    Raises
    ------
    ConfigError
        It was, and `is_checked` is False.
    TrainingError
        The record cannot be read.
    """
    signer = read_description(run_dir).get("notes", {}).get("signed_by")
    if signer is not None and not is_checked:
        raise ConfigError(
            f"{run_dir} takes packs signed by {one_line(signer)} alone; resume with `require_signature` and "
            "the file of that public key"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)
