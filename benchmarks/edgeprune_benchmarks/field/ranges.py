"""How much of a far pack is read to see what it holds, and to draw images of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from edgeprune import open_source
from edgeprune.commands.inspection.info import describe
from edgeprune.report.preview import draw_preview
from edgeprune_formats.packs.remote import RangedPack, look_into
from edgeprune_formats.remote.locations import RemoteFile

from ..codec.packs import ImageSet, build
from ..harness.images import lossless
from ..harness.markdown import Column, render
from ..harness.options import require_packages
from ..harness.results import save

__all__ = ["ranges_table", "run"]

IMAGES_SHOWN = 8
_SIZES = (500, 5000)
_CODECS: dict[str, dict[str, Any]] = {"quantized": {}, "sparse-f32": {"freq_prune": 0.5}}


def run(data: Path, output: Path) -> None:
    """Measure packs of some sizes, and save what was read of each."""
    require_packages("fsspec")
    images = ImageSet.of(open_source(f"npz:{lossless(data)}"), "cifar10")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for codec, options in _CODECS.items():
            for size in _SIZES:
                some = ImageSet(images.name, images.pixels[:size], images.labels[:size])
                path = Path(folder) / f"{codec}-{size}.h5"
                build(some, path, codec=codec, **options).close()
                rows.append({"codec": codec, "images": size, **measure(path)})
    for line in ranges_table({"rows": rows}):
        click.echo(line)
    click.echo(save(output, "ranges", {"images_shown": IMAGES_SHOWN, "rows": rows}))


def measure(path: Path) -> dict[str, int]:
    """Return what ``info`` and ``preview`` read of a pack, which stands for a far one, in bytes."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/{path.name}", path.read_bytes())
    remote = RemoteFile(f"memory://{path.name}")
    facts = describe(remote)
    with look_into(remote, click.echo) as pack:
        assert isinstance(pack, RangedPack)
        draw_preview(pack, path.with_suffix(".png"), count=IMAGES_SHOWN)
        ranges = pack.ranges
    return {
        "file_bytes": ranges.size,
        "info_bytes": facts["read_bytes"],
        "info_ranges": facts["read_ranges"],
        "preview_bytes": ranges.bytes_read,
        "preview_ranges": ranges.requests,
    }


def ranges_table(results: dict[str, Any]) -> list[str]:
    """Return the table of bytes that were read."""
    columns = [
        Column("images of 32x32", "images", "{:,}"),
        Column("codec", "codec"),
        Column("pack, kB", lambda row: row["file_bytes"] / 1e3, "{:,.0f}"),
        Column("`info` reads, kB", lambda row: row["info_bytes"] / 1e3, "{:,.0f}"),
        Column("requests", "info_ranges"),
        Column("`preview` reads, kB", lambda row: row["preview_bytes"] / 1e3, "{:,.0f}"),
        Column("requests", "preview_ranges"),
    ]
    return render(columns, results["rows"])
