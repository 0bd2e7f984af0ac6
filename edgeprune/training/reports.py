"""Where the reports of a training run go: a terminal, or TensorBoard."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_runtime.training.progress.lines import epoch_line, notice_line, step_line

from ..text import live, say_if_read

__all__ = ["TensorBoardReport", "TerminalReport"]

_FOLDER = "tensorboard"


class TerminalReport:
    """Prints a line for each epoch, on a terminal a live line in between, and to stderr what else happens.

    What else happens is told as `worded` has it, such as with flags in place of parameters.
    """

    def __init__(self, epochs: int, setting: str, worded: Callable[[str], str] = str) -> None:
        self._setting, self._worded = setting, worded
        self._live = sys.stderr.isatty()
        self._epochs = epochs

    def __call__(self, event: dict[str, Any]) -> None:
        """Print an event of `edgeprune_runtime.training.train`."""
        kind = event["event"]
        if kind == "step":
            if self._live:
                live(step_line(event))
            return
        if self._live:
            live()
        if kind == "start":
            on = f"; going on after step {event['step']:,}" if event["step"] else ""
            say_if_read(self._setting + on)
        elif kind == "epoch":
            say_if_read(epoch_line(event, self._epochs))
        elif line := notice_line(event):
            say_if_read(f"edgeprune: {self._worded(line)}", err=True)


class TensorBoardReport:
    """Writes the curves of a run into its folder, for TensorBoard.

    Raises
    ------
    ConfigError
        TensorBoard is not installed.
    """

    def __init__(self, output: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("`tensorboard` needs TensorBoard; pip install 'edgeprune[watch]'")
        self._folder = output / _FOLDER
        self._writer: Any = None

    def __enter__(self) -> TensorBoardReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def __call__(self, event: dict[str, Any]) -> None:
        """Write the numbers of a step or an epoch."""
        if event["event"] == "step":
            for name in ("loss", "accuracy", "images_per_second", "memory_bytes", "device_memory_bytes"):
                self._write(f"step/{name}", event[name], event["step"])
        elif event["event"] == "epoch":
            for name, value in event.items():
                if name not in ("event", "epoch"):
                    self._write(f"epoch/{name}", value, event["epoch"])

    def _write(self, name: str, value: float | list[float | None] | None, step: int) -> None:
        if value is None:
            return
        if isinstance(value, list):
            for place, one in enumerate(value):
                self._write(f"{name}/{place}", one, step)
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder))
        self._writer.add_scalar(name, value, step)
