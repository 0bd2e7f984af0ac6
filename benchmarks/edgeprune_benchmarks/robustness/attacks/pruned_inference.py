"""Pruning the frequencies of what a device is shown: what it seems to buy, what adaptive attacks leave."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeprune.masks.fse_file import load_fse_net
from edgeprune_formats import open_pack

from ..controls import Evidence, Key, judge
from ..evaluation import Evaluator
from ..report import interval
from ..verdicts import Verdicts
from .budgets import CURVE, Budget
from .victim import PrunedVictim, Victim

__all__ = ["attack_pruned", "pruned_victim"]

UNAWARE, ADAPTIVE = "PGD-100 unaware", "PGD-100"
BUDGETS = CURVE[1:6]
JUDGED = ("bound", "range", "budget reached", "rescored", "evaluation mode")


def pruned_victim(victim: Victim, pack: Path) -> PrunedVictim:
    """Return a victim that prunes what it is shown as the images of its pack were pruned.

    Raises
    ------
    PackFormatError, ArtifactError
        The pack, or the FSE-Net beside it, is damaged.
    """
    count = open_pack(pack).header.components
    learned = pack.with_suffix(".fse-net.safetensors")
    if not learned.exists():
        return PrunedVictim(victim, count, count)
    net, facts = load_fse_net(learned)
    return PrunedVictim(victim, facts["k"], facts["k_total"], net).to(victim.mean.device)


def attack_pruned(run: Evaluator, victim: PrunedVictim) -> dict[str, Any]:
    """Compare an attack that does not know of the pruning with one that differentiates through it.

    Parameters
    ----------
    run : Evaluator
        Of the victim without pruning; its images up to ``run.keep`` are attacked.
    victim : PrunedVictim

    Returns
    -------
    dict
        ``rows``, for each budget of ``BUDGETS``: ``eps``, ``images``, and with their intervals ``unaware``,
        the share of images still classified right after PGD-100 on the bare network, and ``adaptive``, after
        the same through the pruning; the first row is without attack. ``controls`` and ``valid`` as in
        `edgeprune_benchmarks.robustness.report.make_report`, of those controls that apply.

    Raises
    ------
    ArtifactError
        A file of the folder is damaged, or made with other settings or weights.
    OutOfTimeError
        The time was over before the end.
    """
    count = min(run.keep, len(run.images))
    aware = replace(
        run,
        victim=victim,
        images=run.images[:count],
        labels=run.labels[:count],
        folder=run.folder / "pruned",
        precision="float32",
    )
    cells: dict[Key, Verdicts] = {
        (name, budget): aware.run(name, budget) for budget in BUDGETS for name in (UNAWARE, ADAPTIVE)
    }
    clean = cells[ADAPTIVE, BUDGETS[0]].facts["stages"]["clean"]
    resist = {key: int(verdicts.robust.sum()) for key, verdicts in cells.items()}
    left = [_row(b, resist[UNAWARE, b], resist[ADAPTIVE, b], count) for b in BUDGETS]
    controls = judge(Evidence(aware, aware, cells, {}, natural=True), JUDGED)
    return {
        "rows": [_row(None, clean, clean, count), *left],
        "controls": [asdict(control) for control in controls],
        "valid": all(control.passed for control in controls),
    }


def _row(budget: Budget | None, unaware: int, adaptive: int, count: int) -> dict[str, Any]:
    return {
        "eps": budget.size if budget else 0.0,
        "images": count,
        "unaware": unaware / count,
        "unaware_interval": interval(unaware, count),
        "adaptive": adaptive / count,
        "adaptive_interval": interval(adaptive, count),
    }
