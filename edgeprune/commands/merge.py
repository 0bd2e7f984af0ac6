"""``edgeprune merge``: several packs joined to one."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import printable
from edgeprune_formats import ConfigError

__all__ = ["command"]


@click.command("merge")
@click.argument(
    "packs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The pack to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the images.")
@click.option("--allow-duplicates", is_flag=True, help="Take images that several of the packs hold.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    packs: tuple[Path, ...], output: Path, seed: int, allow_duplicates: bool, force: bool, quiet: bool
) -> None:
    """Join PACKS to one, in random order, image by image as they are stored.

    They must agree in shape, classes, codec, components and quantization.

    \b
    Example:
      edgeprune merge fleet/*.h5 -o photos.h5
    """
    from edgeprune.packs.merge import merge_packs
    from edgeprune.work.progress import progress_bars

    if output.exists() and not force and not output.is_dir():
        raise ConfigError(f"{output} exists; pass --force to replace it")
    with progress_bars(quiet) as tell:
        report = merge_packs(
            packs,
            output,
            seed=seed,
            allow_duplicates=allow_duplicates,
            progress=lambda done, total: tell("merging", done, total),
        )
    if quiet:
        return
    whole = f", all of {report.whole}" if report.whole else ""
    twice = f", {report.duplicates:,} of them in several" if report.duplicates else ""
    scores = "; the scores differ in kind or lack, and are left out" if report.lost_scores else ""
    size = output.stat().st_size / 1e6
    line = f"{output}: {report.header.samples:,} images of {len(packs)} packs{whole}{twice}, {size:.2f} MB"
    click.echo(printable(line + scores))
