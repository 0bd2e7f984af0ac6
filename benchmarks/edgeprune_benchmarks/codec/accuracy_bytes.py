"""Accuracy per byte: the same network from as many images as fit a budget, by codec and quality.

Each cell of the table is a file in the folder of runs, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune import open_source
from edgeprune_runtime.training.checkpoint import write_text

from ..harness.results import save
from ..selection.fixed_budget import Recipe, train_on
from .budgets import PROBED, Fitter, describe, make_fitter, nested_order
from .packs import ImageSet

__all__ = ["Plan", "run"]


@dataclass(frozen=True)
class Plan:
    """The scale of a comparison.

    Attributes
    ----------
    source : str
        The images, as `edgeprune.open_source` takes them.
    recipe : Recipe
        How networks are trained: as many steps whatever the images.
    codecs : tuple of str
        Of `edgeprune_benchmarks.codec.budgets.CODECS`.
    psnrs : tuple of float
        Qualities in dB at which each codec is tried.
    budgets_mb : tuple of float
        In units of 1,000,000 bytes.
    seeds : int
        Orders of images, and networks, for each cell.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    source: str
    recipe: Recipe
    codecs: tuple[str, ...]
    psnrs: tuple[float, ...]
    budgets_mb: tuple[float, ...]
    seeds: int
    minutes: float | None

    def settings(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        return {"source": Path(self.source).name, "recipe": asdict(self.recipe)}

    def cells(self) -> Iterator[tuple[int, str, float | None, float]]:
        """Yield seed, codec, PSNR (None for raw pixels) and budget, seed after seed."""
        for seed in range(self.seeds):
            for codec in self.codecs:
                for target in (None,) if codec == "raw uint8" else self.psnrs:
                    for budget in self.budgets_mb:
                        yield seed, codec, target, budget


def run(plan: Plan, output: Path, runs: Path, name: str = "accuracy-bytes") -> None:
    """Fill the table and write ``NAME.json``; whatever `runs` holds is not done again."""
    runs.mkdir(parents=True, exist_ok=True)
    bench = _Bench(plan, runs)
    cells = list(plan.cells())
    rows: list[dict[str, Any]] = []
    started, longest = time.monotonic(), 0.0
    for cell in cells:
        path = _path(runs, *cell)
        if not path.exists():
            began = time.monotonic()
            if plan.minutes is not None and began - started + longest > 60 * plan.minutes:
                click.echo(f"{len(rows)} of {len(cells)} cells are done; run the same command to go on")
                return
            write_text(path, json.dumps({**bench.measure(*cell), "settings": plan.settings()}))
            longest = max(longest, time.monotonic() - began)
        rows.append(_read(path, plan))
    results = {
        **plan.settings(),
        "train_images": len(bench.train.labels),
        "test_images": len(bench.test.labels),
        "seeds": plan.seeds,
        "rows": rows,
    }
    click.echo(save(output, name, results))


def _path(runs: Path, seed: int, codec: str, target: float | None, budget: float) -> Path:
    place = "-".join([codec.replace(" ", "_").replace(":", ""), f"{target or 0:g}", f"{budget:g}", str(seed)])
    return runs / f"{place}.json"


def _read(path: Path, plan: Plan) -> dict[str, Any]:
    cell: dict[str, Any] = json.loads(path.read_text())
    if cell.pop("settings") != plan.settings():
        raise click.ClickException(f"{path} is of other settings; remove it or name another folder")
    return cell


class _Bench:
    """Measures one cell after the other; codecs' qualities are chosen once, in the folder of runs."""

    def __init__(self, plan: Plan, runs: Path) -> None:
        self._plan, self._runs = plan, runs
        self.train, self.test = (_all_of(plan.source, split) for split in ("train", "test"))
        self._fitters: dict[tuple[str, float | None], Fitter] = {}

    def measure(self, seed: int, codec: str, target: float | None, budget: float) -> dict[str, Any]:
        """Return a cell of the table."""
        ordered = self.train.take(nested_order(self.train.labels, seed))
        with tempfile.TemporaryDirectory(dir=self._runs) as folder:
            fitter = self._fitter(codec, target, Path(folder))
            fitted = fitter.fit(ordered, round(budget * 1e6))
        images = len(fitted.images.labels)
        rows = np.arange(images)
        accuracy = train_on(fitted.images.source(), self.test.source("test"), rows, self._plan.recipe, seed)
        click.echo(f"{codec} {fitter.setting}, {budget:g} MB, seed {seed}: {images:,} images, {accuracy:.2%}")
        place = {"codec": codec, "target_db": target, "budget_mb": budget, "seed": seed}
        facts = {"images": images, "bytes": fitted.bytes, "test_accuracy": accuracy}
        return {**place, **describe(fitter), **facts}

    def _fitter(self, codec: str, target: float | None, folder: Path) -> Fitter:
        """Return a codec at its quality, chosen on the same images whatever the seed."""
        key = codec, target
        if key not in self._fitters:
            probe = self.train.take(nested_order(self.train.labels, 0)[:PROBED])
            self._fitters[key] = make_fitter(codec, target, probe, folder)
        fitter = self._fitters[key]
        if hasattr(fitter, "folder"):
            fitter.folder = folder
        return fitter


def _all_of(spec: str, split: str) -> ImageSet:
    source = open_source(spec, split=split)
    return ImageSet(f"cifar10-{split}", source.read(np.arange(len(source))), source.labels)
