"""The pictures of docs/images, drawn from the JSON results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import click

from ..codec.budgets import BARE
from ..photographs.tables import STARTS, side_name
from ..robustness.pictures.drawing import PICTURES as ROBUSTNESS

__all__ = ["draw"]

Results = dict[str, Any]
OURS, OTHERS = "#c0392b", ("#2c3e50", "#2980b9", "#16a085", "#8e44ad", "#d68910", "#7f8c8d", "#5d6d7e")


def draw(results: Path, pictures: Path) -> list[Path]:
    """Draw every picture whose result is there, as PNG and SVG, and return the files.

    The same results give the same SVG files with one version of matplotlib.
    """
    drawn: list[Path] = []
    for name, (source, plot) in PICTURES.items():
        path = results / f"{source}.json"
        if not path.exists():
            click.echo(f"{name}: left out, because {path.name} is missing")
            continue
        with _figure() as figure:
            plot(figure, json.loads(path.read_text())["results"])
            drawn += _save(figure, pictures, name)
    return drawn


@contextmanager
def _figure() -> Iterator[Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text as text, and identifiers that do not change from run to run.
    style: dict[Any, Any] = {
        "svg.hashsalt": "edgeprune",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.grid": True,
    }
    with mpl.rc_context({**style, "grid.alpha": 0.3, "axes.axisbelow": True}):
        yield Figure(layout="constrained")


def _save(figure: Any, pictures: Path, name: str) -> list[Path]:
    pictures.mkdir(parents=True, exist_ok=True)
    files = [pictures / f"{name}.{kind}" for kind in ("png", "svg")]
    figure.savefig(files[0], dpi=150, metadata={"Software": None})
    figure.savefig(files[1], metadata={"Date": None, "Creator": None})
    return files


def _style(name: str, names: list[str]) -> dict[str, Any]:
    if name.startswith(("quantized", "sparse", "PackLoader")):
        return {"color": OURS, "linewidth": 2}
    return {"color": OTHERS[names.index(name) % len(OTHERS)], "linewidth": 1}


def _rate_distortion(figure: Any, results: Results) -> None:
    """Draw PSNR over bytes, files on the left and without containers on the right."""
    figure.set_size_inches(9, 4)
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        ours = row["codec"].startswith("quantized, ycbcr") and row["codec"].endswith("rdo")
        if row["psnr_db"] is not None and 25 <= row["psnr_db"] <= 41 and (row["kind"] == "peer" or ours):
            curves.setdefault(row["codec"], []).append(row)
    first = next((name for name in curves if name.startswith("quantized")), None)
    axes = figure.subplots(1, 2, sharey=True)
    peers = [name for name in curves if not name.startswith("quantized")]
    for axis, kind, title in zip(
        axes, ("file_bytes", "payload_bytes"), ("whole files", "without containers and headers"), strict=True
    ):
        for name in [*peers, *([first] if first else [])]:
            points = sorted(curves[name], key=lambda row: float(row[kind]))
            x, y = [row[kind] for row in points], [row["psnr_db"] for row in points]
            axis.plot(x, y, marker=".", label=name, **_style(name, peers))
        axis.set(title=f"{results['size']}, {title}")
        _logarithmic(axis, "bytes an image")
    axes[0].set_ylabel("PSNR, dB")
    axes[1].legend(fontsize=7)


def _logarithmic(axis: Any, label: str) -> None:
    """Make the axis of x logarithmic, with plain numbers at 1, 2 and 5 times each power of ten."""
    from matplotlib import ticker

    axis.set(xscale="log", xlabel=label)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _throughput(figure: Any, results: Results) -> None:
    """Draw images/s as bars, a panel for each size, two threads, the largest batch."""
    rows = results["rows"]
    largest = max(row["batch"] for row in rows)
    shown = [row for row in rows if row["batch"] == largest and row["threads"] == 2]
    figure.set_size_inches(9, 1 + 0.22 * max(len(row["images_per_second"]) for row in shown))
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, row in zip(axes, shown, strict=True):
        _bars(axis, row["images_per_second"])
        axis.set_title(f"{row['size']}, {row['threads']} threads, batches of {row['batch']}")


def _bars(axis: Any, rates: dict[str, dict[str, float]]) -> None:
    names = sorted(rates, key=lambda name: rates[name]["median"])
    medians = [rates[name]["median"] for name in names]
    low = [rates[name]["median"] - rates[name]["min"] for name in names]
    high = [rates[name]["max"] - rates[name]["median"] for name in names]
    colors = [OURS if name.startswith(("quantized", "sparse", "PackLoader")) else OTHERS[0] for name in names]
    axis.barh(names, medians, xerr=[low, high], color=colors, error_kw={"linewidth": 0.8})
    axis.set_xlabel("images/s")
    axis.tick_params(axis="y", labelsize=7)


def _accuracy(figure: Any, results: Results) -> None:
    """Draw test accuracy over the budget: mean over seeds, and their range."""
    figure.set_size_inches(6, 4)
    axis = figure.subplots()
    cells: dict[str, dict[float, list[float]]] = {}
    for row in results["rows"]:
        line = cells.setdefault(row["codec"], {})
        line.setdefault(row["budget_mb"], []).append(100 * row["test_accuracy"])
    peers = [name for name in cells if not name.startswith("quantized")]
    for name, line in cells.items():
        budgets = sorted(line)
        means = [mean(line[budget]) for budget in budgets]
        below = [m - min(line[budget]) for m, budget in zip(means, budgets, strict=True)]
        above = [max(line[budget]) - m for m, budget in zip(means, budgets, strict=True)]
        dash = ":" if name.endswith(BARE) else "-"
        axis.errorbar(
            budgets, means, [below, above], label=name, linestyle=dash, capsize=2, **_style(name, peers)
        )
    axis.set(ylabel="test accuracy, %")
    _logarithmic(axis, "MB")
    axis.legend(fontsize=7)


def _photographs(figure: Any, results: Results) -> None:
    """Draw test accuracy over minutes of training, a panel for each network and start, a line a run."""
    panels = list(dict.fromkeys((row["model"], row["start"]) for row in results["rows"]))
    sides = sorted({row["side"] for row in results["rows"]})
    figure.set_size_inches(4.5 * min(2, len(panels)), 3.2 * -(-len(panels) // 2))
    for number, panel in enumerate(panels, start=1):
        axis = figure.add_subplot(-(-len(panels) // 2), min(2, len(panels)), number)
        rows = [row for row in results["rows"] if (row["model"], row["start"]) == panel]
        for row in rows:
            minutes, shares = zip(*row["curve"], strict=True)
            is_first = row is next(one for one in rows if one["side"] == row["side"])
            label = side_name(row["side"]).replace("`", "") if is_first else None
            color = OTHERS[sides.index(row["side"]) % len(OTHERS)]
            axis.plot(minutes, [100 * share for share in shares], color=color, linewidth=1, label=label)
        axis.set(
            title=f"{panel[0]} {STARTS[panel[1]]}", xlabel="minutes of training", ylabel="test accuracy, %"
        )
        axis.legend(fontsize=7)


def _training_memory(figure: Any, results: Results) -> None:
    """Draw the memory of training processes over time, a panel for each size of the data."""
    figure.set_size_inches(9, 3.4)
    sizes = list(dict.fromkeys(row["images"] for row in results["rows"]))
    for axis, images in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        rows = [row for row in results["rows"] if row["images"] == images]
        for row in rows:
            ours = row["from"] == "pack"
            name = f"pack, {row['memory'] or 'default'}" if ours else f"{row['from']} in memory"
            times, sizes_mib = zip(*row["curve"], strict=True)
            axis.plot(times, sizes_mib, "-" if ours else "--", label=name)
        axis.set_title(f"{images:,} images, pack of {rows[0]['pack_mb']:,.0f} MB", fontsize=8)
        axis.set(xlabel="s", ylabel="MiB in RAM", ylim=(0, None))
        axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


PICTURES: dict[str, tuple[str, Callable[[Any, Results], None]]] = {
    "rate-distortion-32x32": ("storage-32x32", _rate_distortion),
    "rate-distortion-224x224": ("storage-224x224", _rate_distortion),
    "throughput-decode": ("time-decode", _throughput),
    "throughput-loaders": ("time-loaders", _throughput),
    "accuracy-bytes": ("accuracy-bytes", _accuracy),
    "training-memory": ("training-memory", _training_memory),
    "photographs": ("photographs", _photographs),
    **ROBUSTNESS,
}
