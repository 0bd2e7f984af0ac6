"""Building a pack of many photographs: by one job, by two, and in parts through Ray."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import open_pack
from edgeprune_formats.files import file_sha256

from .crops import SIDE
from .watch import watch

__all__ = ["WAYS", "build"]

WAYS: dict[str, tuple[str, ...]] = {
    "jobs-1": ("--jobs", "1"),
    "jobs-2": ("--jobs", "2"),
    "ray-8": ("--engine", "ray", "--parts", "8", "--jobs", "1"),
}
"""How a pack is built, by options of ``edgeprune build``."""

CHILD = """
import json, os, sys, time
started = time.perf_counter()
from edgeprune.cli import cli
from edgeprune_benchmarks.harness.peak import peak_mib
cli.main(sys.argv[1:], standalone_mode=False)
seconds = time.perf_counter() - started
used = os.times()
print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(), "cpu_seconds": used.user + used.system}))
"""


def build(images: Path, folder: Path, way: str) -> dict[str, Any]:
    """Build a pack in a process of its own, measure, and remove it.

    Parameters
    ----------
    images : Path
        An image folder.
    folder : Path
        For the pack; what it holds is removed.
    way : str
        Of `WAYS`.
    """
    # Parts of a run that was stopped would be used again.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pack, engine = folder / "pack.h5", "--engine" in WAYS[way]
    words = ["build", f"imagefolder:{images}", "--size", str(SIDE), "-o", str(pack), "--quiet", *WAYS[way]]
    found = watch(way, ["-c", CHILD, *words], pack, family=engine, SOURCE_DATE_EPOCH="0")
    row = {"way": way, "options": " ".join(WAYS[way]), **found.printed, **_content(pack)}
    row["images_per_second"] = row["images"] / row["seconds"]
    if engine:
        # The driver's alone; Ray's own processes are in the second figure.
        row["cpu_seconds"] = None
        row["peak_mib"] = max(row["peak_mib"], found.tasks_mib)
        row["peak_with_engine_mib"] = found.all_mib
    row["temporary_bytes"], row["disk_bytes"] = found.temporary_bytes, found.disk_bytes
    row["temporary_ratio"] = found.temporary_bytes / row["file_bytes"]
    shutil.rmtree(folder)
    _show(row)
    return row


def _content(path: Path) -> dict[str, Any]:
    """Return what a pack holds, with one hash of its bytes and one of its chunks, labels and rows."""
    digest = hashlib.sha256()
    with open_pack(path) as pack:
        for array in (pack.labels, pack.source_index):
            digest.update(array.astype("<i8").tobytes())
        for chunk in range(pack.header.chunks):
            for name, array in sorted(pack.read_payload(chunk).items()):
                digest.update(f"{chunk} {name} {array.nbytes}\n".encode())
                digest.update(array.tobytes())
        facts = {"images": len(pack), "tile": pack.header.tile, "chunks": pack.header.chunks}
        facts["psnr_db"] = pack.header.provenance["result"]["psnr_db"]
    facts |= {"file_bytes": path.stat().st_size, "file_sha256": file_sha256(path)}
    return {**facts, "payloads_sha256": digest.hexdigest()}


def _show(row: dict[str, Any]) -> None:
    click.echo(
        f"{row['options']}: {row['images']:,} images in {row['seconds']:,.1f} s, "
        f"{row['images_per_second']:,.1f} images/s, {row['peak_mib']:,.0f} MiB, "
        f"{row['file_bytes'] / 1e6:,.1f} MB, temporary disk {row['temporary_ratio']:.2f}x of it"
    )
