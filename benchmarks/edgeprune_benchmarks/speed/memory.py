"""Memory: the peak of a process that goes through packs of very different sizes with the same cache."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.sources.base import Rows
from edgeprune_formats import open_pack

from ..codec.packs import ImageSet
from ..harness.images import lossless
from ..harness.process import run_python
from ..harness.results import save

__all__ = ["Repeated", "build_of_size", "peak", "run"]

CODECS: dict[str, dict[str, Any]] = {
    "sparse-f32": {"freq_prune": 0.5},
    # Large, and built quickly: neither matters to the memory that reading takes.
    "quantized": {"quality": 95.0, "tile": "full", "rounding": "deadzone"},
}

CHILD = """
import json, sys
import edgeprune_runtime
from edgeprune_benchmarks.harness.peak import peak_mib
path, cache, batch, backend = sys.argv[1:]
if backend == "torch":
    import torch
imported = peak_mib()
loader = edgeprune_runtime.PackLoader(
    path, int(batch), shuffle=True, normalize=True, cache_bytes=int(cache), backend=backend, device="cpu"
)
images = sum(len(labels) for _, labels in loader)
print(json.dumps({"images": images, "peak_mib": peak_mib(), "imported_mib": imported}))
"""


@dataclass(frozen=True, eq=False)
class Repeated:
    """A source of as many images as one likes that takes no memory for them: some, again and again."""

    images: ImageSet
    count: int
    spec = "repeated"
    split = "train"
    license = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the images' classes."""
        return self.images.source().class_names

    @property
    def labels(self) -> NDArray[np.int64]:
        """[count]."""
        return np.resize(self.images.labels, self.count)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return self.images.source().shape

    def __len__(self) -> int:
        return self.count

    def name(self, row: int) -> str:
        """Return how a message calls an image."""
        return f"repeated[{row}]"

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Return some images, uint8 [n, 3, H, W]."""
        pixels: NDArray[np.uint8] = self.images.pixels[np.asarray(rows) % len(self.images.labels)]
        return pixels


def run(
    data: Path, output: Path, *, megabytes: tuple[float, ...], cache_mb: float, backend: str, batch: int = 256
) -> None:
    """Build packs of about these sizes of each codec, go through each in a process, and save the peaks."""
    images = ImageSet.of(open_source(f"npz:{lossless(data)}"), "cifar10")
    rows: list[dict[str, Any]] = []
    for codec, config in CODECS.items():
        for target in megabytes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "pack.h5"
                build_of_size(images, path, BuildConfig(codec=codec, device="cpu", **config), target)
                found = peak(path, round(cache_mb * 1e6), batch, backend)
                size = path.stat().st_size / 1e6
            rows.append({"codec": codec, "target_mb": target, "pack_mb": size, **found})
            click.echo(f"{codec}, {size:,.0f} MB, {found['images']:,} images: {found['peak_mib']:,.0f} MiB")
    results = {"cache_mb": cache_mb, "backend": backend, "batch": batch, "rows": rows}
    click.echo(save(output, "time-memory", results))


def peak(path: Path, cache_bytes: int, batch: int, backend: str) -> dict[str, float]:
    """Return the peak resident memory in MiB of a new process that goes through a pack once.

    ``imported_mib`` is the peak before the pack was opened.
    """
    words = str(path), str(cache_bytes), str(batch), backend
    found: dict[str, float] = run_python("time-memory", "-c", CHILD, *words)
    return found


def build_of_size(images: ImageSet, path: Path, config: BuildConfig, megabytes: float) -> None:
    """Build a pack of about so many MB, from how many bytes an image takes in a small one."""
    build_pack(Repeated(images, min(2000, len(images.labels))), path, config)
    with open_pack(path) as pack:
        each = path.stat().st_size / len(pack)
    build_pack(Repeated(images, max(round(megabytes * 1e6 / each), 1)), path, config)
