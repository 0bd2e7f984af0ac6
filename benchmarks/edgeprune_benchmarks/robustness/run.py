"""``edgeprune bench robustness``: train the rows of a recipe, attack them, and save what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from edgeprune.text import say
from edgeprune.training.reports import TerminalReport
from edgeprune.work.progress import EpochLines
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.settings import TrainConfig

from ..harness.deadline import Deadline, OutOfTimeError
from ..harness.results import save
from .attacks.pruned_inference import attack_pruned, pruned_victim
from .attacks.victim import Victim, load_victim
from .evaluation import Evaluator
from .protocol import PROTOCOLS, Protocol
from .recipes import SCALES, Row, Scale, get_recipe, row_name
from .report import cross_check, make_report
from .training import Experiment

__all__ = ["Request", "attack_all", "device_of", "exact_arithmetic"]


def device_of(name: str) -> torch.device:
    """Return what ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"`` stands for on this machine.

    Raises
    ------
    ConfigError
        There is no such device.
    """
    return place(TrainConfig(device=name)).device


@dataclass(frozen=True)
class Request:
    """Which networks are asked for.

    Attributes
    ----------
    recipe : str
        See `edgeprune_benchmarks.robustness.recipes.get_recipe`.
    spec : str
        The images, as `edgeprune.open_source` takes them.
    size : int or None
        Side that images are resized to.
    scale : str
        A name of `edgeprune_benchmarks.robustness.recipes.SCALES`.
    seeds : int or None
        In place of the scale's.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    runs : Path
        Folder of everything that is kept.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    recipe: str
    spec: str
    size: int | None
    scale: str
    seeds: int | None
    device: str
    runs: Path
    minutes: float | None

    def experiment(self) -> Experiment:
        """Return what trains the networks.

        Raises
        ------
        ConfigError
            No such recipe.
        """
        data, _ = get_recipe(self.recipe)
        scale = SCALES[self.scale]
        scale = replace(scale, seeds=self.seeds or scale.seeds)
        folder = self.runs / f"{data}-{self.scale}"
        deadline = Deadline(self.minutes)
        return Experiment(self.spec, self.size, scale, self.device, folder, deadline, _Printer())

    def networks(self, scale: Scale) -> list[tuple[Row, int]]:
        """Return the rows of the recipe with their seeds, all rows with the first seed first."""
        _, rows_of = get_recipe(self.recipe)
        return [(row, seed) for seed in range(scale.seeds) for row in dict.fromkeys(rows_of(scale))]

    def facts(self) -> dict[str, Any]:
        """Return it for the results file, without paths of this machine."""
        return {
            "recipe": self.recipe,
            "spec": self.spec.partition(":")[0],
            "size": self.size,
            "scale": self.scale,
            "device": self.device,
        }


def attack_all(request: Request, output: Path, *, images: int | None, linf: bool, precision: str) -> None:
    """Train and attack every row and seed that has not been, and write ``robustness-RECIPE-SCALE.json``.

    Parameters
    ----------
    request : Request
    output : Path
        Folder of the JSON.
    images : int or None
        Test images attacked, in place of the protocol's.
    linf : bool
        Whether to attack in Linf alone.
    precision : str
        See `Evaluator`.

    Raises
    ------
    ConfigError, ArtifactError
        No such recipe, or settings that do not fit those of the folder of runs.
    """
    experiment = request.experiment()
    protocol = PROTOCOLS[experiment.scale.protocol]
    protocol = replace(protocol.in_linf() if linf else protocol, images=images or protocol.images)
    cells = request.networks(experiment.scale)
    say(_header(request, experiment, protocol, cells))
    bench = _Bench(experiment, protocol, precision)
    rows: list[dict[str, Any]] = []
    try:
        for row, seed in cells:
            rows.append(bench.measure(row, seed))
    except OutOfTimeError:
        say(f"{len(rows)} of {len(cells)} networks are done; run the same command again to go on")
    if not rows:
        return
    results = {
        "asked": {**request.facts(), "precision": precision},
        "scale": asdict(experiment.scale),
        "protocol": asdict(protocol) | {"slow_budgets": [str(budget) for budget in protocol.slow_budgets]},
        "source": Path(request.spec).name.removesuffix(".npz"),
        "train_images": len(experiment.check.good),
        "test_images": len(experiment.test),
        "planned": len(cells),
        "rows": rows,
    }
    say(save(output, f"robustness-{request.recipe}-{request.scale}", results))


