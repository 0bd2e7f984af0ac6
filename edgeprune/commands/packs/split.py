"""``edgeprune split``: one pack shared out to the devices of a fleet."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import bytes_text, count_text, say
from edgeprune_formats import ConfigError

from ...options.fields import FORCE, PACK, QUIET, Command, option, output_option
from ...options.output import require_spare

__all__ = ["command"]


@click.command("split", cls=Command)
@PACK
@option("-n", "--parts", type=int, required=True, help="Number of packs to make, 2 or more.")
@output_option("Folder for the packs, or a file name with {part} in it.")
@option(
    "--by",
    metavar="iid|class|dirichlet:ALPHA",
    default="iid",
    show_default=True,
    help="How to distribute images: iid, at random; class, whole classes; dirichlet, skewed labels, the more "
    "so "
    "the smaller ALPHA is.",
)
@option("--seed", type=int, default=0, show_default=True, help="Seed of which image goes to which pack.")
@FORCE
@QUIET
def command(pack: Path, parts: int, output: Path, by: str, seed: int, force: bool, quiet: bool) -> None:
    """Distribute the images of PACK to several packs.

    Each image goes to one pack, with its label and provenance. Images are copied as they are stored. The
    packs appear together when all are complete.

    \b
    Example:
      edgeprune split photos.h5 -n 8 -o fleet
      edgeprune split photos.h5 -n 8 --by dirichlet:0.3 -o 'device-{part}.h5'
    """
    from edgeprune.repack.partition import parse_by
    from edgeprune.repack.split import part_paths, split_pack
    from edgeprune.work.progress import progress_bars

    kind = parse_by(by)
    if parts < 2:
        raise ConfigError(f"-n {parts} splits nothing; give 2 or more")
    for path in part_paths(pack, output, parts):
        require_spare(path, force)
    with progress_bars(quiet) as tell:
        made = split_pack(
            pack,
            output,
            parts,
            by=kind,
            seed=seed,
            progress=lambda done, total: tell("splitting", done, total),
        )
    for part in made if not quiet else []:
        held = sum(count > 0 for count in part.classes)
        classes = f" of {held} of {len(part.classes)} classes" if part.classes else ""
        images, size = count_text(part.header.samples, "image"), bytes_text(part.path.stat().st_size)
        say(f"{part.path}: {images}{classes}, {size}")
