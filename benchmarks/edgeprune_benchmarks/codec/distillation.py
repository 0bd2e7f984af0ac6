"""What a teacher's probabilities in a pack are worth: against labels, smoothed labels, and more images."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import open_source
from edgeprune.packs.encoding.teacher import PackTeacher
from edgeprune.sources import check_source
from edgeprune.sources.check import read_rest
from edgeprune.training.evaluation import open_test
from edgeprune.work.image_store import ImageStore
from edgeprune_formats import PackHeader, open_pack
from edgeprune_formats.targets import Column, Target, decode_rows, encode_target
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.run_folder.results import is_finished
from edgeprune_runtime.training.settings import TEACHER

from ..harness.cells import count_cells, measure_cells, pack_loader, restore_cells, train_steps
from ..harness.deadline import Deadline
from ..harness.pixel_loader import PixelLoader
from ..harness.results import save
from ..selection.fixed_budget import Recipe
from .budgets import PROBED, PackFitter, make_fitter, nested_order
from .distillation_rows import MORE, ROWS, SMOOTHED, TAUGHT
from .packs import ImageSet

__all__ = ["Settings", "forms", "matching_smoothing", "run"]


@dataclass(frozen=True)
class Settings:
    """The scale of a comparison.

    Attributes
    ----------
    source : str
        The images, as `edgeprune.open_source` takes them.
    recipe, teacher : Recipe
        How the networks of the table are trained, and the one teacher, on all training images.
    psnr : float
        Of the packs, in dB.
    distill : float
        `TrainConfig.distill` of the row with the teacher.
    budgets_mb : tuple of float
        In units of 1,000,000 bytes, in the order in which they are done.
    seeds : int
        Orders of images, and networks, for each cell.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    source: str
    recipe: Recipe
    teacher: Recipe
    psnr: float
    distill: float
    budgets_mb: tuple[float, ...]
    seeds: int
    minutes: float | None

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        of = {"psnr": self.psnr, "distill": self.distill, "teacher": self.teacher.facts()}
        return {"source": Path(self.source).name, **of, **self.recipe.facts()}

    def cells(self) -> Iterator[tuple[float, int, str]]:
        """Yield budget, seed and row, budget after budget."""
        for budget in self.budgets_mb:
            for seed in range(self.seeds):
                yield from ((budget, seed, row) for row in ROWS)


def run(settings: Settings, output: Path, runs: Path, name: str = "distill") -> None:
    """Fill the table and write ``NAME.json`` after each cell.

    Raises
    ------
    OutOfTimeError
        The time was over before the end; whatever `runs` holds is not done again.
    """
    runs.mkdir(parents=True, exist_ok=True)
    before = restore_cells(output / f"{name}.json", runs, settings.facts())
    deadline = Deadline(settings.minutes)
    with tempfile.TemporaryDirectory(dir=runs) as folder:
        bench = _Bench(settings, runs, Path(folder), deadline)
        bench.train_teacher()
        cells = {_name(*cell): partial(bench.measure, *cell) for cell in settings.cells()}
        about = {
            **{key: value for key, value in asdict(settings).items() if key not in ("source", "minutes")},
            "source": Path(settings.source).name,
            "train_images": len(bench.train.labels),
            "test_images": len(bench.test_labels),
            "teacher_accuracy": bench.teacher_accuracy,
            "own_class": bench.own_class,
            "label_smoothing": matching_smoothing(settings.distill, bench.own_class, bench.classes),
            "forms": forms(bench.said),
            "cells": count_cells(cells, before),
            "cell_settings": settings.facts(),
        }

        def tell(rows: list[dict[str, Any]]) -> None:
            budgets = sorted({row["budget_mb"] for row in rows})
            click.echo(save(output, name, {**about, "budgets_mb": budgets, "rows": rows}))

        tell(measure_cells(cells, runs, settings.facts(), deadline, tell, before))


def _name(budget: float, seed: int, row: str) -> str:
    return f"{budget:g}-{seed}-{ROWS.index(row)}"


def matching_smoothing(share: float, own_class: float, classes: int) -> float:
    """Return the even smoothing that leaves as much to the own class as a teacher does, in the mean.

    The own class gets ``1 - a + a p`` with the share ``a`` and the teacher's mean probability ``p`` of it,
    and ``1 - e (C - 1) / C`` with labels smoothed by ``e`` over C classes.
    """
    return share * (1 - own_class) * classes / (classes - 1)


