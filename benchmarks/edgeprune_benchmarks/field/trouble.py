"""Situations from the field, each brought about as a user would, and counted by what came of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from ..harness.markdown import Column, render
from ..harness.results import save
from .child import in_child, preload
from .place import Place, WrongError
from .situations import KINDS, SITUATIONS, Situation

__all__ = ["run", "trouble_table"]

OUTCOMES = ("right", "refused", "wrong")
LIMIT = 400.0


def run(output: Path, kinds: Sequence[str] = (), words: str = "") -> None:
    """Try the situations of some kinds, or of all, whose names hold some words; save what came of it."""
    chosen = [one for one in SITUATIONS if (not kinds or one.kind in kinds) and words in one.name]
    preload()
    with tempfile.TemporaryDirectory() as name:
        stock = Path(name) / "stock"
        stock.mkdir()
        rows = []
        for one in chosen:
            rows.append(_try(one, Path(name), stock))
            click.echo(f"{rows[-1]['outcome']:8} {one.kind}: {one.name} {rows[-1]['why'] or ''}".rstrip())
    for line in trouble_table({"rows": rows}):
        click.echo(line)
    click.echo(save(output, "trouble", {"rows": rows}))


def _try(one: Situation, folder: Path, stock: Path) -> dict[str, Any]:
    """Try a situation in a child, so that nothing of it stays here, whatever it loads or breaks."""
    with tempfile.TemporaryDirectory(dir=folder) as name:

        def check() -> None:
            os.write(1, (json.dumps(_outcome(one, Place(Path(name), stock))) + "\n").encode())

        done = in_child(check, Path(name), limit=LIMIT)
    try:
        found = json.loads(done.out.splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.err.strip().splitlines() or [f"exit status {done.code}"])[-1]
        found = {"outcome": "wrong", "why": f"it could not be tried: {last[:200]}"}
    return {"kind": one.kind, "name": one.name, **found}


def _outcome(one: Situation, place: Place) -> dict[str, str | None]:
    try:
        return {"outcome": one.check(place), "why": None}
    except WrongError as error:
        # Its folder is of this machine.
        return {"outcome": "wrong", "why": " ".join(str(error).replace(f"{place.folder}/", "").split())}


def trouble_table(results: dict[str, Any]) -> list[str]:
    """Return what came of the situations, by kind."""
    rows = [(kind, [row for row in results["rows"] if row["kind"] == kind]) for kind in KINDS]
    columns = [
        Column("kind", 0),
        Column("tried", lambda row: len(row[1])),
        *(Column(outcome, partial(_count, outcome)) for outcome in OUTCOMES),
    ]
    total = ("all", results["rows"])
    lines = render(columns, [*(row for row in rows if row[1]), total])
    wrong = [row for row in results["rows"] if row["outcome"] == "wrong"]
    return [*lines, *([""] if wrong else []), *(f"- Wrong: {_told(row)}" for row in wrong)]


def _count(outcome: str, kind: tuple[str, list[dict[str, Any]]]) -> int:
    return sum(row["outcome"] == outcome for row in kind[1])


def _told(row: dict[str, Any]) -> str:
    return f"{row['kind']}, {row['name']}: {row['why']}".replace("|", "\\|")
