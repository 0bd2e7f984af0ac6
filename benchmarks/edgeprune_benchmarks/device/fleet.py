"""FedAvg over simulated devices against training in one place: examples/flower on CIFAR-10."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import ConfigError, EdgePruneError

from ..harness.images import lossless
from ..harness.markdown import Column, render
from ..harness.results import save

__all__ = ["fleet_table", "run"]

EXAMPLE = Path("examples", "flower", "simulate.py")


def run(data: Path, output: Path, *, python: str, rounds: int, epochs: int, devices: int) -> None:
    """Run the example by a Python that has Flower, and save what it prints."""
    if not EXAMPLE.exists():
        raise ConfigError(f"{EXAMPLE}: no such file; run this in a checkout")
    with tempfile.TemporaryDirectory() as folder:
        words = [python, str(EXAMPLE.resolve()), f"npz:{lossless(data).resolve()}", "--work", folder]
        for name, number in (("rounds", rounds), ("epochs", epochs), ("devices", devices)):
            words += [f"--{name}", str(number)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode:
        raise EdgePruneError(
            f"{EXAMPLE}: exit status {done.returncode}; --python names a Python with edgeprune[torch] and "
            f"what {EXAMPLE.with_name('requirements.txt')} lists"
        )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    click.echo(save(output, "fleet", found))


def fleet_table(found: dict[str, Any]) -> list[str]:
    """Return accuracy of the fleet, of one place and of each device alone."""
    settings, versions, results = found["settings"], found["versions"], dict(found["results"])
    central = results.pop("central")
    intro = (
        f"{settings['model']} on {settings['train_images']:,} images of CIFAR-10 at quality "
        f"{settings['quality']:g}, {settings['devices']} devices, {settings['rounds']} rounds of "
        f"{settings['epochs']} epochs; flwr {versions['flwr']}, ray {versions['ray']}; test accuracy, %."
    )
    columns = [
        Column("trained", 0),
        Column("global model", lambda line: _percent(line[1]["accuracy"])),
        Column("each device alone", lambda line: ", ".join(map(_percent, line[1].get("alone", [])))),
        Column("s", lambda line: line[1]["seconds"], "{:.0f}"),
    ]
    split = [(f"FedAvg, split by {by}", row) for by, row in results.items()]
    return render(columns, [("one place, all images", central), *split], intro)


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f}"
