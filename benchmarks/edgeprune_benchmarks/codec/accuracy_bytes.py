"""Accuracy per byte: the same network from as many images as fit a budget, by codec and quality."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune import open_source
from edgeprune.sources import check_source

from ..harness.cells import measure_cells
from ..harness.deadline import Deadline
from ..harness.results import save
from ..selection.fixed_budget import Recipe, train_on
from .budgets import PROBED, Fitter, describe, make_fitter, nested_order
from .packs import ImageSet

__all__ = ["Settings", "run"]


@dataclass(frozen=True)
class Settings:
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

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        return {"source": Path(self.source).name, **self.recipe.facts()}

    def cells(self) -> Iterator[tuple[int, str, float | None, float]]:
        """Yield seed, codec, PSNR (None for raw pixels) and budget, seed after seed."""
        for seed in range(self.seeds):
            for codec in self.codecs:
                for target in (None,) if codec == "raw uint8" else self.psnrs:
                    yield from ((seed, codec, target, budget) for budget in self.budgets_mb)


def run(settings: Settings, output: Path, runs: Path, name: str = "accuracy-bytes") -> None:
    """Fill the table and write ``NAME.json``; whatever `runs` holds is not done again.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    runs.mkdir(parents=True, exist_ok=True)
    bench = _Bench(settings, runs)
    cells = {_name(*cell): partial(bench.measure, *cell) for cell in settings.cells()}
    rows = measure_cells(cells, runs, settings.facts(), Deadline(settings.minutes))
    results = {
        "source": Path(settings.source).name,
        "recipe": asdict(settings.recipe),
        "train_images": len(bench.train.labels),
        "test_images": len(bench.test.labels),
        "seeds": settings.seeds,
        "rows": rows,
    }
    click.echo(save(output, name, results))


def _name(seed: int, codec: str, target: float | None, budget: float) -> str:
    return "-".join([codec.replace(" ", "_").replace(":", ""), f"{target or 0:g}", f"{budget:g}", str(seed)])


class _Bench:
    """Measures one cell after the other; codecs' qualities are chosen once, in the folder of runs."""

    def __init__(self, settings: Settings, runs: Path) -> None:
        self._settings, self._runs = settings, runs
        self.train, self.test = (
            ImageSet.of(open_source(settings.source, split=split), f"cifar10-{split}")
            for split in ("train", "test")
        )
        self._fitters: dict[tuple[str, float | None], Fitter] = {}

    def measure(self, seed: int, codec: str, target: float | None, budget: float) -> dict[str, Any]:
        """Return a cell of the table."""
        ordered = self.train.take(nested_order(self.train.labels, seed))
        with tempfile.TemporaryDirectory(dir=self._runs) as folder:
            fitter = self._fitter(codec, target, Path(folder))
            fitted = fitter.fit(ordered, round(budget * 1e6))
        images, source = len(fitted.images.labels), fitted.images.source()
        rows, test = np.arange(images), self.test.source("test")
        accuracy = train_on(source, check_source(source), test, rows, self._settings.recipe, seed)
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
