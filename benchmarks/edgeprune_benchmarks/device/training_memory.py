"""Memory of training: peaks and curves of whole processes, from packs of any size and from arrays."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from edgeprune import BuildConfig, open_source
from edgeprune_formats import EdgePruneError, open_pack

from ..codec.packs import ImageSet
from ..harness.images import lossless
from ..harness.markdown import Column, render
from ..harness.results import save
from ..speed.memory import build_of_size

__all__ = ["memory_of", "run", "training_memory_table"]

# Large, and built quickly, as in time_memory.
PACK = BuildConfig(codec="quantized", quality=95.0, tile="full", rounding="deadzone", device="cpu")
BOUNDS = ("64MB", "300MB", None)
KINDS = ("uint8", "float32")
EVERY = 0.1
POINTS = 60
IMPORTS = "import torch, torchvision, edgeprune.training.setup, time; time.sleep(0.5)"


def run(data: Path, output: Path, *, megabytes: tuple[float, ...], model: str, batch: int) -> None:
    """Train an epoch from packs and from arrays of as many images, and save what memory that took."""
    images = ImageSet.of(open_source(f"npz:{lossless(data)}"), "cifar10")
    imported = memory_of([sys.executable, "-c", IMPORTS])["peak_mib"]
    rows: list[dict[str, Any]] = []
    for target in megabytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "pack.h5"
            build_of_size(images, path, PACK, target)
            with open_pack(path) as pack:
                count = len(pack)
            facts = {"pack_mb": path.stat().st_size / 1e6, "images": count}
            for bound in BOUNDS:
                memory = [] if bound is None else ["--memory", bound]
                words = [str(path), "--model", model, "--batch-size", str(batch), "--epochs", "1", *memory]
                command = [sys.executable, "-m", "edgeprune", "train", *words, "--device", "cpu"]
                row = {"from": "pack", "memory": bound, **facts}
                rows.append(_row(command, folder / f"run-{bound}", row))
            for kind in KINDS:
                words = [str(lossless(data)), str(count), kind, model, str(batch)]
                command = [sys.executable, "-m", "edgeprune_benchmarks.device.array_training", *words]
                rows.append(_row(command, folder / kind, {"from": kind, "memory": None, **facts}))
    results = {"model": model, "batch": batch, "imported_mib": imported, "rows": rows}
    click.echo(save(output, "training-memory", results))


def memory_of(command: list[str]) -> dict[str, Any]:
    """Run a process and return its peak in MiB, and a curve of (seconds, MiB in RAM) at most `POINTS` long.

    Raises
    ------
    EdgePruneError
        It failed.
    """
    curve: list[tuple[float, float]] = []
    peak = 0.0
    started = time.perf_counter()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **quiet) as process:  # noqa: S603
        while process.poll() is None:
            found = _status(process.pid)
            if found is not None:
                curve.append((time.perf_counter() - started, found["VmRSS"]))
                peak = max(peak, found["VmHWM"])
            time.sleep(EVERY)
        assert process.stderr is not None
        errors = process.stderr.read().strip().splitlines()
    if process.returncode:
        raise EdgePruneError(f"the measured process failed: {errors[-1] if errors else process.returncode}")
    step = -(-len(curve) // POINTS)
    # The greatest of each stretch, so that no peak is lost.
    kept = [max(curve[i : i + step], key=lambda point: point[1]) for i in range(0, len(curve), step)]
    return {"peak_mib": peak, "seconds": time.perf_counter() - started, "curve": kept}


def training_memory_table(results: dict[str, Any]) -> list[str]:
    """Return the peaks by size of the data and by how they are held."""
    intro = (
        f"{results['model']}, batches of {results['batch']}, one epoch; peak of the process in MiB, of which "
        f"{results['imported_mib']:,.0f} are there after importing torch and torchvision."
    )
    lines: dict[int, dict[str, Any]] = {}
    for row in results["rows"]:
        line = lines.setdefault(row["images"], {"images": row["images"], "pack": row["pack_mb"]})
        line[f"from {_name(row)}"] = row["peak_mib"]
    names = dict.fromkeys(_name(row) for row in results["rows"])
    columns = [Column("images", "images", "{:,}"), Column("pack, MB", "pack", "{:,.0f}")]
    columns += [Column(name, f"from {name}", "{:,.0f}") for name in names]
    return render(columns, lines.values(), intro)


def _name(row: dict[str, Any]) -> str:
    if row["from"] != "pack":
        return f"{row['from']} in memory"
    return f"pack, --memory {row['memory']}" if row["memory"] else "pack"


def _row(command: list[str], folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    last = ["-o", str(folder)] if facts["from"] == "pack" else [str(folder)]
    row = {**facts, **memory_of([*command, *last])}
    metrics = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    # What the process says of itself at its end, in case it peaked between two looks.
    row["peak_mib"] = max(row["peak_mib"], metrics["peak_memory_bytes"] / 2**20)
    row["images_per_second"] = metrics["images_per_second"]
    click.echo(f"{facts['images']:,} images, {_name(row)}: {row['peak_mib']:,.0f} MiB")
    return row


def _status(pid: int) -> dict[str, float] | None:
    """Return VmRSS and VmHWM in MiB; None once the process has no memory any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    wanted = [line.split() for line in lines if line.startswith(("VmRSS:", "VmHWM:"))]
    return {words[0][:-1]: int(words[1]) / 1024 for words in wanted} if len(wanted) == 2 else None
