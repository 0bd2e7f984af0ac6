"""The events of a training run as lines for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...text import bytes_text, count_text

__all__ = ["LineReport", "epoch_line", "metrics_text", "notice_line", "step_line"]

# Of several outputs so many are told.
_SHOWN = 4


class LineReport:
    """Hands on a line when training starts, for each epoch, and for what else happens.

    Parameters
    ----------
    report : callable
        Takes a line, as `print` does.
    epochs : int
        Of the run.
    setting : str
        What the run computes with: the first line.
    """

    def __init__(self, report: Callable[[str], object], epochs: int, setting: str) -> None:
        self._report, self._epochs, self._setting = report, epochs, setting

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event of `edgeprune_runtime.training.train`."""
        line = notice_line(event)
        if event["event"] == "start":
            line = self._setting
        elif event["event"] == "epoch":
            line = epoch_line(event, self._epochs)
        if line is not None:
            self._report(line)


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


def notice_line(event: dict[str, Any]) -> str | None:
    """Return what an event has to tell beside steps and epochs, on one line; None where it is nothing."""
    if event["event"] == "paused":
        return f"paused: {event['reason']}; waiting for room (Ctrl-C leaves)"
    if event["event"] == "continued":
        return "there is room again; going on"
    if event["event"] == "remade":
        return f"{event['reason']}; made again from the checkpoint"
    if event["event"] == "fallback":
        return f"going on from the checkpoint before it, of step {event['step']:,}: {event['reason']}"
    if event["event"] == "left_out":
        return f"{event['reason']}; in each epoch the last is left out"
    if event["event"] == "kept":
        return f"what was trained is kept, up to step {event['step']:,}; the run can be resumed"
    if event["event"] == "skipped":
        return f"{count_text(event['images'], 'image')} left out: {event['reason']}"
    if event["event"] == "schedule":
        return (
            f"{_epochs(event['first'], event['epochs'])} a new schedule: the learning rate rises "
            f"to {event['lr']:g} and falls to 0 once more; the epochs before keep theirs"
        )
    if event["event"] == "stopped":
        return (
            f"stopped after epoch {event['epoch']} of {event['epochs']}: no better test since epoch "
            f"{event['best_epoch']}, whose weights are kept"
        )
    if event["event"] == "best_lost":
        return f"the weights of the best epoch are lost, those of the last are kept: {event['reason']}"
    if event["event"] == "init":
        fresh = [f"not of these weights, but fresh: {', '.join(event['fresh'])}"] if event["fresh"] else []
        return "; ".join((*event["fitted"], *fresh)) or None
    return None


def _epochs(first: int, last: int) -> str:
    return f"epoch {first:,} is" if first == last else f"epochs {first:,} to {last:,} are"
