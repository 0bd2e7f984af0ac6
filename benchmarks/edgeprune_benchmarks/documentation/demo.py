"""What the demo prints on this machine."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from edgeprune_formats import EdgePruneError

from ..harness.results import save

__all__ = ["run"]


def run(output: Path, picture: Path) -> None:
    """Run ``edgeprune demo`` in an empty folder, save its output, and copy its preview to `picture`.

    Raises
    ------
    EdgePruneError
        The demo failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edgeprune", "demo"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise EdgePruneError(f"the demo failed: {done.stderr.strip().splitlines()[-1]}")
        picture.write_bytes((Path(folder) / "demo" / "preview.png").read_bytes())
    click.echo(done.stdout)
    click.echo(save(output, "demo", {"output": done.stdout}))
