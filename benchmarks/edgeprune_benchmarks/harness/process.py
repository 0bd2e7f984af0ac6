"""Measuring in a process of its own, whose memory, threads and imports are nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from edgeprune_formats import EdgePruneError

__all__ = ["printed_by", "run_python"]


def run_python(name: str, *words: str, **variables: str) -> Any:
    """Run this Python with some arguments, and return the JSON of the last line that it printed.

    Parameters
    ----------
    name : str
        What is measured, for the message of an error.
    words : str
        ``-c`` or ``-m`` and what follows it.
    variables : str
        Of the environment, beside those of this process.

    Raises
    ------
    EdgePruneError
        The process failed; its last line of errors.
    """
    done = subprocess.run(  # noqa: S603
        [sys.executable, *words], env={**os.environ, **variables}, capture_output=True, text=True
    )
    return printed_by(name, done.returncode, done.stdout, done.stderr)


def printed_by(name: str, status: int, out: str, errors: str) -> Any:
    """Return the JSON of the last line that a process has printed; see `run_python`."""
    if status:
        lines = errors.strip().splitlines() or [f"exit status {status}"]
        raise EdgePruneError(f"{name}: the measuring process failed: {lines[-1]}")
    return json.loads(out.strip().splitlines()[-1])
