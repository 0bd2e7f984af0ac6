"""Tables in Markdown, from columns that each say what they show of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import mean, stdev
from typing import Any

from scipy import stats

from edgeprune.text import printable

__all__ = ["Column", "apart", "difference", "mean_and_range", "median_and_range", "not_measured", "render"]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    title : str
        Its header.
    value : str, int or callable
        What it shows of a row: a key, keys joined by dots for a value further inside, an index, or a
        function of the row.
    form : str
        How the value is printed, as `str.format` takes it.
    none : str
        What stands for None.
    """

    title: str
    value: str | int | Callable[[Any], Any]
    form: str = "{}"
    none: str = "-"

    def cell(self, row: Any) -> str:
        """Return the text of one row."""
        if callable(self.value):
            value = self.value(row)
        elif isinstance(self.value, str):
            value = reduce(lambda inside, key: inside[key], self.value.split("."), row)
        else:
            value = row[self.value]
        text = self.none if value is None else self.form.format(value)
        # Names come from users: a bar would begin another cell, and a newline end the table.
        return printable(text).replace("|", "\\|")


def render(columns: Sequence[Column], rows: Iterable[Any], intro: str = "") -> list[str]:
    """Return the lines of a table, below a paragraph if there is one."""
    cells = [[column.title for column in columns], ["---"] * len(columns)]
    cells += [[column.cell(row) for column in columns] for row in rows]
    return [*([intro, ""] if intro else []), *("| " + " | ".join(line) + " |" for line in cells)]


def mean_and_range(shares: Sequence[float]) -> str:
    """Return the mean, the lowest and the highest of some shares in %; a dash where there is none."""
    if not shares:
        return "-"
    middle, low, high = (100 * of for of in (mean(shares), min(shares), max(shares)))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def difference(
    rows: Iterable[Mapping[str, Any]], one: str, other: str, key: str = "images"
) -> tuple[float, float] | None:
    """Return the mean difference in test accuracy of the seeds that both have, and the 95% margin of it.

    From Student's t over the differences of pairs; None with fewer than two. `key` is what tells the rows of
    `one` from those of `other`.
    """
    of: dict[str, dict[int, float]] = {one: {}, other: {}}
    for row in rows:
        if row[key] in of:
            of[row[key]][row["seed"]] = row["test_accuracy"]
    pairs = [of[one][seed] - of[other][seed] for seed in of[one].keys() & of[other].keys()]
    if len(pairs) < 2:
        return None
    margin = stats.t.ppf(0.975, len(pairs) - 1) * stdev(pairs) / math.sqrt(len(pairs))
    return mean(pairs), float(margin)


def apart(rows: Iterable[Mapping[str, Any]], one: str, other: str, key: str = "images") -> str | None:
    """Return the `difference` in points, as a table shows it; None of the other itself."""
    found = None if one == other else difference(rows, one, other, key)
    return None if found is None else f"{100 * found[0]:+.1f} ± {100 * found[1]:.1f}"


def median_and_range(spread: Mapping[str, float], form: str, unit: str = "") -> str:
    """Return what `edgeprune_benchmarks.harness.results.spread` found, each number as `format` takes it."""
    middle, low, high = (format(spread[part], form) for part in ("median", "min", "max"))
    return f"{middle}{unit} [{low} to {high}]"


def not_measured(command: str, *, gpu: bool, data: bool = True) -> str:
    """Return what stands where there is no result yet, or where one needs a GPU."""
    with_gpu = " With a GPU:" if gpu else ""
    folder = " --data FOLDER" if data else ""
    return f"Not yet measured.{with_gpu} `python -m edgeprune_benchmarks {command}{folder}`"
