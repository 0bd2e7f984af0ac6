"""Power that fails: training killed at random moments and resumed, against the same run left alone."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edgeprune import BuildConfig, build_pack
from edgeprune_formats import EdgePruneError
from edgeprune_formats.files import file_sha256
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training.run_folder.checkpoint import has_checkpoint, read_state

from ..harness.images import lossless
from ..harness.markdown import Column, render
from ..harness.results import save

__all__ = ["Settings", "power_loss_table", "run"]

PATIENCE = 600.0
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True)
class Settings:
    """What is trained and how often it is killed.

    Attributes
    ----------
    model : str
        The network.
    kills : int
        By SIGKILL, so that nothing can be tidied up.
    epochs : int
        Long enough for all kills.
    batch_size : int
        Images in a step; each step leaves a checkpoint.
    seed : int
        Of the run and of the moments.
    longest : float
        Seconds, at most, between the first checkpoint that a process adds and its end.
    """

    model: str
    kills: int
    epochs: int
    batch_size: int = 128
    seed: int = 0
    longest: float = 1.0


def run(settings: Settings, data: Path, output: Path) -> None:
    """Kill, resume and compare; save what was found after each kill."""
    moments = random.Random(settings.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = BuildConfig(codec="quantized", quality=80.0, tile="full", device="cpu")
        build_pack(f"npz:{lossless(data)}", folder / "pack.h5", config)
        killed, whole = folder / "killed", folder / "whole"
        rows = []
        for number in range(settings.kills):
            row = _kill(_command(settings, folder, killed), killed, moments.uniform(0, settings.longest))
            rows.append({"kill": number + 1, **row})
            left = ", ".join(row["left"]) or "-"
            click.echo(
                f"kill {number + 1}: last complete checkpoint at step {row['step']}, half written: {left}"
            )
        for run_dir in (killed, whole):
            subprocess.run(_command(settings, folder, run_dir), check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        sums = {run_dir.name: file_sha256(run_dir / MODEL_FILE) for run_dir in (killed, whole)}
        steps = read_state(whole)["step"]
    same = sums["killed"] == sums["whole"]
    click.echo(f"after {settings.kills} kills the weights are {'the same' if same else 'NOT the same'}")
    found = {**asdict(settings), "steps": steps, "same": same, "sha256": sums, "rows": rows}
    click.echo(save(output, "power-loss", found))


def _command(settings: Settings, folder: Path, run_dir: Path) -> list[str]:
    words = ["train", str(folder / "pack.h5"), "--model", settings.model, "--epochs", str(settings.epochs)]
    words += ["--batch-size", str(settings.batch_size), "--seed", str(settings.seed), "--ema", "0.99"]
    words += ["--checkpoint-steps", "1", "--device", "cpu", "-o", str(run_dir), "--resume"]
    return [sys.executable, "-m", "edgeprune", *words]


def _kill(command: list[str], run_dir: Path, seconds: float) -> dict[str, Any]:
    """Start the run, kill it so long after the first checkpoint that it adds, and look at what is left.

    Raises
    ------
    EdgePruneError
        It ended by itself, or wrote no checkpoint.
    """
    before = _step(run_dir)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        patience = time.monotonic() + PATIENCE
        while _step(run_dir) == before and process.poll() is None and time.monotonic() < patience:
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
    if process.returncode != -signal.SIGKILL:
        raise EdgePruneError(f"the run ended before it was killed; give more --epochs ({process.returncode})")
    names = {path.name for path in run_dir.glob("checkpoint-*")}
    parts = {f"{path.name} (part)" for path in run_dir.glob(".checkpoint-*.partial/checkpoint-*")}
    whole = {name for name in names if name.replace(".safetensors", ".json") in names}
    return {"resumed_from": before, "step": _step(run_dir), "left": sorted(parts | names - whole)}


def _step(run_dir: Path) -> int:
    """Return the step of the last checkpoint that counts; 0 without one."""
    while has_checkpoint(run_dir):
        # Two checkpoints may follow between looking for the last and reading it, and take its place.
        with contextlib.suppress(TrainingError):
            return int(read_state(run_dir)["step"])
    return 0


def power_loss_table(results: dict[str, Any]) -> list[str]:
    """Return what each kill left."""
    intro = (
        f"{results['model']}, {results['steps']:,} steps of {results['batch_size']} images, each with a "
        f"checkpoint, killed {results['kills']} times: the weights are {'' if results['same'] else 'NOT '}"
        "those of the uninterrupted run, bit for bit."
    )
    columns = [
        Column("kill", "kill"),
        Column("resumed from step", "resumed_from", "{:,}"),
        Column("last complete checkpoint", "step", "{:,}"),
        Column("half written", lambda row: ", ".join(row["left"]) or None),
    ]
    return render(columns, results["rows"], intro)
