"""Measuring in a process of its own, whose memory, threads and imports are nobody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from edgeprune_formats import EdgePruneError

__all__ = ["run_python"]


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
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise EdgePruneError(f"{name}: the measuring process failed: {lines[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
