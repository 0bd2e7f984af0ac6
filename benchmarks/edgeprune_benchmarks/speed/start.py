"""Starting: seconds to import the runtime in a new process, and from there to the first batch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from edgeprune import open_source
from edgeprune_formats import EdgePruneError

from ..codec.packs import ImageSet, build
from ..harness.images import lossless
from ..harness.process import run_python
from ..harness.results import save, spread
from .images import CODECS

__all__ = ["first_batch", "run"]

# What is imported before the clock starts is the argument; the interpreter's own start is not counted.
CHILD = """
import importlib, json, sys, time
path, backend, first = sys.argv[1:4]
for name in sys.argv[4:]:
    importlib.import_module(name)
started = time.perf_counter()
import edgeprune_runtime
imported = time.perf_counter()
seconds = {"import": imported - started}
if path:
    loader = edgeprune_runtime.PackLoader(
        path, int(first), shuffle=True, normalize=True, backend=backend, device="cpu"
    )
    images, labels = next(iter(loader))
    seconds["first_batch"] = time.perf_counter() - imported
    seconds["loaded"] = [name for name in ("torch", "scipy") if name in sys.modules]
    assert len(images) == int(first) and float(abs(images).max()) < 100
print(json.dumps(seconds))
"""


def run(data: Path, output: Path, *, rounds: int, batch: int = 128) -> None:
    """Measure with each codec and backend, in new processes, and save the result."""
    images = ImageSet.of(open_source(f"npz:{lossless(data)}"), "cifar10")
    # More than of other parts, because each is short.
    repeats = rounds + 2
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        packs = {codec: Path(folder) / f"{codec}.h5" for codec in CODECS}
        for codec, path in packs.items():
            build(images, path, codec=codec, **CODECS[codec]).close()
        bare = [first_batch("", "", batch)["import"] for _ in range(repeats)]
        numpy_there = [first_batch("", "", batch, "numpy")["import"] for _ in range(repeats)]
        for codec, path in packs.items():
            for backend, before in (("native", ()), ("scipy", ()), ("torch", ()), ("torch", ("torch",))):
                rows.append(_row(path, codec, backend, batch, before, repeats))
    results: dict[str, Any] = {
        "batch": batch,
        "images": len(images.labels),
        "import_seconds": spread(bare),
        "import_seconds_after_numpy": spread(numpy_there),
        "rows": rows,
    }
    click.echo(f"import edgeprune_runtime: {results['import_seconds']['median']:.3f} s")
    click.echo(save(output, "time-start", results))


def first_batch(path: str, backend: str, batch: int, *imported: str) -> dict[str, Any]:
    """Return the seconds of one new process: ``import``, and with a path ``first_batch`` from there on.

    Files lie in the page cache after the first call.

    Raises
    ------
    EdgePruneError
        The process failed, for example because the backend is not there.
    """
    found: dict[str, Any] = run_python("time-start", "-c", CHILD, path, backend, str(batch), *imported)
    return found


def _row(
    path: Path, codec: str, backend: str, batch: int, before: tuple[str, ...], repeats: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"codec": codec, "backend": backend, "imported_before": list(before)}
    try:
        first_batch(str(path), backend, batch, *before)
    except EdgePruneError as error:
        return {**row, "absent": str(error).rpartition("ConfigError: ")[2]}
    found = [first_batch(str(path), backend, batch, *before) for _ in range(repeats)]
    seconds = spread([one["first_batch"] for one in found])
    click.echo(
        f"{codec}, {backend}, {' '.join(before) or 'nothing'} imported before: {seconds['median']:.3f} s"
    )
    return {**row, "first_batch_seconds": seconds, "loaded": found[0]["loaded"]}
