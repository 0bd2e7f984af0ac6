"""Where the reports of a training run go: a terminal, or TensorBoard."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune_formats import ConfigError

from ..text import bytes_text, count_text, live, say_if_read

__all__ = ["TensorBoardReport", "TerminalReport"]

_FOLDER = "tensorboard"
_SHOWN = 4


class TerminalReport:
    """Prints a line for each epoch, on a terminal a live line in between, and to stderr what else happens."""

    def __init__(self, epochs: int, setting: str) -> None:
        self._setting = setting
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
            say_if_read(self._setting)
        elif kind == "epoch":
            say_if_read(epoch_line(event, self._epochs))
        elif line := _notice(event):
            say_if_read(f"edgeprune: {line}", err=True)


def step_line(event: dict[str, Any]) -> str:
    """Return where a run stands, on one line."""
    minutes, seconds = divmod(round(event["eta_seconds"]), 60)
    accuracy = "" if event["accuracy"] is None else f"accuracy {event['accuracy']:.1%} "
    memory = [event["memory_bytes"], event["device_memory_bytes"]]
    held = " + ".join(bytes_text(size) for size in memory if size is not None)
    return (
        f"epoch {event['epoch']}/{event['epochs']} step {event['step']:,}/{event['steps']:,} "
        f"loss {event['loss']:.3f} {accuracy}"
        f"{event['images_per_second']:,.0f} images/s ETA {minutes}:{seconds:02d} {held}"
    ).rstrip()


def epoch_line(metrics: dict[str, Any], epochs: int) -> str:
    """Return an epoch's metrics on one line."""
    line = f"epoch {metrics['epoch']:>3}/{epochs}"
    for name in ("train", "test"):
        if metrics[f"{name}_loss"] is not None:
            measured = f"{name} loss {metrics[f'{name}_loss']:.4f} {metrics_text(metrics, name)}"
            line += f"  {measured.rstrip()}"
    return f"{line}  {metrics['images_per_second']:,.0f} images/s"


def metrics_text(metrics: dict[str, Any], name: str) -> str:
    """Return what was measured of the ``"train"`` or ``"test"`` set, but for the loss, or ""."""
    found = []
    for key, what, form in (
        ("accuracy", "accuracy", "{:.2%}"),
        ("map", "mean average precision", "{:.2%}"),
        ("mae", "mean absolute error", "{:.4g}"),
        ("r2", "R2", "{:.3f}"),
    ):
        value = metrics.get(f"{name}_{key}")
        if value is not None:
            each = value if isinstance(value, list) else [value]
            shown = ["undefined" if one is None else form.format(one) for one in each[:_SHOWN]]
            found.append(f"{what} {', '.join(shown)}{', ...' if len(each) > _SHOWN else ''}")
    return " ".join(found)


def _notice(event: dict[str, Any]) -> str | None:
    if event["event"] == "paused":
        return f"paused: {event['reason']}; waiting for room (Ctrl-C leaves)"
    if event["event"] == "continued":
        return "there is room again; going on"
    if event["event"] == "fallback":
        return f"going on from the checkpoint before it, of step {event['step']:,}: {event['reason']}"
    if event["event"] == "left_out":
        return f"{event['reason']}; in each epoch the last is left out"
    if event["event"] == "kept":
        return f"what was trained is kept, up to step {event['step']:,}; the run can be resumed"
    if event["event"] == "skipped":
        return f"{count_text(event['images'], 'image')} left out: {event['reason']}"
    if event["event"] == "init":
        fresh = [f"not of these weights, but fresh: {', '.join(event['fresh'])}"] if event["fresh"] else []
        return "; ".join((*event["fitted"], *fresh)) or None
    return None


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
