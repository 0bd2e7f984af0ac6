"""Reading photographs epoch after epoch, as scoring does with images that do not fit in memory."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..harness.images import write_crops
from ..harness.peak import peak_mib
from ..harness.process import run_python
from ..harness.results import save, spread

__all__ = ["measure", "run"]

SIZES = (64, 96, 224)
EPOCHS, BATCH = 2, 256


def run(data: Path, output: Path, *, rounds: int, count: int | None) -> None:
    """Read at each size, with and without the cache, by one thread and by all, and save the rates."""
    from edgeprune_runtime.system.machine import cpu_quota

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = write_crops(data, Path(name) / "photographs", count or 2000)
        for size in SIZES:
            for jobs in dict.fromkeys((1, cpu_quota())):
                row = _row(folder, size, jobs, max(1, rounds // 3))
                click.echo(f"{size}x{size}, {jobs} threads: {row['decoded']} {row['cached']}")
                rows.append(row)
    click.echo(save(output, "time-reading", {"images": count or 2000, "batch": BATCH, "rows": rows}))


def _row(folder: Path, size: int, jobs: int, repeats: int) -> dict[str, Any]:
    code = "import sys; from edgeprune_benchmarks.speed.reading import measure; measure(*sys.argv[1:])"
    found: dict[str, list[dict[str, Any]]] = {"decoded": [], "cached": []}
    for _ in range(repeats):
        for way, runs in found.items():
            words = str(folder), str(size), str(jobs), way
            # One thread of torch's own: only reading counts.
            runs.append(run_python("time-reading", "-c", code, *words, OMP_NUM_THREADS="1"))
    return {"size": size, "jobs": jobs, **{way: _summary(runs) for way, runs in found.items()}}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    epochs = [spread([one["images_per_second"][epoch] for one in runs]) for epoch in range(EPOCHS)]
    peaks = {name: max(one[name] for one in runs) for name in ("imported_mib", "peak_mib", "disk_bytes")}
    return {"images_per_second": epochs, **peaks}


def measure(folder: str, size: str, jobs: str, way: str) -> None:
    """Read a folder for some epochs, and print images/s of each as JSON; files are in the page cache."""
    import torch

    from edgeprune import open_source
    from edgeprune.work.image_cache import cached
    from edgeprune.work.image_store import ImageStore
    from edgeprune.work.temporary import images_folder

    source, output = open_source(f"imagefolder:{folder}", size=int(size)), Path(f"{folder}.h5")
    for name in source.class_names:
        for file in (Path(folder) / name).iterdir():
            file.read_bytes()
    imported, rates = peak_mib(), []
    with cached(source, output, wanted=way == "cached") as images:
        store = ImageStore(images, np.arange(len(source)), torch.device("cpu"), budget=0, jobs=int(jobs))
        for epoch in range(EPOCHS):
            started = time.perf_counter()
            for _ in store.batches(_batches(len(source), epoch, int(size))):
                pass
            rates.append(len(source) / (time.perf_counter() - started))
        disk = sum(file.stat().st_blocks * 512 for file in images_folder(output).glob("*"))
    found = {"imported_mib": imported, "peak_mib": peak_mib(), "disk_bytes": disk}
    print(json.dumps({"images_per_second": rates, **found}))


def _batches(count: int, epoch: int, size: int) -> Any:
    """Yield the images of each batch of an epoch, and their crops, in the way of a scoring run."""
    from edgeprune_runtime.decode.augmentation import draw

    order = np.random.default_rng([0, epoch]).permutation(count)
    for number, rows in enumerate(np.array_split(order, -(-count // BATCH))):
        place: dict[str, Any] = {"epoch": epoch, "batch": number, "count": len(rows)}
        yield rows, draw("crop+flip", seed=0, height=size, width=size, **place)
