"""Minutes to accuracy on photographs: JPEG files by a common recipe, a pack by ours; resumable.

A cell is one network, trained in a process of its own on as many cores as threads. A cell that was stopped
is begun anew: so its minutes are those of one uninterrupted process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import click

from edgeprune import BuildConfig, build_pack
from edgeprune_formats import ConfigError, __version__
from edgeprune_runtime.output_files import write_text
from edgeprune_runtime.training import TrainConfig

from ..harness.cells import measure_cells, restore_cells
from ..harness.deadline import Deadline
from ..harness.images import held_out_trashnet, unpack_trashnet
from ..harness.results import machine, save
from ..harness.timing import pinned
from .pretraining import pretrain
from .tables import FOLDER, PRETRAINED, SHORT, SIZES, kind_of, own_settings, schedule_of

__all__ = ["EPOCHS", "Settings", "run"]

# What takes a quarter of an hour of one core from the folder.
EPOCHS = {"shufflenet_v2": 30, "mobilenet_v2": 16}


@dataclass(frozen=True)
class Settings:
    """What all cells have in common.

    Attributes
    ----------
    size : int
        Side of the images in pixels, at least 64: below, our networks have other first
        layers than torchvision's.
    epochs : int or None
        Passes over the images; None stands for `EPOCHS`. The short run from a pack has a third of them, that
        with a resolution schedule half, unless its side says otherwise.
    batch_size : int
        Images in a step, of both sides.
    quality : float
        Of the pack.
    augment : str
        Of training from the pack, as `PackLoader`.
    lr, ema, label_smoothing : float, float, float
        Of training from the pack, as `TrainConfig`.
    pretrain_steps : int
        On CIFAR-10.
    threads : int
        And cores.
    held_out : bool
        Train on four fifths of the training images, and test on the others: to choose settings.
    """

    size: int
    epochs: int | None
    batch_size: int
    quality: float
    augment: str
    lr: float
    ema: float
    label_smoothing: float
    pretrain_steps: int
    threads: int
    held_out: bool

    def epochs_of(self, model: str, side: str) -> int:
        """Return the passes of one network."""
        epochs = self.epochs or EPOCHS[model]
        share = -(-epochs // {SHORT: 3, SIZES: 2}.get(kind_of(side), 1))
        return int(own_settings(side).get("epochs", share))

    def training(self, side: str) -> dict[str, Any]:
        """Return the fields of `TrainConfig` that are not the same for every cell."""
        training: dict[str, Any] = {name: getattr(self, name) for name in ("lr", "ema", "label_smoothing")}
        if kind_of(side) == SIZES:
            training["resolution_schedule"] = schedule_of(side)
        return {**training, **{name: value for name, value in own_settings(side).items() if name in training}}

    def check(self, places: Iterable[tuple[str, str, str, int]]) -> None:
        """Raise `ConfigError` for settings of `TrainConfig` that a cell could not be trained with."""
        for model, _, side, _ in places:
            if kind_of(side) != FOLDER:
                config = TrainConfig(model=model, epochs=self.epochs_of(model, side), **self.training(side))
                above = [size for size in config.resolutions.sizes if max(size) > self.size]
                if above:
                    raise ConfigError(
                        f"`resolution_schedule` has {above[0][0]}x{above[0][1]}, but the images have only "
                        f"{self.size}x{self.size} pixels; give smaller sizes, or raise `size`"
                    )

    def facts(self) -> dict[str, Any]:
        """Return what cells depend on beside their place, for `measure_cells`: also the processor."""
        # Hypervisors give one name to processors of several kinds.
        here = {name: machine()[name] for name in ("processor", "vectors")}
        return {"edgeprune": __version__, "default_epochs": EPOCHS, **here, **asdict(self)}


@dataclass(frozen=True)
class Wanted:
    """Which cells are measured.

    Attributes
    ----------
    models, starts, sides : tuple of str
        Networks, what they begin with, and what they are trained from; see `.tables`.
    peer_lrs : tuple of float
        What the learning rate of the folder's recipe is multiplied by, beside its proportion to the batch; a
        side each.
    resolution_schedule : str or None
        As `TrainConfig`; names a further side.
    schedule_settings : mapping of str to float or None
        ``epochs``, ``lr`` and ``ema`` of that side; None stands for half of the folder's epochs, or for
        what `Settings` has.
    seeds : int
        Of each.
    """

    models: tuple[str, ...]
    starts: tuple[str, ...]
    sides: tuple[str, ...]
    peer_lrs: tuple[float, ...]
    resolution_schedule: str | None
    schedule_settings: Mapping[str, float | None]
    seeds: int

    def places(self) -> list[tuple[str, str, str, int]]:
        """Return network, start, side and seed of each cell; with each seed the next side goes first."""
        folders = [
            FOLDER if factor == 1 else f"{FOLDER} peer-lr={_exact(factor)}" for factor in self.peer_lrs
        ]
        sides = [each for side in self.sides for each in (folders if side == FOLDER else [side])]
        if self.resolution_schedule is not None:
            settings = self.schedule_settings.items()
            own = [f"{name}={_exact(value)}" for name, value in settings if value is not None]
            sides.append(" ".join((SIZES, self.resolution_schedule, *own)))
        turns = [sides[first:] + sides[:first] for first in range(len(sides))]
        return [
            (model, start, side, seed)
            for seed in range(self.seeds)
            for model in self.models
            for start in self.starts
            for side in turns[seed % len(sides)]
        ]


def run(
    settings: Settings, wanted: Wanted, data: Path, output: Path, runs: Path, name: str, minutes: float | None
) -> None:
    """Measure all cells that are not there yet, and write the result after each.

    Raises
    ------
    ConfigError
        A network could not be trained with these settings; before any is trained.
    """
    settings.check(wanted.places())
    study, facts, folder = (
        _Study(settings, data, runs, name, Deadline(minutes)),
        settings.facts(),
        runs / name,
    )
    folder.mkdir(parents=True, exist_ok=True)
    restore_cells(output / f"{name}.json", folder, facts)
    cells = {_file(*place): partial(study.cell, *place) for place in wanted.places()}
    results = {"settings": asdict(settings), "cell_settings": facts}

    def keep(_: list[dict[str, Any]]) -> None:
        save(output, name, {**results, **study.images(), "rows": _rows(folder, facts)})

    keep(measure_cells(cells, folder, facts, study.deadline, keep))
    click.echo(output / f"{name}.json")


def _rows(folder: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all cells that are there, also those that were not asked for this time."""
    found, told = [], json.loads(json.dumps(facts))
    for path in sorted(folder.glob("*.json")):
        row = json.loads(path.read_text())
        if row.pop("settings") == told:
            found.append({**row, "cell": path.stem})
    return found


