"""Work of many epochs that can be stopped at any step and goes on where it was: scoring, mask learning."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line
from edgeprune_runtime.checks import from_json
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.output_files import AGAIN
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.progress.signals import deferred_signals
from edgeprune_runtime.training.run_folder.checkpoint import (
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from edgeprune_runtime.training.run_folder.opening import locked, open_run

from .callbacks import EpochProgress
from .processes import Workers
from .temporary import foreign_name

__all__ = ["ResumableRun", "Task", "remove_work_folder"]

# Processes that must agree on when to stop ask each other this often.
_STEPS_BETWEEN_QUESTIONS = 8
# What the folder of such a run holds, which is removed in the end.
_OWN = re.compile(r"\.lock|\.?(checkpoint-|config\.json).*|records")


class Task(Protocol):
    """What a `ResumableRun` works on; all that is random depends on seed, epoch and step alone."""

    @property
    def name(self) -> str:
        """What `ResumableRun.report` calls it."""
        ...

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        ...

    @property
    def steps(self) -> int:
        """Steps in each epoch."""
        ...

    @property
    def images(self) -> int:
        """Images in each epoch."""
        ...

    def run(self, epoch: int, first: int) -> Iterator[int]:
        """Take the steps of an epoch from `first` on, and yield the number of each when it is done."""
        ...

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Do what an epoch ends with, and return its metrics, ready for JSON."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that the next step depends on; in every process the same, or what to gather."""
        ...

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned."""
        ...


@dataclass(frozen=True)
class _State:
    """What a checkpoint holds beside tensors; the attributes are those of `ResumableRun`."""

    step: int
    history: list[dict[str, Any]]

    def check(self, task: Task) -> None:
        """Raise ValueError unless the task can stand there."""
        left = task.epochs - len(self.history)
        if left < 0 or not 0 <= self.step < (task.steps if left else 1):
            raise ValueError(f"step {self.step} after {len(self.history)} of {task.epochs} epochs")
        for number, epoch in enumerate(self.history, 1):
            if epoch.get("epoch") != number:
                raise ValueError(f"history[{number - 1}] is not the metrics of epoch {number}")


@dataclass
class ResumableRun:
    """A task under way, with a checkpoint in a folder.

    Attributes
    ----------
    task : Task
        What is worked on.
    folder : Path
        Holds ``config.json`` and the checkpoint.
    record : mapping
        What the run depends on; a folder with another record is refused.
    workers : Workers
        The processes that work on it; the first writes.
    report : callable, optional
        Called by the first process now and then, and at the end of each epoch, with a dict that has
        ``stage`` (the task's name), ``event`` (``"step"`` or ``"epoch"``), ``epoch`` (from 1), ``epochs``,
        ``images_per_second``, ``eta_seconds`` and, at the end of an epoch, its metrics.
    history : list of dict
        The metrics of the epochs that are complete.
    checkpoint_seconds : float
        From one checkpoint to the next, which is what a power cut costs at most. The same in all runs.
    report_seconds : float
        From one report within an epoch to the next. The same in all runs.
    """

    checkpoint_seconds: ClassVar[float] = 60.0
    report_seconds: ClassVar[float] = 0.3

    task: Task
    folder: Path
    record: Mapping[str, Any]
    workers: Workers
    report: EpochProgress | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def finish(self) -> list[dict[str, Any]]:
        """Do what is left, and return the history.

        Raises
        ------
        ConfigError
            The folder holds a run with other settings, or other files, or another process works in it.
        TrainingError
            The loss stops being finite, a file cannot be written, or the checkpoint is damaged.
        TrainingInterrupted
            After SIGINT, SIGTERM or SIGHUP, once a checkpoint is written.
        """
        if self.workers.rank > 0:
            self.workers.wait()
            with deferred_signals() as interrupted:
                self._finish(interrupted)
            return self.history
        _refuse_foreign(self.folder)
        with locked(self.folder), deferred_signals() as interrupted:
            with _naming(self.folder):
                open_run(self.folder, self.record, resume=True)
            self.workers.wait()
            self._finish(interrupted)
        return self.history

    def _finish(self, interrupted: Callable[[], bool]) -> None:
        # The first process decides, and nobody goes on, or tidies up, before everybody has read.
        first = self._restore() if self.workers.first(has_checkpoint(self.folder)) else 0
        self.workers.wait()
        self._saved = self._began = time.perf_counter()
        self._next_report = self._began + self.report_seconds
        self._done = 0
        for epoch in range(len(self.history), self.task.epochs):
            started = time.perf_counter()
            for step in self.task.run(epoch, first):
                self._done += 1
                if step + 1 < self.task.steps:
                    self._look_up(epoch, step + 1, interrupted)
            metrics = {"epoch": epoch + 1, **self.task.end_epoch(epoch)}
            metrics["seconds"] = time.perf_counter() - started
            self.history.append(metrics)
            self._tell("epoch", epoch, self.task.steps, metrics)
            first = 0
            last = epoch + 1 == self.task.epochs
            self._keep(0, due=last or self._is_due(), stop=self.workers.any(interrupted()))

    def _look_up(self, epoch: int, step: int, interrupted: Callable[[], bool]) -> None:
        """Between two steps: report, write a checkpoint if it is time, stop if asked to."""
        if self.workers.count > 1 and step % _STEPS_BETWEEN_QUESTIONS:
            return
        if time.perf_counter() >= self._next_report:
            self._tell("step", epoch, step)
        self._keep(step, due=self._is_due(), stop=self.workers.any(interrupted()))

    def _is_due(self) -> bool:
        return self.workers.first(time.perf_counter() - self._saved > self.checkpoint_seconds)

    def _keep(self, step: int, *, due: bool, stop: bool) -> None:
        if due or stop:
            tensors = self.task.tensors()
            if self.workers.rank == 0:
                _require_finite(tensors)
                state = {"step": step, "history": self.history}
                save_checkpoint(self.folder, tensors, state, remedy=AGAIN)
            self._saved = time.perf_counter()
            self.workers.wait()
        if stop:
            where = f"in epoch {min(len(self.history) + 1, self.task.epochs)} of {self.task.epochs}"
            raise TrainingInterrupted(f"interrupted {where}; run the same command again to go on")

    def _restore(self) -> int:
        with _naming(self.folder):
            checkpoint = load_checkpoint(self.folder)
            try:
                state = from_json(_State, checkpoint.state)
                state.check(self.task)
                _require_shapes(checkpoint.tensors, self.task.tensors())
                self.task.restore(checkpoint.tensors)
            except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                reason = one_line(error)
                raise TrainingError(
                    f"{self.folder}: the checkpoint is not one of this run: {reason}"
                ) from error
        self.history = state.history
        return state.step

    def _tell(self, event: str, epoch: int, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        if self.report is None or self.workers.rank > 0:
            return
        now = time.perf_counter()
        self._next_report = now + self.report_seconds
        steps_per_second = self._done / (now - self._began)
        left = (self.task.epochs - epoch) * self.task.steps - step
        self.report(
            {
                "stage": self.task.name,
                "event": event,
                "epoch": epoch + 1,
                "epochs": self.task.epochs,
                "images_per_second": steps_per_second / self.task.steps * self.task.images,
                "eta_seconds": left / steps_per_second,
                **(metrics or {}),
            }
        )


def remove_work_folder(folder: Path) -> None:
    """Remove what a run that was killed after its last step has left, unless another process works in it."""
    if not (folder / "config.json").exists():
        return
    # Locked: another process goes on. No permission to lock: it cannot be removed either.
    with suppress(ConfigError, OSError):
        _refuse_foreign(folder)
        with locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    """Raise `ConfigError` where a folder of this name holds other files, which must not go away with it."""
    name = foreign_name(folder, _OWN) if folder.is_dir() else None
    if name is not None:
        raise ConfigError(f"{folder} is needed for the run, and holds {name!r}; move it, or write elsewhere")


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Add what a user can do about a folder that the command line never asked for."""
    try:
        yield
    except (ConfigError, TrainingError) as error:
        raise type(error)(f"{error}, or remove {folder}") from error


def _require_shapes(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> None:
    for name in given.keys() & own.keys():
        one, other = given[name], own[name]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"{name} is {one.dtype} {list(one.shape)}, not {other.dtype} {list(other.shape)}"
            )


def _require_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TrainingError(f"{name} is no longer finite; start again with a lower learning rate")
