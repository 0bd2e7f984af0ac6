"""One report on one network: every attack with its interval and cost, and whether it may be believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from edgeprune_runtime.output_files import write_text

from .attacks.auto_attack import direct_call
from .attacks.budgets import Budget
from .attacks.table import get_attack, label
from .controls import Evidence, Key, half_budget, judge
from .evaluation import Evaluator
from .protocol import L2, Protocol
from .verdicts import Verdicts

__all__ = ["cross_check", "interval", "make_report"]

Say = Callable[[str], None]


def make_report(run: Evaluator, protocol: Protocol, *, natural: bool, say: Say) -> dict[str, Any]:
    """Run every attack of a protocol that has not been run, judge, and return the report.

    Parameters
    ----------
    run : Evaluator
        With at least ``protocol.images`` images. After each attack the report so far is in
        ``report.json`` of its folder, not valid until all are run.
    protocol : Protocol
    natural : bool
        Whether the network was trained without perturbations.
    say : callable
        Is given a line for each attack that was run.

    Returns
    -------
    dict
        ``images``, ``clean``, ``rows`` (one for each attack and budget), ``controls``, ``valid``, and what
        they depended on.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    run = replace(run, images=run.images[: protocol.images], labels=run.labels[: protocol.images])
    few = _first(run, protocol.slow_images)
    evidence = Evidence(run, few, {}, {}, natural)
    for name, budget in protocol.cells():
        _add(evidence, run, evidence.cells, (name, budget), say)
    for budget in protocol.slow_budgets:
        _add(evidence, few, evidence.slow, ("AutoAttack Linf", budget), say)
    half = half_budget(evidence.cells)
    for name in ("APGD", "Square"):
        _add(evidence, few, evidence.slow, (name, half), say)
    controls = judge(evidence)
    report = _describe(evidence) | {
        "controls": [asdict(control) for control in controls],
        "valid": all(control.passed for control in controls),
    }
    _save(run, report)
    return report


def cross_check(run: Evaluator, protocol: Protocol) -> dict[str, Any] | None:
    """Compare the first of the slow AutoAttacks, which has been run, with a direct call of the library.

    Parameters
    ----------
    run : Evaluator
        That `make_report` was called with.
    protocol : Protocol

    Returns
    -------
    dict or None
        ``eps``, ``images``, ``ours`` and ``direct`` (images that resist), ``differ`` (verdicts). Kept in the
        folder of the attacks. None where the protocol has no slow AutoAttack.

    Raises
    ------
    OutOfTimeError
        The time was over before.
    """
    if not protocol.slow_budgets:
        return None
    few, budget = _first(run, protocol.slow_images), protocol.slow_budgets[0]
    ours = few.run("AutoAttack Linf", budget)
    path = run.folder / "cross-check.json"
    kept = ("weights", "seed", "batch_size", "versions")
    key = {name: ours.facts[name] for name in kept} | {"eps": budget.size, "images": len(few.images)}
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        if found | key == found:
            return found
    run.overdue()
    resists = direct_call(
        run.victim, few.images, few.labels, budget.size, run.seed, run.batch_size, run.device
    )
    counts = {"ours": int(ours.robust.sum()), "direct": int(resists.sum())}
    found = {**key, **counts, "differ": int((resists != ours.robust).sum())}
    write_text(path, json.dumps(found) + "\n")
    return found


def _first(run: Evaluator, count: int) -> Evaluator:
    """Return the same attacks on the first images alone."""
    return replace(
        run, images=run.images[:count], labels=run.labels[:count], folder=run.folder / f"first-{count}"
    )


def _add(evidence: Evidence, run: Evaluator, cells: Any, key: Key, say: Say) -> None:
    fresh = not run.path(*key).exists()
    cells[key] = run.run(*key)
    if fresh:
        row = _row(key, cells[key])
        low, high = row["interval"]
        say(
            f"{label(*key)}: {row['accuracy']:.1%} [{low:.1%}, {high:.1%}] of {row['images']} resist, "
            f"{row['seconds']:.1f} s"
        )
        _save(evidence.run, _describe(evidence) | {"controls": [], "valid": False})


def _describe(evidence: Evidence) -> dict[str, Any]:
    run = evidence.run
    first = next(iter(evidence.cells.values()))
    count, clean = len(run.images), first.facts["stages"]["clean"]
    rows = [_row(key, verdicts) for key, verdicts in evidence.every()]
    return {
        "images": count,
        "clean": clean / count,
        "clean_interval": interval(clean, count),
        "natural": evidence.natural,
        "device": str(run.device),
        **{name: first.facts[name] for name in ("weights", "seed", "batch_size", "versions")},
        "effort": asdict(run.effort),
        "images_sha256": first.facts["images"],
        "precision": run.precision,
        "seconds": sum(row["seconds"] for row in rows),
        "rows": rows,
    }


def _row(key: Key, verdicts: Verdicts) -> dict[str, Any]:
    name, budget = key
    count, resist = len(verdicts.robust), int(verdicts.robust.sum())
    row: dict[str, Any] = {
        "attack": name,
        "norm": budget.norm,
        "eps": budget.size if math.isfinite(budget.size) else None,
        "images": count,
        "accuracy": resist / count,
        "interval": interval(resist, count),
        "cites": get_attack(name).cites,
        **{what: verdicts.facts[what] for what in ("seconds", "forwards", "flags", "stages")},
    }
    if not math.isfinite(budget.size):
        row |= _of_nearest(verdicts, L2)
    return row


def _of_nearest(verdicts: Verdicts, budget: Budget) -> dict[str, Any]:
    """Return what an attack without a budget says: how near it came, and what resists within a budget."""
    broken = (verdicts.sizes > 0) & ~verdicts.robust
    within = int((verdicts.robust | (verdicts.sizes > budget.size)).sum())
    return {
        "median_size": float(verdicts.sizes[broken].median()) if bool(broken.any()) else None,
        "within": {
            "eps": budget.size,
            "accuracy": within / len(verdicts.robust),
            "interval": interval(within, len(verdicts.robust)),
        },
    }


def interval(successes: int, trials: int) -> list[float]:
    """Return Wilson's 95% interval of a share, its lower and upper end on [0, 1]."""
    return list(_wilson(successes, trials))


@cache
def _wilson(successes: int, trials: int) -> tuple[float, float]:
    # A report is written after each attack, with the same shares over and over, and a test is slow to make.
    # To import it takes a second, which most commands need not wait.
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def _save(run: Evaluator, report: dict[str, Any]) -> None:
    write_text(run.folder / "report.json", json.dumps(report, indent=1) + "\n")
