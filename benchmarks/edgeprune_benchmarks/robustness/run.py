"""``edgeprune bench robustness``: train the rows of a recipe, attack them, and save what came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from edgeprune.progress import EpochLines
from edgeprune.training_reports import TerminalReport
from edgeprune_runtime._decode_torch import resolve_device

from .._record import save
from .evaluation import Evaluator, OutOfTimeError
from .protocol import PROTOCOLS
from .pruned_inference import attack_pruned, pruned_victim
from .recipes import SCALES, Row, get_recipe
from .report import make_report
from .training import Deadline, Workshop
from .victim import load_victim

__all__ = ["Plan", "run"]


@dataclass(frozen=True)
class Plan:
    """What is asked for.

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
    seeds, images : int or None
        In place of the scale's.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str
        Of attacks, see `Evaluator`.
    minutes : float or None
        Stop after so long; the same command goes on.
    """

    recipe: str
    spec: str
    size: int | None
    scale: str
    seeds: int | None
    images: int | None
    device: str
    precision: str
    minutes: float | None


def run(plan: Plan, output: Path, runs: Path) -> None:
    """Train and attack every row and seed that has not been, and write ``robustness-RECIPE-SCALE.json``.

    Raises
    ------
    ConfigError
        No such recipe, or settings that do not fit those of the folder of runs.
    """
    data, rows_of = get_recipe(plan.recipe)
    scale = SCALES[plan.scale]
    scale = replace(scale, seeds=plan.seeds or scale.seeds)
    protocol = PROTOCOLS[scale.protocol]
    protocol = replace(protocol, images=plan.images or protocol.images)
    deadline = Deadline(plan.minutes)
    shop = Workshop(
        plan.spec, plan.size, scale, plan.device, runs / f"{data}-{plan.scale}", deadline, _Report()
    )
    bench = _Bench(shop, protocol, plan)
    cells = [(row, seed) for seed in range(scale.seeds) for row in dict.fromkeys(rows_of(scale))]
    click.echo(_header(plan, shop, protocol, cells))
    rows = []
    for row, seed in cells:
        try:
            rows.append(bench.measure(row, seed))
        except OutOfTimeError:
            click.echo(f"{len(rows)} of {len(cells)} networks are done; run the same command to go on")
            return
    results = {
        "plan": {**asdict(plan), "spec": plan.spec.partition(":")[0], "minutes": None},
        "scale": asdict(scale),
        "protocol": asdict(protocol) | {"slow_budgets": [str(b) for b in protocol.slow_budgets]},
        "source": Path(plan.spec).name.removesuffix(".npz"),
        "train_images": len(shop.check.good),
        "test_images": len(shop.test),
        "rows": rows,
    }
    click.echo(save(output, f"robustness-{plan.recipe}-{plan.scale}", results))


def _header(plan: Plan, shop: Workshop, protocol: Any, cells: list[tuple[Row, int]]) -> str:
    scale = shop.scale
    return (
        f"{plan.recipe}, scale {plan.scale}: {len(cells)} networks ({scale.seeds} seeds), {scale.model}, "
        f"{scale.iterations:,} steps of {scale.batch_size} on {len(shop.source):,} images; "
        f"{min(protocol.images, len(shop.test)):,} of {len(shop.test):,} test images attacked, "
        f"{protocol.slow_images:,} by the slow ones"
    )


class _Report:
    """Gives events of training and of scoring to who prints them."""

    def __init__(self) -> None:
        self._training = TerminalReport(1, "training")
        self._epochs = EpochLines()

    def __call__(self, event: dict[str, Any]) -> None:
        (self._epochs if "stage" in event else self._training)(event)


class _Bench:
    """Trains and attacks one network after the other."""

    def __init__(self, shop: Workshop, protocol: Any, plan: Plan) -> None:
        self._shop, self._protocol, self._plan = shop, protocol, plan
        self._device = resolve_device(plan.device)
        if self._device.type == "cuda":
            # Verdicts are to be the same whenever they are asked for.
            torch.backends.cudnn.deterministic = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self._images, self._labels = shop.tested(protocol.images)

    def measure(self, row: Row, seed: int) -> dict[str, Any]:
        """Return a network's metrics and report."""
        name = f"{row.label} {row.pruned:.0%}, {row.model or self._shop.scale.model}, seed {seed}"
        run_dir, metrics = self._shop.trained(row, seed)
        victim = load_victim(run_dir, self._device)
        evaluator = Evaluator(
            victim,
            self._images,
            self._labels,
            run_dir / "attacks",
            self._device,
            batch_size=self._protocol.batch_size,
            seed=seed,
            effort=self._protocol.effort,
            precision=self._plan.precision,
            overdue=self._shop.deadline.check,
            tell=lambda line: click.echo(f"  {line}", err=True),
        )
        report = make_report(
            evaluator, self._protocol, natural=True, say=lambda line: click.echo(f"{name}: {line}")
        )
        failed = [control["name"] for control in report["controls"] if not control["passed"]]
        click.echo(f"{name}: {'valid' if report['valid'] else 'NOT VALID: ' + ', '.join(failed)}")
        pruned = None
        if row.mask:
            pruned = attack_pruned(evaluator, pruned_victim(victim, self._shop.pack(row, seed)))
        return {
            "row": asdict(row),
            "key": row.key,
            "pruned": row.pruned,
            "model": row.model or self._shop.scale.model,
            "seed": seed,
            "test_accuracy": self._shop.accuracy(victim, run_dir, self._device),
            "train_accuracy": metrics["train_accuracy"],
            "train_seconds": metrics["seconds"],
            "report": report,
            "pruned_inference": pruned,
        }
