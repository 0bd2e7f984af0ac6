"""The curves of training runs, drawn from their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from edgeprune_formats.files import read_regular
from edgeprune_formats.strict_json import parse_json
from edgeprune_runtime.checks import from_json
from edgeprune_runtime.errors import TrainingError

from .pictures import label, picture

__all__ = ["draw", "read_metrics"]

_MAX_BYTES = 2**26
Metrics = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Line:
    """A line of the file, but for being the entry of an object."""

    metrics: dict[str, int | float | None]


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the epochs in the ``metrics.jsonl`` of a run.

    Raises
    ------
    TrainingError
        If there is no such file, it is damaged, or no epoch is complete.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = read_regular(path, _MAX_BYTES).splitlines()
        epochs = [from_json(_Line, {"metrics": parse_json(line)}).metrics for line in lines]
        for epoch in epochs:
            for name in ("epoch", "train_loss", "train_accuracy"):
                if epoch[name] is None:
                    raise ValueError(f"{name} is null")
            _ = epoch["test_loss"], epoch["test_accuracy"]
    except FileNotFoundError:
        remedy = "give the folder of a run, once its first epoch is complete"
        raise TrainingError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: not the metrics of a run, or damaged ({error})") from error
    if not epochs:
        raise TrainingError(f"{path}: no epoch is complete yet; wait for the first")
    return epochs


def draw(runs: Mapping[str, Metrics], path: Path) -> None:
    """Draw loss (mean cross entropy, nats) and accuracy (%) over the epochs of runs.

    Training is dashed and tests are drawn through. The file appears whole or not at all.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        A name, and the metrics of each epoch.
    path : Path
        Ends in .png, .svg or .pdf.

    Raises
    ------
    ConfigError
        If `path` ends in something else.
    PackWriteError
        If it cannot be written.
    """
    with picture(path, (9, 3.6)) as figure:
        loss, accuracy = figure.subplots(1, 2)
        for number, (name, epochs) in enumerate(runs.items()):
            _curve(loss, name, epochs, "loss", 1, f"C{number}")
            _curve(accuracy, name, epochs, "accuracy", 100, f"C{number}")
        loss.set_ylabel("mean cross entropy, nats")
        accuracy.set_ylabel("accuracy, %")
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
        # Of the names of folders nothing is mathematics.
        for text in accuracy.legend(fontsize=8).get_texts():
            text.set_parse_math(False)


def _curve(axes: Axes, name: str, epochs: Metrics, what: str, scale: float, color: str) -> None:
    shown = label(name)
    for part, line in (("train", "--"), ("test", "-")):
        column = f"{part}_{what}"
        points = [(e["epoch"], scale * e[column]) for e in epochs if e[column] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), line, color=color, label=f"{shown}, {part}", marker=".")
