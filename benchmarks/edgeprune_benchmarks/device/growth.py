"""Data that keep coming: what a network knows of old and new classes, with replay from packs and without."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune import BuildConfig, add_images, build_pack
from edgeprune.training.setup import set_up
from edgeprune_formats import ConfigError, __version__
from edgeprune_runtime import Replay, open_packs
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.training import TrainConfig

from ..harness.cells import measure_cells
from ..harness.deadline import Deadline
from ..harness.images import decoded_cifar10
from ..harness.markdown import Column, mean_and_range, render
from ..harness.results import save

__all__ = ["Settings", "growth_table", "run"]

CLASSES, OLD_CLASSES = 10, 5
_PREFIX, _AT_ONCE = "class ", 500
METHODS = {
    "before": "before the new images",
    "replay": "new images, half of each batch old ones (`--replay 0.5`)",
    "new": "new images alone",
    "once": "all images at once, from the start",
}
TASKS = {"classes": "five classes more", "additions": "additions of images of all classes"}


@dataclass(frozen=True)
class Settings:
    """How much is trained on, and how often.

    Attributes
    ----------
    images : int
        Of each class, of the first classes and of those that are added.
    base : int
        Images that additions begin with.
    additions, added : int
        How many additions, and images in each.
    epochs : int
        Passes over the images of a network that is trained from the start.
    lr, grown_lr : float
        Peak learning rate from the start, and of a network that goes on.
    """

    model: str
    images: int
    base: int
    additions: int
    added: int
    epochs: int
    batch_size: int
    lr: float
    grown_lr: float
    device: str


def run(settings: Settings, data: Path, output: Path, runs: Path, seeds: int, minutes: float | None) -> None:
    """Measure all cells that are not there yet, and write ``growth.json``."""
    runs.mkdir(parents=True, exist_ok=True)
    study = _Study(settings, data, runs)
    cells = {
        f"cell-{task}-{method}-{seed}": partial(study.cell, task, method, seed)
        for seed in range(seeds)
        for task in TASKS
        for method in METHODS
    }
    facts = {"edgeprune": __version__, **asdict(settings)}
    rows = measure_cells(cells, runs, facts, Deadline(minutes))
    test = {"test_images": len(study.arrays["y_test"]), "seeds": seeds}
    click.echo(save(output, "growth", {"settings": asdict(settings), **test, "rows": rows}))


class _Study:
    """The packs of a comparison, and the networks that are trained from them; all are kept and used again."""

    def __init__(self, settings: Settings, data: Path, runs: Path) -> None:
        self._settings, self._data, self._runs = settings, data, runs

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The JPEG copy of CIFAR-10: x_train, y_train, x_test, y_test."""
        with np.load(decoded_cifar10(self._data, self._runs / "cifar10-jpeg.npz")) as archive:
            return dict(archive)

    def cell(self, task: str, method: str, seed: int) -> dict[str, Any]:
        """Train what the method trains, and return accuracies on old and on new images' classes."""
        click.echo(f"{TASKS[task]}: {METHODS[method]}, seed {seed}")
        packs = self._packs(task)
        if method == "once":
            run = self._train(task, "once", packs, seed)
        else:
            run = self._train(task, "before", packs[:1], seed)
        for count in range(2, len(packs) + 1) if method in ("replay", "new") else ():
            if method == "replay":
                run = self._train(task, f"replay-{count}", packs[:count], seed, run, Replay(0.5))
            else:
                run = self._train(task, f"new-{count}", packs[count - 1 : count], seed, run)
        correct, total = self._tested(run)
        row = {"task": task, "method": method, "seed": seed, "accuracy": float(correct.sum() / total.sum())}
        for name, part in (("old", slice(OLD_CLASSES)), ("new", slice(OLD_CLASSES, None))):
            row[name] = float(correct[part].sum() / total[part].sum()) if task == "classes" else None
        return row

    def _packs(self, task: str) -> list[Path]:
        folder = self._runs / f"packs-{task}"
        folder.mkdir(exist_ok=True)
        parts = self._parts(task)
        if not (folder / "0000.h5").exists():
            build_pack(self._source(folder, 0, parts[0]), folder / "0000.h5", BuildConfig(seed=0))
        while (made := len(list(folder.glob("*.h5")))) < len(parts):
            add_images(self._source(folder, made, parts[made]), folder)
        return sorted(folder.glob("*.h5"))

    def _parts(self, task: str) -> list[NDArray[np.int64]]:
        """Return the rows of the training images in the first pack and in each addition."""
        settings, labels = self._settings, self.arrays["y_train"]
        random = np.random.default_rng(0)
        of_class = [random.permutation(np.nonzero(labels == one)[0]) for one in range(CLASSES)]
        if task == "classes":
            kept = [rows[: settings.images] for rows in of_class]
            return [np.concatenate(kept[:OLD_CLASSES]), np.concatenate(kept[OLD_CLASSES:])]
        sizes = [settings.base, *[settings.added] * settings.additions]
        if any(size % CLASSES for size in sizes) or sum(sizes) > CLASSES * min(map(len, of_class)):
            raise ConfigError(
                f"`base` and `added` must be multiples of {CLASSES}, and all together at most {len(labels):,}"
            )
        ends = np.cumsum([0, *(size // CLASSES for size in sizes)])
        return [np.concatenate([rows[start:stop] for rows in of_class]) for start, stop in pairwise(ends)]

    def _source(self, folder: Path, number: int, rows: NDArray[np.int64]) -> str:
        labels = self.arrays["y_train"][rows]
        names = np.unique(labels)
        path, own = folder / f"{number:04d}.npz", np.searchsorted(names, labels)
        named = np.array([f"{_PREFIX}{n}" for n in names])
        np.savez(path, x=self.arrays["x_train"][rows], y=own, class_names=named)
        return f"npz:{path}"

    def _train(
        self,
        task: str,
        name: str,
        packs: list[Path],
        seed: int,
        init: Path | None = None,
        replay: Replay | None = None,
    ) -> Path:
        """Train from packs, or go on with that, and return the folder of the run.

        A network that goes on sees as many images as it would in all epochs over the new ones, whatever part
        of them is old.
        """
        settings, folder = self._settings, self._runs / f"{task}-{name}-{seed}"
        config = TrainConfig(
            model=settings.model,
            epochs=settings.epochs if replay is None else max(1, round(settings.epochs * (1 - replay.share))),
            batch_size=settings.batch_size,
            lr=settings.lr if init is None else settings.grown_lr,
            seed=seed,
            device=settings.device,
        )
        set_up(open_packs(packs), folder, config, replay=replay, resume=True).train(
            folder, init=init, resume=True
        )
        return folder

    def _tested(self, run: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each class the test images that a network classifies right, and all of them."""
        trained = load_trained(run)
        network, images, labels = trained.on_images(), self.arrays["x_test"], self.arrays["y_test"]
        numbers = np.array([int(name.removeprefix(_PREFIX)) for name in trained.class_names or ()])
        given = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = torch.from_numpy(images[start : start + _AT_ONCE]).permute(0, 3, 1, 2)
            with torch.inference_mode():
                given.append(network(pixels / 255).argmax(1).numpy())
        right = labels[numbers[np.concatenate(given)] == labels]
        return np.bincount(right, minlength=CLASSES), np.bincount(labels, minlength=CLASSES)


def growth_table(results: dict[str, Any]) -> list[str]:
    """Return the accuracies of each task and method: mean, and range over the seeds."""
    settings = results["settings"]
    lines: list[str] = []
    intros = {
        "classes": (
            f"{settings['model']}, {settings['images']:,} images of each class, "
            f"{settings['epochs']} epochs from the start; {results['test_images']:,} test images, "
            f"{results['seeds']} seeds. First five classes, then five more. In %, mean (lowest to highest)."
        ),
        "additions": (
            f"{settings['base']:,} images of ten classes, then {settings['additions']} additions of "
            f"{settings['added']:,}, after each of which the network goes on:"
        ),
    }
    for task, rows in groupby(sorted(results["rows"], key=_place), key=lambda row: row["task"]):
        by_method = [(name, list(of)) for name, of in groupby(rows, key=lambda row: row["method"])]
        columns = [Column("trained on", lambda line: METHODS[line[0]])]
        shown = [("all classes", "accuracy")]
        if task == "classes":
            shown = [("old classes", "old"), ("new classes", "new"), *shown]
        columns += [Column(title, partial(_accuracies, key)) for title, key in shown]
        lines += [*([""] if lines else []), *render(columns, by_method, intros[task])]
    return lines


def _place(row: dict[str, Any]) -> tuple[int, int]:
    return list(TASKS).index(row["task"]), list(METHODS).index(row["method"])


def _accuracies(key: str, line: tuple[str, list[dict[str, Any]]]) -> str:
    return mean_and_range([row[key] for row in line[1]])