def _header(
    request: Request, experiment: Experiment, protocol: Protocol, cells: list[tuple[Row, int]]
) -> str:
    scale, images, tested = experiment.scale, len(experiment.source), len(experiment.test)
    return (
        f"{request.recipe}, scale {request.scale}: {len(cells)} networks ({scale.seeds} seeds), "
        f"{scale.model}, {scale.iterations:,} steps of {scale.batch_size} on {images:,} images "
        f"({scale.iterations * scale.batch_size / images:.0f} epochs of all of them), scores of "
        f"{scale.score_epochs} epochs, masks of {scale.mask_epochs}; {min(protocol.images, tested):,} of "
        f"{tested:,} test images attacked, {protocol.slow_images:,} by the slow ones"
    )


class _Printer:
    """Prints events of training and of scoring."""

    def __init__(self) -> None:
        self._training = TerminalReport(1, "training")
        self._epochs = EpochLines()

    def __call__(self, event: dict[str, Any]) -> None:
        (self._epochs if "stage" in event else self._training)(event)


class _Bench:
    """Trains and attacks one network after the other."""

    def __init__(self, experiment: Experiment, protocol: Protocol, precision: str) -> None:
        self._experiment, self._protocol, self._precision = experiment, protocol, precision
        self._device = device_of(experiment.device)
        self._images, self._labels = experiment.tested(protocol.images)

    def measure(self, row: Row, seed: int) -> dict[str, Any]:
        """Return a network's metrics and report."""
        run_dir, metrics = self._experiment.trained(row, seed)
        victim = load_victim(run_dir, self._device)
        name = f"{row_name(row.label, row.pruned)}, {row.model or self._experiment.scale.model}, seed {seed}"
        with exact_arithmetic():
            attacked = self._attacked(self._evaluator(victim, run_dir, seed), victim, row, seed, name)
            accuracy = self._experiment.accuracy(victim, run_dir, self._device)
        return {
            "row": asdict(row),
            "key": self._experiment.without_defaults(row).key,
            "pruned": row.pruned,
            "model": row.model or self._experiment.scale.model,
            "seed": seed,
            "test_accuracy": accuracy,
            "train_accuracy": metrics["train_accuracy"],
            "train_seconds": metrics["seconds"],
            **attacked,
        }

    def _evaluator(self, victim: Victim, run_dir: Path, seed: int) -> Evaluator:
        return Evaluator(
            victim,
            self._images,
            self._labels,
            run_dir / "attacks",
            self._device,
            batch_size=self._protocol.batch_size,
            seed=seed,
            effort=self._protocol.effort,
            precision=self._precision,
            overdue=self._experiment.deadline.check,
            tell=lambda line: say(f"  {line}", err=True),
        )

    def _attacked(self, run: Evaluator, victim: Victim, row: Row, seed: int, name: str) -> dict[str, Any]:
        say = partial(_say, name)
        report = make_report(run, self._protocol, natural=row.adversarial is None, say=say)
        pruned = None
        if row.mask:
            pruned = attack_pruned(run, pruned_victim(victim, self._experiment.pack(row, seed)))
        judged = [*report["controls"], *(pruned["controls"] if pruned else [])]
        failed = [control["name"] for control in judged if not control["passed"]]
        say(f"NOT VALID: {', '.join(failed)}" if failed else "valid")
        # Once is enough: the same code attacks the others.
        checked = cross_check(run, self._protocol) if row.key == "natural" and not seed else None
        return {"report": report, "pruned_inference": pruned, "cross_check": checked}


def _say(name: str, line: str) -> None:
    say(f"{name}: {line}")


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Make verdicts of a GPU the same whenever they are asked for: no TF32, no choice of algorithms."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
