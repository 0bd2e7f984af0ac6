"""The curves of training runs, drawn from their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune_formats.files import read_regular
from edgeprune_formats.strict_json import parse_json
from edgeprune_runtime.checks import from_json
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.input_files import METRICS_FILE, MODEL_FILE, damage_remedy

from ..pictures import label, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MEASURES", "draw", "measure_of", "read_metrics", "scale_of", "series"]

_MAX_BYTES = 2**26
Metrics = Sequence[Mapping[str, Any]]
# Of a run the first that it has is drawn.
MEASURES = {"accuracy": "accuracy, %", "map": "mean average precision, %", "r2": "R2"}


@dataclass(frozen=True)
class _Line:
    """A line of the file, but for being the entry of an object."""

    metrics: dict[str, int | float | list[float | None] | None]


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Return the epochs in the ``metrics.jsonl`` of a run.

    Raises
    ------
    TrainingError
        If there is no such file, it is damaged, or no epoch is complete.
    """
    path = run_dir / METRICS_FILE
    try:
        lines = read_regular(path, _MAX_BYTES).splitlines()
        epochs = [from_json(_Line, {"metrics": parse_json(line)}).metrics for line in lines]
        for epoch in epochs:
            for name in ("epoch", "train_loss"):
                if epoch[name] is None:
                    raise ValueError(f"{name} is null")
            _ = epoch["train_accuracy"], epoch["test_loss"], epoch["test_accuracy"]
    except FileNotFoundError:
        remedy = "give the folder of a run, once its first epoch is complete"
        raise TrainingError(f"{path}: no such file; {damage_remedy(path, remedy)}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = damage_remedy(path, "train again in another folder")
        raise TrainingError(f"{path}: not the metrics of a run, or damaged ({error}); {remedy}") from error
    if not epochs:
        if (run_dir / MODEL_FILE).exists():
            raise TrainingError(f"{path}: empty; {damage_remedy(path, 'train again in another folder')}")
        raise TrainingError(f"{path}: no epoch is complete yet; wait for the first")
    return epochs


def draw(runs: Mapping[str, Metrics], path: Path) -> None:
    """Draw loss and accuracy (%) over the epochs of runs, or in its place mean average precision (%) or R2.

    The loss of classes is the mean cross entropy in nats; other targets have others, see
    `edgeprune_runtime.training.objectives.losses`.
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
    from matplotlib.ticker import MaxNLocator

    with picture(path, (9, 3.6)) as figure:
        loss, accuracy = figure.subplots(1, 2)
        shown = [measure_of(epochs) for epochs in runs.values()]
        for number, (name, epochs) in enumerate(runs.items()):
            _curve(loss, name, epochs, "loss", 1, f"C{number}")
            what = shown[number]
            _curve(accuracy, name, epochs, what, scale_of(what), f"C{number}")
        loss.set_ylabel("mean cross entropy, nats" if set(shown) == {"accuracy"} else "loss")
        accuracy.set_ylabel(" or ".join(MEASURES[what] for what in dict.fromkeys(shown)))
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
        # Of the names of folders nothing is mathematics.
        for text in accuracy.legend(fontsize=8).get_texts():
            text.set_parse_math(False)


def measure_of(epochs: Metrics) -> str:
    """Return which of `MEASURES` a run has."""
    found = [what for what in MEASURES if epochs[-1].get(f"test_{what}", []) not in (None, [])]
    return found[0] if found else "accuracy"


def scale_of(what: str) -> int:
    """Return what the numbers of one of `MEASURES` are multiplied by to be in its unit."""
    return 1 if what == "r2" else 100


def series(epochs: Metrics, column: str, scale: float = 1) -> list[tuple[float, float]]:
    """Return (epoch, value times scale) of the epochs that have a metric; of several numbers their mean."""
    values = [(epoch["epoch"], _mean(epoch.get(column))) for epoch in epochs]
    return [(number, scale * value) for number, value in values if value is not None]


def _curve(axes: Axes, name: str, epochs: Metrics, what: str, scale: float, color: str) -> None:
    shown = label(name)
    for part, line in (("train", "--"), ("test", "-")):
        if points := series(epochs, f"{part}_{what}", scale):
            axes.plot(*zip(*points, strict=True), line, color=color, label=f"{shown}, {part}", marker=".")


def _mean(value: float | list[float | None] | None) -> float | None:
    """Return a metric, of several numbers their mean."""
    if not isinstance(value, list):
        return value
    known = [one for one in value if one is not None]
    return sum(known) / len(known) if known else None
