"""Opening the folder of a run: making, locking, and beginning a run there or going on with it."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.locks import LOCK_FILE, open_lock

from ...input_files import CONFIG_FILE, METRICS_FILE, MODEL_FILE
from .best import best_files
from .checkpoint import has_checkpoint, remove_uncommitted
from .description import read_config, require_same, write_config

__all__ = ["locked", "open_run", "opened_run"]

_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


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
        If the folder holds a run that is not to be resumed, one with other settings, or a trained network
        without its checkpoints.
    TrainingError
        If ``config.json`` cannot be read or written.
    """
    path = run_dir / CONFIG_FILE
    if not _holds_run(run_dir):
        write_config(path, description)
        return dict(description)
    if not resume:
        raise ConfigError(f"{run_dir} already holds a run; go on with `resume=True`, or use another folder")
    if (run_dir / MODEL_FILE).exists() and not has_checkpoint(run_dir):
        raise ConfigError(
            f"{run_dir} holds a trained network, and no checkpoint to go on from; begin with its weights "
            "(`init`) in another folder"
        )
    old = read_config(path)
    asked, epochs = old.get("config", {}), description["config"].get("epochs")
    ends = old.get("schedules", [asked.get("epochs")])
    grows = may_grow and isinstance(epochs, int) and isinstance(ends[-1], int) and epochs > ends[-1]
    if grows:
        old = {**old, "config": {**asked, "epochs": epochs}, "schedules": [*ends, epochs]}
    new = dict(description)
    if has_checkpoint(run_dir) and new.get("init") is None:
        # The first step alone needs the weights to begin with.
        new["init"] = old.get("init")
    require_same(run_dir, old, new)
    if grows:
        write_config(path, old)
    return {**new, "schedules": old["schedules"]} if "schedules" in old else new


@contextlib.contextmanager
def opened_run(
    run_dir: Path, description: Mapping[str, Any], resume: bool, is_done: Callable[[], bool] = lambda: False
) -> Iterator[dict[str, Any]]:
    """Make and lock the folder of a run until the block ends, and give what `open_run` returns.

    On an error before the first checkpoint of a new run its files are removed again, so that the same command
    can be given again once what was wrong is right. Where the run `is_done`, its folder may be read-only.
    """
    made = not run_dir.exists()
    with locked(run_dir, lambda: resume and is_done()):
        new = not _holds_run(run_dir)
        try:
            yield open_run(run_dir, description, resume, may_grow=True)
        except Exception:
            if new and not has_checkpoint(run_dir):
                with contextlib.suppress(OSError):
                    remove_uncommitted(run_dir)
                    for path in (run_dir / CONFIG_FILE, run_dir / LOCK_FILE, *best_files(run_dir)):
                        path.unlink(missing_ok=True)
                    if made:
                        run_dir.rmdir()
            raise


@contextlib.contextmanager
def locked(run_dir: Path, is_done: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Make a folder if it is missing, and keep other processes from working in it.

    A process that ends, however it does, frees it. A file system without locks keeps nobody out, and a
    warning says so. Where `is_done` tells that nothing is left to write, a folder that is read-only does as
    well: it stays as it is.

    Raises
    ------
    ConfigError
        If it cannot be made, or another process works in it.
    """
    while True:
        try:
            lock, held = _open_lock(run_dir)
        except ConfigError as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno in _READ_ONLY and is_done()):
                raise
            lock = None
        if lock is None:
            yield
            return
        try:
            if held is False:
                raise ConfigError(f"{run_dir}: another process trains in it; use another folder")
            # Whoever held it before may have failed, and removed what this process has just locked.
            if (run_dir / LOCK_FILE).exists():
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
        return open_lock(run_dir / LOCK_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{run_dir / LOCK_FILE} is a symbolic link; remove it") from error
        raise ConfigError(f"{run_dir} cannot be locked: {error.strerror}; use another folder") from error


def _holds_run(run_dir: Path) -> bool:
    # Tensors of a checkpoint that was never committed are no run: the disk failed at the first one.
    names = (CONFIG_FILE, METRICS_FILE, MODEL_FILE)
    return has_checkpoint(run_dir) or any((run_dir / name).exists() for name in names)


def _make_folder(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{run_dir} cannot be made a folder for the run: {error.strerror}") from error