def forms(said: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Return what probabilities [N, classes] take and lose in each form that the format has.

    ``divergence`` is the mean KL divergence, in nats, of the float32 probabilities from what is read of them,
    where that is at least 1e-4;
    ``zlib_bytes`` what an image takes after zlib, which no form has.
    """
    names = tuple(map(str, range(said.shape[1])))
    kept = [("float16", 0), ("uint8", 0), *(("uint8", top) for top in (1, 2, 3, 5))]
    found = []
    for dtype, top in kept:
        column = Column(TEACHER, "probabilities", names, dtype=dtype, top=top)
        stored = encode_target(Target(column, said), len(said))
        read = np.maximum(decode_rows(column, stored), 1e-4)
        wide = said.astype(np.float64)
        logs = np.where(wide > 0, wide * np.log(np.maximum(wide, 1e-30) / read), 0)
        found.append(
            {
                "dtype": dtype,
                "top": top,
                "bytes": stored.nbytes / len(said),
                "zlib_bytes": len(zlib.compress(stored.tobytes(), 9)) / len(said),
                "divergence": float(logs.sum(axis=1).mean()),
                "same_class": float((read.argmax(1) == said.argmax(1)).mean()),
            }
        )
    return found


class _Bench:
    """Measures one cell after the other; the packs of a budget and seed are built once."""

    def __init__(self, settings: Settings, runs: Path, folder: Path, deadline: Deadline) -> None:
        self._settings, self._runs, self._folder, self._deadline = settings, runs, folder, deadline
        self._source = open_source(settings.source)
        self.train = ImageSet.of(self._source, "cifar10-train")
        self.test_labels = open_source(settings.source, split="test").labels
        self.classes = len(self._source.class_names)

    def train_teacher(self) -> None:
        """Train the teacher on the exact pixels of all training images, or go on with it."""
        recipe, shape = self._settings.teacher, self._source.shape
        config = recipe.config(0)
        mean, std = check_source(self._source).statistics(np.arange(len(self._source)), shape[1] * shape[2])
        store = ImageStore(self._source, np.arange(len(self._source)), place(config).device)
        header = PackHeader(
            channels=shape[0],
            height=shape[1],
            width=shape[2],
            samples=1,
            components=1,
            codec="sparse-f32",
            chunk_samples=1,
            class_names=self._source.class_names,
            mean=mean,
            std=std,
        )
        run = self._runs / "teacher"
        with nullcontext() if is_finished(run) else self._deadline.stopping():
            metrics = train_steps(
                PixelLoader(store, recipe.batch_size, (mean, std), seed=0),
                recipe.iterations,
                config,
                run,
                num_classes=self.classes,
                image_shape=shape,
                test=open_test(self._settings.source, header),
                provenance={"mean": mean, "std": std, "class_names": self._source.class_names},
                on_event=self._deadline.watched(lambda event: None),
            )
        self.teacher_accuracy = metrics["test_accuracy"]
        click.echo(f"teacher: {recipe.model}, test accuracy {self.teacher_accuracy:.2%}")

    @cached_property
    def _teacher(self) -> PackTeacher:
        return PackTeacher(self._runs / "teacher", self._settings.recipe.device)

    @cached_property
    def said(self) -> NDArray[np.float32]:
        """The teacher's probabilities of all training images, float32 [N, classes]."""
        pieces = read_rest(self._source, np.arange(len(self._source)), 1)
        return np.concatenate([self._teacher.probabilities(piece.pixels) for piece in pieces])

    @cached_property
    def own_class(self) -> float:
        """The mean probability of the own class over the training images, as packs store it."""
        said, labels = decode_rows(self._column.column, self._column.values), self.train.labels
        return float(said[np.arange(len(labels)), labels].mean())

    @cached_property
    def _column(self) -> Target:
        column = self._teacher.for_source(self._source).column
        target = Target(column, self.said)
        return Target(column, encode_target(target, len(self.said)))

    def measure(self, budget: float, seed: int, row: str) -> dict[str, Any]:
        """Return a cell of the table."""
        path = self._pack(budget, seed, row != MORE)
        config = self._config(seed, row)
        with open_pack(path) as pack, tempfile.TemporaryDirectory(dir=self._folder) as run:
            metrics = train_steps(
                pack_loader(pack, config),
                self._settings.recipe.iterations,
                config,
                Path(run) / "run",
                num_classes=self.classes,
                image_shape=pack.header.shape,
                test=open_test(self._settings.source, pack.header),
            )
            facts = {"images": len(pack), "bytes": path.stat().st_size}
        accuracy = metrics["test_accuracy"]
        click.echo(
            f"{budget:g} MB, seed {seed}, {row}: {facts['images']:,} images, test accuracy {accuracy:.2%}"
        )
        return {"budget_mb": budget, "seed": seed, "row": row, **facts, "test_accuracy": accuracy}

    def _config(self, seed: int, row: str) -> TrainConfig:
        config = self._settings.recipe.config(seed)
        if row == TAUGHT:
            return replace(config, distill=self._settings.distill)
        smoothing = matching_smoothing(self._settings.distill, self.own_class, self.classes)
        return replace(config, label_smoothing=smoothing) if row == SMOOTHED else config

    def _pack(self, budget: float, seed: int, is_taught: bool) -> Path:
        """Return a pack of as many images as fit, with the teacher's column or without."""
        path = self._folder / f"{budget:g}-{seed}-{is_taught}.h5"
        if not path.exists():
            images = self.train if not is_taught else replace(self.train, targets=(self._column,))
            self._fitter.fit(images.take(nested_order(self.train.labels, seed)), round(budget * 1e6))
            (self._folder / "pack.h5").replace(path)
        return path

    @cached_property
    def _fitter(self) -> PackFitter:
        probe = self.train.take(nested_order(self.train.labels, 0)[:PROBED])
        fitter = make_fitter("quantized", self._settings.psnr, probe, self._folder)
        assert isinstance(fitter, PackFitter)
        return fitter
