"""Fuzzing guided by coverage, with atheris; it sees Python code, and not what is compiled."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgeprune_formats import ConfigError

from .outcomes import WRONG, Outcome
from .random_engine import Tally

__all__ = ["fuzz"]

CHILD = f"{__package__}.atheris_child"
# What libFuzzer prints last of coverage.
FEATURES = re.compile(r"cov: (\d+)")


def fuzz(name: str, seed: int, *, seconds: float) -> Tally:
    """Let atheris try inputs on a target for some time.

    Where an input ends the process, or never ends, another process goes on with the corpus.

    Raises
    ------
    ConfigError
        atheris is not installed.
    """
    if importlib.util.find_spec("atheris") is None:
        raise ConfigError("the engine atheris needs atheris; pip install 'edgeprune[fuzz]'")
    tally, began, turn = Tally(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "corpus").mkdir()
        while (left := int(seconds - (time.monotonic() - began))) > 0:
            words = [name, str(folder), str(seed + turn), str(left)]
            command = [sys.executable, "-m", CHILD, *words]
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603
            _collect(folder, done.returncode, done.stderr.decode(errors="replace"), tally)
            turn += 1
    tally.seconds = time.monotonic() - began
    return tally


def _collect(folder: Path, status: int, said: str, tally: Tally) -> None:
    """Add what a process left: its counts, its findings, and the input that ended it."""
    record = folder / "outcomes.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    record.unlink(missing_ok=True)
    for line in lines:
        entry = json.loads(line)
        if "data" in entry:
            tally.count(bytes.fromhex(entry["data"]), Outcome(WRONG, entry["reason"]))
        else:
            tally.right += entry["right"]
            tally.refused += entry["refused"]
    for path in folder.glob("end-*"):
        tally.count(path.read_bytes(), Outcome(WRONG, f"the process ended: {path.name.split('-')[1]}"))
        path.unlink()
    covered = [int(number) for number in FEATURES.findall(said)]
    tally.features = max([tally.features or 0, *covered])
    if status and not lines:
        raise ConfigError(f"atheris ended with status {status}: {said[-400:]}")
