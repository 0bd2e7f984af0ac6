"""``edgeprune build``: from images to a pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprune_formats import COMPRESSIONS, ConfigError, codec_names

__all__ = ["command"]


@click.command("build")
@click.argument("source", default="digits")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The pack to write.")
@click.option(
    "--freq-prune",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of each image's frequency components to drop.",
)
@click.option(
    "--sample-prune", type=float, default=0.0, show_default=True, help="Share of the images to leave out."
)
@click.option(
    "--size",
    type=int,
    help="Resize the short side to this many pixels and crop the centre.",
    metavar="PIXELS",
)
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--codec", type=click.Choice(codec_names()), default="sparse-f32", show_default=True)
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default="none",
    show_default=True,
    help="Lossless compression of the coefficients.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@click.option("--seed", type=int, default=0, show_default=True, help="Fixes the choice and order of images.")
@click.option("--force", is_flag=True, help="Replace the pack if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(source: str, output: Path, force: bool, quiet: bool, **options: Any) -> None:
    """Build a pack from SOURCE.

    SOURCE is digits (small embedded images, the default), imagefolder:PATH (a folder with a folder of
    images for each class), npz:FILE (arrays x_train, y_train, ... or x, y), cifar10[:ROOT] or
    cifar100[:ROOT] (the official files, already unpacked).

    \b
    Example:
      edgeprune build imagefolder:photos --size 224 --freq-prune 0.7 --sample-prune 0.5 -o photos.h5
    """
    from edgeprune.build import build_pack
    from edgeprune.config import BuildConfig
    from edgeprune.progress import progress_bars

    if output.exists() and not force and not output.is_dir():
        raise ConfigError(f"{output} exists; pass --force to replace it")
    if output.exists() and output.resolve() == Path(source.partition(":")[2]).resolve():
        raise ConfigError(f"{output} is the source; name another file")
    config = BuildConfig(**options)
    with progress_bars(quiet) as tell:
        report = build_pack(source, output, config, progress=tell)
    if quiet:
        return
    for message in report.skipped:
        click.echo(f"skipped {message}")
    header = report.header
    if report.empty_classes:
        names = ", ".join(report.empty_classes[:3])
        click.echo(
            f"warning: no image of {len(report.empty_classes):,} classes was kept ({names}, ...); "
            "lower --sample-prune",
            err=True,
        )
    images = f"{header.samples:,} images of {header.height}x{header.width}"
    if report.skipped:
        images += f" ({len(report.skipped):,} unreadable ones skipped)"
    click.echo(
        f"{output}: {images}, {header.components} of {header.height * header.width} components a channel "
        f"({header.sparse_bytes:,} B an image), {report.psnr:.1f} dB, "
        f"{output.stat().st_size / 1e6:.1f} MB, in {report.seconds:.1f} s"
    )
