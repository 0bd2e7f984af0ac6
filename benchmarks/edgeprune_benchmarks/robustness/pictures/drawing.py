"""The curves of docs/results/robustness.md, drawn from JSON results on a figure that the caller saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..attacks.budgets import CURVE, HEADLINE
from ..recipes import row_name
from ..tables import groups_of, pooled

__all__ = ["PICTURES", "draw_curves", "draw_landscape", "draw_surfaces"]

Results = dict[str, Any]
COLORS = ("#2c3e50", "#c0392b", "#e67e22", "#2980b9", "#8e44ad", "#16a085", "#7f8c8d", "#d4ac0d")


def draw_curves(figure: Any, results: Results) -> None:
    """Draw accuracy under PGD-100 over eps: each network pale, the mean of a row bold, with its interval."""
    figure.set_size_inches(7, 4)
    axis = figure.subplots()
    eps = [255 * budget.size for budget in CURVE]
    for number, (name, rows) in enumerate(groups_of(results)):
        color, style = COLORS[number % len(COLORS)], "-" if number < len(COLORS) else "--"
        for row in rows if len(rows) > 1 else []:
            axis.plot(eps, _shares([row])[0], style, color=color, alpha=0.3, linewidth=0.5)
        shares, low, high = _shares(rows)
        axis.plot(eps, shares, style, color=color, label=name, marker=".", linewidth=1)
        axis.fill_between(eps, low, high, color=color, alpha=0.06, linewidth=0)
    _mark_suspected(axis, results)
    axis.set_xscale("log", base=2)
    axis.set_xticks(eps, [f"{value:g}" for value in eps])
    axis.set_xlabel("Linf budget in pixels, 1/255")
    axis.set_ylabel("accuracy under PGD-100, %")
    axis.legend(fontsize=7, ncol=2)


def _shares(rows: list[Results]) -> tuple[list[float], list[float], list[float]]:
    """Return the curve of some networks in %, and the ends of its intervals."""
    found = [pooled(rows, "PGD-100", budget.size) for budget in CURVE]
    points = [(share, *ends) for share, ends, _ in filter(None, found)]
    shares, low, high = ([100 * value for value in values] for values in zip(*points, strict=True))
    return shares, low, high


def _mark_suspected(axis: Any, results: Results) -> None:
    name, rows = groups_of(results)[0]
    suspected = pooled(rows, "PGD-20 normalized", HEADLINE.size)
    if suspected:
        label = f"{name}, 8/255 in normalized units"
        axis.plot([255 * HEADLINE.size], [100 * suspected[0]], "x", color=COLORS[0], label=label)


def draw_landscape(figure: Any, results: Results) -> None:
    """Draw the loss along random directions of the weights: runs pale, their mean bold (paper, Fig. 9)."""
    figure.set_size_inches(9, 4)
    plain, relative = figure.subplots(1, 2)
    steps = np.array(results["steps"])
    for number, (name, runs) in enumerate(_runs(results).items()):
        color = COLORS[number % len(COLORS)]
        lines = np.array([line for run in runs for line in run["along"]])
        for axis, values in ((plain, lines), (relative, lines - lines.min(axis=1, keepdims=True))):
            axis.plot(steps, values.T, color=color, alpha=0.2, linewidth=0.6)
            axis.plot(steps, values.mean(axis=0), color=color, linewidth=2, label=name)
    plain.set_ylabel("cross entropy, nats")
    relative.set_ylabel("above the lowest of the line")
    for axis in (plain, relative):
        axis.set_xlabel("step along a filter-normalized direction")
    plain.legend(fontsize=7)


def draw_surfaces(figure: Any, results: Results) -> None:
    """Draw the loss over two directions of the weights as contours (paper, Figs. 2 and 3)."""
    from matplotlib.colors import LogNorm

    rows = [row for row in results["rows"] if row["over"]]
    figure.set_size_inches(2 * len(rows), 2.4)
    axes = figure.subplots(1, len(rows), squeeze=False, sharey=True)[0]
    highest = max(np.max(row["over"]) for row in rows)
    levels = np.geomspace(min(np.min(row["over"]) for row in rows) * 0.99, highest, 15)
    for axis, row in zip(axes, rows, strict=True):
        surface = np.array(row["over"]).T
        drawn = axis.contourf(results["grid"], results["grid"], surface, levels=levels, norm=LogNorm())
        axis.set_title(row_name(row["label"], row["pruned"]), fontsize=8)
        axis.set_aspect("equal")
    figure.colorbar(drawn, ax=list(axes), label="cross entropy, nats", format="%.2g")


def _runs(results: Results) -> dict[str, list[Results]]:
    runs: dict[str, list[Results]] = {}
    for row in results["rows"]:
        runs.setdefault(row_name(row["label"], row["pruned"]), []).append(row)
    return runs


PICTURES: dict[str, tuple[str, Callable[[Any, Results], None]]] = {
    "robustness-curves": ("robustness-cifar10-all-cpu", draw_curves),
    "robustness-curves-seeds": ("robustness-cifar10-half-cpu", draw_curves),
    "robustness-curves-paper": ("robustness-cifar10-all-paper", draw_curves),
    "loss-landscape": ("landscape", draw_landscape),
    "loss-surfaces": ("landscape", draw_surfaces),
}
