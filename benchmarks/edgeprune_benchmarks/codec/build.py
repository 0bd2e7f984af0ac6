"""Building: how long, how much memory, how large and how good at each pruning ratio."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from ..harness.images import lossless, unpack_cifar10, unpack_photographs
from ..harness.process import run_python
from ..harness.results import save

__all__ = ["run"]

RATIOS = (0.5, 0.7, 0.8, 0.9)


def run(data: Path, output: Path) -> None:
    """Build each pack in a process of its own and save time, peak memory, bytes and PSNR."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for ratio in RATIOS:
            for compression in ("none", "gzip"):
                options = ["--freq-prune", str(ratio), "--compression", compression]
                rows.append(_build("CIFAR-10, lossless sample", f"npz:{lossless(data)}", folder, options))
        cifar = unpack_cifar10(data, folder / "cifar10")
        rows.append(_build("CIFAR-10, 50,000 JPEG files", f"imagefolder:{cifar}", folder, []))
        photographs = unpack_photographs(data, folder / "photographs")
        rows.append(_build("250 photographs at 224", f"imagefolder:{photographs}", folder, ["--size", "224"]))
    click.echo(save(output, "build", {"rows": rows}))


CHILD = """
import json, sys, time
from pathlib import Path
started = time.perf_counter()
from edgeprune.cli import cli
from edgeprune.commands.inspection.info import describe
from edgeprune_benchmarks.harness.peak import peak_mib
cli.main(sys.argv[2:], standalone_mode=False)
seconds = time.perf_counter() - started
print(json.dumps({
    "seconds": seconds,
    "peak_mib": peak_mib(),
    "info": describe(Path(sys.argv[1])),
}))
"""


def _build(label: str, source: str, folder: Path, options: list[str]) -> dict[str, Any]:
    pack = folder / "pack.h5"
    arguments = ["build", source, "-o", str(pack), "--force", "--quiet", "--codec", "sparse-f32", *options]
    found = run_python(label, "-c", CHILD, str(pack), *arguments)
    info = found["info"]
    config = info["provenance"]["config"]
    row = {
        "source": label,
        "images": info["images"],
        "shape": info["shape"],
        "freq_prune": config["freq_prune"],
        "compression": config["compression"],
        "components": info["components"],
        "coefficient_bytes": info["bytes_per_image"]["coefficients"],
        "file_bytes_per_image": info["bytes_per_image"]["file"],
        "psnr_db": info["provenance"]["result"]["psnr_db"],
        "seconds": found["seconds"],
        "images_per_second": info["images"] / found["seconds"],
        "peak_mib": found["peak_mib"],
    }
    click.echo(
        f"{label}, {config['freq_prune']:.0%}, {config['compression']}: "
        f"{row['file_bytes_per_image']:,.0f} B an image, {row['psnr_db']:.2f} dB, "
        f"{row['seconds']:.1f} s, {row['peak_mib']:.0f} MiB"
    )
    return row