def _exact(value: float) -> str:
    return repr(value).removesuffix(".0")


def _file(model: str, start: str, side: str, seed: int) -> str:
    side = side.replace(" ", "-").replace(":", "x").replace(",", "-").replace("=", "-")
    return f"{model}-{start}-{side}-{seed}"


class _Study:
    """The images, packs and first weights of a comparison, made once and used by all cells."""

    def __init__(self, settings: Settings, data: Path, runs: Path, name: str, deadline: Deadline) -> None:
        self._settings, self._data, self._runs, self._name = settings, data, runs, name
        self.deadline = deadline

    def images(self) -> dict[str, Any]:
        """Return what is to be said of the images, for the result."""
        folder = self._folder()
        counts = {part: len(list((folder / part).glob("*/*.jpg"))) for part in ("train", "test")}
        classes = sum(path.is_dir() for path in (folder / "train").iterdir())
        return {"classes": classes, **{f"{part}_images": count for part, count in counts.items()}}

    def cell(self, model: str, start: str, side: str, seed: int) -> dict[str, Any]:
        """Train one network, and return its row."""
        settings, folder = self._settings, self._folder()
        row = {"model": model, "start": start, "side": side, "seed": seed}
        run = self._runs / self._name / f"run-{_file(model, start, side, seed)}"
        epochs = settings.epochs_of(model, side)
        init = None
        if start == PRETRAINED:
            steps = settings.pretrain_steps
            init = pretrain(model, settings.size, steps, self._data, self._runs, self.deadline)
        rmtree(run, ignore_errors=True)
        pack = None if kind_of(side) == FOLDER else self._pack(folder)
        size = sum(path.stat().st_size for path in ([pack] if pack else (folder / "train").glob("*/*.jpg")))
        click.echo(f"{model}, {start}: {side}, seed {seed}, {epochs} epochs")
        task = {
            **asdict(settings),
            **row,
            "epochs": epochs,
            "images": str(folder),
            "pack": None if pack is None else str(pack),
            "init": None if init is None else str(init),
            "folder": str(run),
            "training": settings.training(side),
            "peer_lr": own_settings(side).get("peer-lr", 1.0),
            "started": time.time(),
        }
        found = pinned(f"{__package__}.cell", task, settings.threads)
        rmtree(run, ignore_errors=True)
        built = None if pack is None else json.loads(pack.with_suffix(".json").read_text())["minutes"]
        return {**row, "epochs": epochs, "bytes": size, "build_minutes": built, **found}

    def _folder(self) -> Path:
        whole = unpack_trashnet(self._data, self._runs / "trashnet")
        return (
            held_out_trashnet(whole, self._runs / "trashnet-held-out") if self._settings.held_out else whole
        )

    def _pack(self, folder: Path) -> Path:
        settings = self._settings
        path = self._runs / f"{folder.name}-{settings.size}-q{settings.quality:g}.h5"
        if not path.with_suffix(".json").exists():
            config = BuildConfig(size=settings.size, quality=settings.quality)
            path.unlink(missing_ok=True)
            started = time.time()
            build_pack(f"imagefolder:{folder}", path, config)
            minutes = (time.time() - started) / 60
            write_text(path.with_suffix(".json"), json.dumps({"minutes": minutes}) + "\n")
        return path
