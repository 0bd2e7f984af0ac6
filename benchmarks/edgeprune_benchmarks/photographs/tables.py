"""The tables of minutes to accuracy: a target for each seed, and when each side first reaches it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

from ..harness.markdown import Column, mean_and_range, render

__all__ = [
    "FOLDER",
    "PACK",
    "PRETRAINED",
    "SCRATCH",
    "SHORT",
    "SIDES",
    "SIZES",
    "STARTS",
    "kind_of",
    "minutes_to",
    "own_settings",
    "photograph_sentences",
    "photograph_tables",
    "schedule_of",
    "side_name",
]

Row = dict[str, Any]
FOLDER, PACK, SHORT, SIZES = "folder", "pack", "short", "sizes"
SCRATCH, PRETRAINED = "scratch", "pretrained"
SIDES = {
    FOLDER: "JPEG files, torchvision's recipe",
    PACK: "pack",
    SHORT: "pack",
    SIZES: "pack, `--resolution-schedule`",
}
STARTS = {SCRATCH: "from scratch", PRETRAINED: "from weights of CIFAR-10"}


def minutes_to(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Return when an accuracy was first reached; None if it never was."""
    return next((minutes for minutes, accuracy in curve if accuracy >= target), None)


def kind_of(side: str) -> str:
    """Return what a side is trained from: its name without settings of its own."""
    return side.split()[0]


def own_settings(side: str) -> dict[str, float]:
    """Return what the name of a side has of settings that are its own."""
    return {name: float(value) for name, equals, value in _words(side) if equals}


def schedule_of(side: str) -> str | None:
    """Return the schedule in the name of a side; None of others."""
    return next((word for word, equals, _ in _words(side) if not equals), None)


def _words(side: str) -> list[tuple[str, str, str]]:
    return [word.partition("=") for word in side.split()[1:]]


def side_name(side: str) -> str:
    """Return a side as tables and pictures name it."""
    own = own_settings(side)
    if kind_of(side) == FOLDER:
        return SIDES[FOLDER] + (f", {own['peer-lr']:g} times its learning rate" if own else "")
    words = "".join(f" --{name} {value:g}" for name, value in own.items() if name != "epochs")
    return SIDES[kind_of(side)].replace("-schedule", f"-schedule {schedule_of(side)}{words}")


def best(row: Row) -> float:
    """Return the highest accuracy after any epoch."""
    return max(float(accuracy) for _, accuracy in row["curve"])


def photograph_tables(results: Row) -> list[str]:
    """Return a table for each network and start, of the cells that are there."""
    lines = [_intro(results)]
    for model, start, rows in _panels(results):
        folder = _folders(rows)
        listed = ", ".join(f"{100 * best(folder[seed]):.1f}" for seed in sorted(folder)) or "not measured yet"
        said = f"{model} {STARTS[start]}; accuracy to reach, by seed, %: {listed}."
        lines += ["", *render(_columns(folder), _grouped(rows), said)]
    return lines


def photograph_sentences(results: Row) -> list[str]:
    """Return what each network gains by a pack from scratch, by its schedule of most epochs."""
    lines: list[str] = []
    for model, start, rows in _panels(results):
        if start != SCRATCH:
            continue
        folder = _folders(rows)
        ours = [row for row in rows if kind_of(row["side"]) == SIZES and row["seed"] in folder]
        if ours:
            side = max((row["epochs"], row["side"]) for row in ours)[1]
            ours = [row for row in ours if row["side"] == side]
            folder = {row["seed"]: folder[row["seed"]] for row in ours}
            rates = len({row["side"] for row in rows if kind_of(row["side"]) == FOLDER})
            lines += ["", _sentence(f"`{model}` {STARTS[start]}", rates, folder, ours)]
    return lines[1:]


