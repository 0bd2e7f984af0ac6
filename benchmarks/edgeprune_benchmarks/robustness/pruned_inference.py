"""Pruning the frequencies of what a device is shown: what it seems to buy, what adaptive attacks leave."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.fse_files import load_fse_net
from edgeprune_formats import open_pack

from .budgets import CURVE
from .evaluation import Evaluator, classify
from .report import interval
from .verdicts import read_verdicts
from .victim import PrunedVictim, Victim

__all__ = ["attack_pruned", "pruned_victim"]

ATTACK = "PGD-100"
BUDGETS = CURVE[1:6]


def pruned_victim(victim: Victim, pack: Path) -> PrunedVictim:
    """Return a victim that prunes what it is shown as the images of its pack were pruned."""
    count = open_pack(pack).header.components
    learnt = pack.with_suffix(".fse-net.safetensors")
    if not learnt.exists():
        return PrunedVictim(victim, count, count)
    net, record = load_fse_net(learnt)
    return PrunedVictim(victim, record["k"], record["k_total"], net).to(victim.mean.device)


def attack_pruned(run: Evaluator, victim: PrunedVictim) -> list[dict[str, Any]]:
    """Compare an attack that does not know of the pruning with one that differentiates through it.

    Parameters
    ----------
    run : Evaluator
        Of the victim without pruning; its PGD-100 has been run.
    victim : PrunedVictim

    Returns
    -------
    list of dict
        For each budget of ``BUDGETS``: ``eps``; ``unaware``, the share of images still classified right when
        the perturbed images of the attack on the bare victim are pruned; ``adaptive``, the share under the
        same attack on the pruning victim; ``images``, and their intervals. First the shares without attack.
    """
    count = min(run.keep, len(run.images))
    images, labels = run.images[:count], run.labels[:count]
    aware = replace(run, victim=victim, images=images, labels=labels, folder=run.folder / "pruned")
    clean = int((classify(victim, images, run.batch_size, run.device) == labels).sum())
    rows = [_row(0.0, clean, clean, count)]
    for budget in BUDGETS:
        kept = read_verdicts(run.path(ATTACK, budget))
        moved, order = images.clone(), kept.kept[kept.kept < count]
        moved[order] = kept.adversarial[: len(order)]
        right = classify(victim, moved, run.batch_size, run.device) == labels
        # An image that pruning alone turns is not right, whatever the perturbation does.
        without = classify(victim, images, run.batch_size, run.device) == labels
        adaptive = aware.run(ATTACK, budget)
        rows.append(_row(budget.size, int((right & without).sum()), int(adaptive.robust.sum()), count))
    return rows


def _row(eps: float, unaware: int, adaptive: int, count: int) -> dict[str, Any]:
    return {
        "eps": eps,
        "images": count,
        "unaware": unaware / count,
        "unaware_interval": interval(unaware, count),
        "adaptive": adaptive / count,
        "adaptive_interval": interval(adaptive, count),
    }
