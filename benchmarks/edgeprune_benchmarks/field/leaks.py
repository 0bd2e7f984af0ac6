"""Descriptors and memory of a process that opens packs, and goes through them, again and again."""

from __future__ import annotations

import gc
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import EdgePruneError, PackFormatError, open_pack

from ..harness.markdown import Column, render
from ..harness.results import save
from .child import in_child, preload
from .stock import take

__all__ = ["leaks_table", "measure", "run"]

WARM_UP = 0.2
# Seconds after which what is still open counts as left open.
SETTLING = 5.0
BATCH = 8


def run(output: Path, opens: int, epochs: int) -> None:
    """Measure each kind of use in a process of its own, and save what it left open and what it took."""
    preload()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(Path(name), opens, epochs)
    for line in leaks_table({"rows": rows}):
        click.echo(line)
    click.echo(save(output, "leaks", {"rows": rows}))


def measure(folder: Path, opens: int, epochs: int) -> list[dict[str, Any]]:
    """Return for each kind of use what a process has open, and takes, before and after it."""
    for name in ("pack.h5", "damaged.h5"):
        take(folder, name)
    rows = []
    for name, (count, make) in _uses(folder, opens, epochs).items():
        done = in_child(partial(_tell, count, make), folder, limit=3600)
        if done.code != 0:
            raise EdgePruneError(f"{name}: {done.err.strip()[-300:]}")
        rows.append({"use": name, "times": count, **json.loads(done.out.splitlines()[-1])})
    return rows


def _uses(folder: Path, opens: int, epochs: int) -> dict[str, tuple[int, Callable[[], Callable[[], object]]]]:
    """Return by name how often something is done, and what gives the function that does it once."""
    pack = folder / "pack.h5"
    return {
        "packs opened and closed": (opens, lambda: lambda: open_pack(pack).close()),
        "packs opened, read and dropped": (opens, lambda: lambda: open_pack(pack).read_chunk(0)),
        "damaged packs refused": (opens, lambda: lambda: _refused(folder / "damaged.h5")),
        "loaders made, used and dropped": (max(1, opens // 5), lambda: lambda: next(iter(_loader(pack)))),
        "epochs of one loader": (epochs, lambda: _epochs(pack)),
        "epochs of a DataLoader with two workers": (max(1, epochs // 10), lambda: _worker_epochs(pack)),
    }


def _loader(pack: Path) -> Any:
    from edgeprune_runtime import PackLoader

    return PackLoader(pack, BATCH, shuffle=True, augment=True, device="cpu")


def _refused(path: Path) -> None:
    try:
        with open_pack(path) as pack:
            pack.read_chunk(0)
    except PackFormatError:
        return
    raise AssertionError(f"{path.name} is damaged and was read")


def _epochs(pack: Path) -> Callable[[], object]:
    loader = _loader(pack)
    return lambda: sum(len(labels) for _, labels in loader)


def _worker_epochs(pack: Path) -> Callable[[], object]:
    from torch.utils.data import DataLoader

    from edgeprune_runtime import PackDataset

    dataset: Any = PackDataset(pack)
    loader: Any = DataLoader(dataset, BATCH, num_workers=2)
    return lambda: sum(len(labels) for _, labels in loader)


def _tell(count: int, make: Callable[[], Callable[[], object]]) -> None:
    """Do it so many times after a warm-up, and print what was open and taken before and after."""
    once = make()
    for _ in range(max(3, int(WARM_UP * count))):
        once()
    before = _taken()
    for _ in range(count):
        once()
    after = _taken()
    waited_until = time.monotonic() + SETTLING
    while after[0] > before[0] and time.monotonic() < waited_until:
        time.sleep(0.05)  # threads of torch close what belonged to workers a moment later
        after = _taken()
    found = {"descriptors": [before[0], after[0]], "mib": [before[1], after[1]]}
    os.write(1, (json.dumps(found) + "\n").encode())


def _taken() -> tuple[int, float]:
    """Return the descriptors that are open, and the resident memory in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(list(Path("/proc/self/fd").iterdir())), pages * resource.getpagesize() / 2**20


def leaks_table(results: dict[str, Any]) -> list[str]:
    """Return what was open and taken before and after."""
    intro = "Each row in a process of its own, after a fifth as many repetitions to warm up."
    columns = [
        Column("", "use"),
        Column("times", "times", "{:,}"),
        Column("descriptors before", _part("descriptors", 0)),
        Column("after", _part("descriptors", 1)),
        Column("memory before, MiB", _part("mib", 0), "{:.1f}"),
        Column("after", _part("mib", 1), "{:.1f}"),
    ]
    return render(columns, results["rows"], intro)


def _part(name: str, at: int) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row[name][at]