def _panels(results: Row) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield each network and start, with its rows."""
    for model, start in dict.fromkeys((row["model"], row["start"]) for row in results["rows"]):
        yield model, start, [row for row in results["rows"] if (row["model"], row["start"]) == (model, start)]


def _sentence(who: str, rates: int, folder: dict[int, Row], ours: list[Row]) -> str:
    ratios = _ratios(ours, folder)
    better = f" at the better of {rates} learning rates" if rates > 1 else ""
    reached = f"in {_range(ratios, '{:.2f}')} of the minutes" if ratios else "with no seed"
    if 0 < len(ratios) < len(ours):
        reached += f", with {len(ratios)} of {len(ours)} seeds"
    size = ours[0]["bytes"] / next(iter(folder.values()))["bytes"]
    end, other = (mean_and_range([row["curve"][-1][1] for row in of]) for of in (ours, folder.values()))
    return (
        f"On photographs, {who}, trained from a {side_name(ours[0]['side'])} and {ours[0]['epochs']} epochs, "
        f"reaches the best accuracy of JPEG files and torchvision's recipe{better} {reached}, from "
        f"{size:.3f} of the bytes, and ends at {end}% against {other}%."
    )


def _intro(results: Row) -> str:
    settings = results["settings"]
    threads, size = settings["threads"], settings["size"]
    plural = "s" * (threads > 1)
    shares = mean_and_range([row["core_share"] for row in results["rows"]])
    held_out = "; the test images are a part of the training images" if settings["held_out"] else ""
    ema = "" if settings["ema"] is None else f" --ema {settings['ema']:g}"
    return (
        f"{results['train_images']:,} photographs to train on, {results['test_images']:,} to test on"
        f"{held_out}; {results['classes']} classes, at {size} pixels; {threads} thread{plural} on "
        f"{threads} core{plural}; batches of {settings['batch_size']}. The pack has quality "
        f"{settings['quality']:g}, and its rows have `--lr {settings['lr']:g}{ema}` if they name no others."
        f"{_pretrained(results)}{_built(results)} "
        f"The runs got {shares}% of the CPU time of their cores. Mean (lowest to highest) of the seeds."
    )


def _pretrained(results: Row) -> str:
    """Return what is to be said of the weights of CIFAR-10, where a run began with them."""
    is_used = any(row["start"] == PRETRAINED for row in results["rows"])
    steps = results["settings"]["pretrain_steps"]
    return f" The other initial weights come from {steps:,} steps on CIFAR-10." if is_used else ""


def _built(results: Row) -> str:
    """Return what is to be said of making the pack, where one was made."""
    built = [row["build_minutes"] for row in results["rows"] if row["build_minutes"] is not None]
    return f" Building the pack took {mean(built):.1f} minutes, which are not counted." if built else ""


def _grouped(rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each side, the folder first."""
    order = list(SIDES)
    sides = sorted({row["side"] for row in rows}, key=lambda side: (order.index(kind_of(side)), side))
    return [[row for row in rows if row["side"] == side] for side in sides]


def _folders(rows: list[Row]) -> dict[int, Row]:
    """Return the folder's run of each seed: the best of several learning rates, of equal ones the fastest."""

    def rank(row: Row) -> tuple[float, float]:
        return best(row), -(minutes_to(row["curve"], best(row)) or 0.0)

    found = [row for row in rows if kind_of(row["side"]) == FOLDER]
    return {row["seed"]: row for row in sorted(found, key=rank)}


def _columns(folder: dict[int, Row]) -> list[Column]:
    def reached(group: list[Row]) -> list[float]:
        found = [
            minutes_to(row["curve"], best(folder[row["seed"]])) for row in group if row["seed"] in folder
        ]
        return [minutes for minutes in found if minutes is not None]

    def count(group: list[Row]) -> str:
        return f"{len(reached(group))} of {sum(row['seed'] in folder for row in group)}"

    return [
        Column("trained from", lambda group: side_name(group[0]["side"])),
        Column("epochs", lambda group: group[0]["epochs"], "{}"),
        Column("seeds that reach it", count),
        Column("minutes to reach it", lambda group: _range(reached(group))),
        Column("ratio to JPEG files", lambda group: _range(_ratios(group, folder), "{:.2f}")),
        Column("best, %", lambda group: mean_and_range([best(row) for row in group])),
        Column("at the end, %", lambda group: mean_and_range([row["curve"][-1][1] for row in group])),
        Column("minutes in all", lambda group: _range([row["curve"][-1][0] for row in group])),
        Column("steps", lambda group: group[0]["steps"], "{:,}"),
        Column("images/s", lambda group: mean(_rate(row) for row in group), "{:.0f}"),
        Column("training data, MB", lambda group: group[0]["bytes"] / 1e6, "{:.2f}"),
    ]


def _ratios(group: list[Row], folder: dict[int, Row]) -> list[float]:
    """Return minutes to the target over those of the folder, of the seeds that reached it."""
    found = []
    for row in group:
        if row["seed"] in folder:
            other = folder[row["seed"]]
            target = best(other)
            own, reference = (minutes_to(one["curve"], target) for one in (row, other))
            found += [own / reference] if own is not None and reference else []
    return found


def _rate(row: Row) -> float:
    return float(row["images_seen"] / 60 / (row["curve"][-1][0] - row["startup_minutes"]))


def _range(values: Sequence[float], form: str = "{:.1f}") -> str:
    if not values:
        return "-"
    middle, low, high = (form.format(of) for of in (mean(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle
