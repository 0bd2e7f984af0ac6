"""Disks that fail and processes that die while something is written: what then has the final name."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import ConfigError, EdgePruneError

from ..harness.markdown import Column, render
from ..harness.results import save
from .child import Done, in_child, preload
from .operations import OPERATIONS, Operation, command
from .shim import Writes, counted, install, limit_size

__all__ = ["FAULTS", "faults_table", "run"]

LIMIT = 300.0
TRIAL = "trial"
TEMPORARY = (".tmp", ".partial")
# A disk that is full for so many writes has room again where a command waits for it.
ROOM_AFTER = 2
STATES = ("old", "new", "mixed", "wrong")
FAULTS = ("disk full", "I/O error", "short writes", "size limit", "SIGKILL", "SIGTERM")
ENDS = {"SIGKILL": (-signal.SIGKILL, 0), "SIGTERM": (128 + signal.SIGTERM, 130, -signal.SIGTERM, 0)}


@dataclass(frozen=True)
class Clean:
    """What an operation does where nothing fails.

    Attributes
    ----------
    before : Path
        The folder before it, which is copied for each trial.
    old, new : dict of str to str
        Its outputs before and after, see `Operation.state`.
    seconds : float
    writes : int
        That the shim can let fail.
    size : int
        Of the largest file.
    hidden : frozenset of str
        Files and folders that it leaves beside the outputs, such as the lock of a run.
    """

    before: Path
    old: dict[str, str]
    new: dict[str, str]
    seconds: float
    writes: int
    size: int
    hidden: frozenset[str]


def run(
    output: Path, moments: int, seed: int = 0, operations: Sequence[str] = (), kinds: Sequence[str] = ()
) -> None:
    """Let operations meet faults at random moments; save what had the final name, and what was swept."""
    chosen = _chosen("operation", operations, {one.name: one for one in OPERATIONS})
    faults = _chosen("fault", kinds, {name: name for name in FAULTS})
    preload()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        stock = Path(name) / "stock"
        stock.mkdir()
        for operation in chosen:
            clean = _clean(operation, stock, Path(name) / operation.name)
            for fault in faults:
                rows.append(_row(operation, fault, clean, moments, random.Random(f"{seed} {fault}")))
                click.echo(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
    click.echo(save(output, "faults", {"moments": moments, "seed": seed, "rows": rows}))


def _chosen(option: str, names: Sequence[str], known: dict[str, Any]) -> list[Any]:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"unknown {option} {unknown[0]}; choose from {', '.join(known)}")
    return [known[name] for name in names or known]


def _clean(operation: Operation, stock: Path, folder: Path) -> Clean:
    """Run an operation twice without a fault, once to count its writes and once to time it."""
    before = operation.prepare(stock, folder)
    counts = folder.with_name(f"{folder.name}.writes")
    new, work = [], command(operation.words)
    for run_it in (lambda: counted(work, counts), work):
        trial = shutil.copytree(before, folder.with_name(TRIAL))
        done = in_child(run_it, trial, limit=LIMIT)
        if done.code != 0:
            raise EdgePruneError(f"{operation.name} fails where nothing else does: {done.err.strip()[-300:]}")
        new.append(operation.state(trial))
        size, hidden = max(path.stat().st_size for path in trial.rglob("*")), _hidden(trial)
        shutil.rmtree(trial)
    if new[0] != new[1] or not new[0]:
        raise EdgePruneError(f"{operation.name} gives other bytes each time, so nothing can be compared")
    old = operation.state(before)
    return Clean(before, old, new[0], done.seconds, int(counts.read_text()), size, hidden)


def _hidden(folder: Path) -> frozenset[str]:
    """Return what is there beside inputs and outputs: hidden names, and those of temporary files."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return frozenset(str(path) for path in found if path.name[0] == "." or path.suffix in TEMPORARY)


def _row(
    operation: Operation, fault: str, clean: Clean, moments: int, source: random.Random
) -> dict[str, Any]:
    row: dict[str, Any] = {"operation": operation.name, "fault": fault, "tried": 0}
    row |= dict.fromkeys((*STATES, "swept"), 0) | {"why": []}
    for _ in range(moments):
        # Always of one name, which provenance may hold.
        folder = shutil.copytree(clean.before, clean.before.with_name(TRIAL))
        done = _suffer(operation, fault, clean, folder, source.random())
        state, why = _judged(operation, fault, clean, folder, done)
        left = _left(operation, clean, folder)
        shutil.rmtree(folder)
        row["tried"] += 1
        row[state] += 1
        row["swept"] += left is None
        row["why"] += [one for one in (why, left) if one is not None]
    return row


def _suffer(operation: Operation, fault: str, clean: Clean, folder: Path, moment: float) -> Done:
    """Run an operation with a fault at a moment, from 0, its begin, to 1, its end."""
    work = command(operation.words)
    if fault in ENDS:
        number = signal.Signals[fault]
        killer = partial(_kill_after, number, 1.05 * moment * clean.seconds)
        return in_child(work, folder, limit=LIMIT, watch=killer)
    at = 1 + int(moment * clean.writes)
    prepare: dict[str, Callable[[], None]] = {
        "disk full": lambda: install(Writes(at, errno.ENOSPC, ROOM_AFTER if operation.waits else None)),
        "I/O error": lambda: install(Writes(at, errno.EIO)),
        "short writes": lambda: install(Writes(short=True)),
        "size limit": lambda: limit_size(int(moment * clean.size)),
    }

    def suffer() -> None:
        prepare[fault]()
        work()

    return in_child(suffer, folder, limit=LIMIT)


def _kill_after(number: int, seconds: float, child: int) -> None:
    time.sleep(seconds)
    # It is waited for later, so that its number is nobody else's, even if it has ended by itself.
    os.kill(child, number)


def _judged(
    operation: Operation, fault: str, clean: Clean, folder: Path, done: Done
) -> tuple[str, str | None]:
    """Return which of `STATES` the outputs are in, and for wrong ones why."""
    if done.code is None:
        return "wrong", f"did not end within {done.seconds:.0f} s"
    last = (done.err.strip().splitlines() or [""])[-1][:200]
    if done.code not in ENDS.get(fault, (0, 1, 2)) or "Traceback (most" in done.err:
        return "wrong", f"exit status {done.code}: {last}"
    found = operation.state(folder)
    kinds = {_kind(found.get(name), clean.old.get(name), clean.new.get(name)) for name in clean.new}
    if "wrong" in kinds or found.keys() - clean.new.keys() - clean.old.keys():
        return "wrong", f"neither old nor new: {', '.join(found)} after exit status {done.code}: {last}"
    if done.code == 0 and kinds - {"new", "same"}:
        return "wrong", f"exit status 0, and not written: {last}"
    if {"old", "new"} <= kinds:
        told = in_child(command(["merge", *found, "-o", "all.h5", "-q"]), folder, limit=LIMIT).code
        return ("mixed", None) if told in (1, 2) else ("wrong", "merge takes parts of two splits for one")
    return ("new" if "new" in kinds else "old"), None


def _kind(found: str | None, old: str | None, new: str | None) -> str:
    if old == new == found:
        return "same"
    return "old" if found == old else "new" if found == new else "wrong"


def _left(operation: Operation, clean: Clean, folder: Path) -> str | None:
    """Run the operation again, without a fault, and return what is then not as it is to be."""
    done = in_child(command([*operation.words, *operation.again]), folder, limit=LIMIT)
    if done.code != 0:
        return f"the next run fails: {done.err.strip()[-200:]}"
    if operation.state(folder) != clean.new:
        return "the next run gives something else"
    left = _hidden(folder) - clean.hidden
    return f"the next run leaves {', '.join(sorted(left))}" if left else None


def faults_table(results: dict[str, Any]) -> list[str]:
    """Return what had the final name after each kind of fault."""
    intro = (
        f"{results['moments']} random moments for each fault, seed {results['seed']}. Old, new: the output "
        "is the complete older one, or the complete new one. Mixed: only some parts of a split are new, and "
        "`edgeprune merge` refuses them. Swept: the next run succeeds, and nothing of the failed one is left."
    )
    columns = [
        Column("command", "operation"),
        Column("fault", "fault"),
        *(Column(name, name) for name in ("tried", *STATES, "swept")),
    ]
    lines = render(columns, results["rows"], intro)
    why = [f"- {row['operation']}, {row['fault']}: {one}" for row in results["rows"] for one in row["why"]]
    return [*lines, *([""] if why else []), *why]
