"""The command ``fuzz``: all targets in turn, findings as files, and the table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import ConfigError

from ..harness.markdown import Column, render
from ..harness.results import save
from . import atheris_engine, random_engine
from .outcomes import WRONG
from .random_engine import Tally
from .targets import NAMES, target_class

__all__ = ["fuzz_table", "replay", "run"]


def run(
    output: Path, findings: Path, *, minutes: float, targets: Sequence[str], seed: int, engine: str
) -> bool:
    """Fuzz each target for its share of the time, save the figures, and return whether nothing was wrong.

    Targets whose packages are not installed are left out, and named.
    """
    names = [name for name in targets or NAMES if _can_run(name, asked=bool(targets))]
    rows = []
    for name in names:
        seconds = 60 * minutes / len(names)
        fuzz = atheris_engine.fuzz if engine == "atheris" else random_engine.fuzz
        tally = fuzz(name, seed, seconds=seconds)
        rows.append(_row(name, tally))
        click.echo(_line(rows[-1]))
        for data, reason in tally.findings:
            path = _keep(findings, name, data)
            click.echo(f"  {reason}\n  edgeprune bench fuzz --replay {path} --target {name}")
    click.echo(save(output, "fuzz", {"engine": engine, "seed": seed, "minutes": minutes, "rows": rows}))
    return not any(row["wrong"] for row in rows)


def replay(path: Path, targets: Sequence[str]) -> bool:
    """Try one finding again; tell what becomes of it, and whether that is not wrong."""
    if len(targets) != 1:
        raise ConfigError("an input is tried with one target; name it with `targets`")
    outcome = random_engine.replay(targets[0], path.read_bytes())
    click.echo(f"{path}: {outcome.kind} {outcome.reason}".rstrip())
    return outcome.kind != WRONG


def _can_run(name: str, *, asked: bool) -> bool:
    try:
        target_class(name)
    except ModuleNotFoundError as error:
        if asked:
            raise
        click.echo(f"{name}: left out, because it needs {error.name}")
        return False
    return True


def _row(name: str, tally: Tally) -> dict[str, Any]:
    return {
        "target": name,
        "what": target_class(name).what,
        **{key: getattr(tally, key) for key in ("tried", "right", "refused", "wrong", "features")},
        "seconds": round(tally.seconds, 1),
    }


def _line(row: dict[str, Any]) -> str:
    covered = f", {row['features']:,} places of code" if row["features"] else ""
    rate = row["tried"] / row["seconds"] if row["seconds"] else 0
    counts = ", ".join(f"{row[kind]:,} {kind}" for kind in ("right", "refused", "wrong"))
    return f"{row['target']}: {row['tried']:,} tried, {counts}, {rate:,.0f}/s{covered}"


def _keep(findings: Path, name: str, data: bytes) -> Path:
    findings.mkdir(parents=True, exist_ok=True)
    path = findings / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def fuzz_table(results: dict[str, Any]) -> list[str]:
    """Return what became of the inputs of each target."""
    guided = "guided by coverage (atheris)" if results["engine"] == "atheris" else "changed at random"
    total = sum(row["tried"] for row in results["rows"])
    intro = f"{total:,} inputs in {results['minutes']:g} minutes, {guided}, seed {results['seed']}."
    columns = [
        Column("target", "target"),
        Column("what is changed", "what"),
        *(Column(kind, kind, "{:,}") for kind in ("tried", "right", "refused", "wrong")),
        Column("seconds", "seconds", "{:,.0f}"),
        Column("places of code reached", "features", "{:,}"),
    ]
    return render(columns, results["rows"], intro)
