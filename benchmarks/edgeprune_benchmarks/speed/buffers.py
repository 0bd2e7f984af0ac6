"""What it brings to write each batch over the one before: the same decoding both ways, in turn."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..harness.results import save, spread
from ..harness.timing import Epoch, interleave, pinned, serve
from .decode import Bench
from .images import prepare, without_images

__all__ = ["measure", "run"]

SIZE, BATCHES, BACKENDS = "32x32", (32, 256), ("native", "torch")
_REUSED = ", reused"


def run(data: Path, output: Path, *, rounds: int, count: int | None) -> None:
    """Measure with one and two threads, each in a process pinned to as many cores, and save the result.

    Raises
    ------
    ConfigError
        The images are not there.
    """
    without_images(data, (SIZE,))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(data, Path(folder), SIZE, count) | {"rounds": rounds, "batches": BATCHES}
        for threads in (1, 2):
            click.echo(f"{threads} threads")
            rows += pinned(__spec__.name, task, threads)
    click.echo(save(output, "time-buffers", {"rows": rows}))


def measure(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Check each decoder with fresh and with reused memory, then time them in turn; one row each."""
    images = np.load(task["pixels"])
    bench, rows = Bench(task, images), []
    for batch in task["batches"]:
        epochs = _both(bench, batch)
        for name, epoch in epochs.items():
            bench.check(name, epoch)
        rates = interleave(epochs, task["rounds"])
        for name in [name for name in rates if not name.endswith(_REUSED)]:
            fresh, reused = rates[name], rates[name + _REUSED]
            row = {"decoder": name, "threads": task["threads"], "batch": batch, "images": len(images)}
            row |= {"fresh": spread(fresh), "reused": spread(reused)}
            row["ratio"] = spread([one / other for one, other in zip(reused, fresh, strict=True)])
            rows.append(row)
    return rows


def _both(bench: Bench, batch: int) -> dict[str, Epoch]:
    fresh: dict[str, Epoch] = {"raw": partial(bench.peers.raw, batch)}
    reused: dict[str, Epoch] = {"raw": partial(bench.peers.raw_reused, batch)}
    fresh |= bench.ours(batch, BACKENDS)[0]
    reused |= bench.ours(batch, BACKENDS, reuse=True)[0]
    return {name + end: way[name] for name in fresh for end, way in (("", fresh), (_REUSED, reused))}


if __name__ == "__main__":
    serve(measure)
