"""``edgeprune add``: more images beside the packs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprune.packs.config import BuildConfig
from edgeprune.sources.naming.options import SourceOptions, with_options
from edgeprune.text import bytes_text, count_text, say

from ...options.fields import EXISTING, QUIET, Command, config_options, make_config, option, output_option
from ...options.networks import TRUST_MODEL
from ...options.parameters import say_skipped, say_warning

__all__ = ["command"]


@click.command("add", cls=Command)
@click.argument("source")
@output_option("Folder of the packs, to which one is added.", metavar="DIR", heading="What to add")
@config_options(
    BuildConfig, "split", "skip_bad", "seed", seed={"help": "Seed of the order of the images in the pack."}
)
@option(
    "--teacher",
    type=EXISTING,
    metavar="RUN",
    help="Store the class probabilities of this run's network; for packs that were built with a teacher.",
)
@TRUST_MODEL
@config_options(SourceOptions, heading="How to read it")
@option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    heading="Run",
    help="Threads that read and encode images.  [default: all cores]",
)
@QUIET
def command(
    source: str,
    output: Path,
    split: str,
    skip_bad: bool,
    seed: int,
    teacher: Path | None,
    jobs: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Add the images of SOURCE to the packs in the folder DIR.

    The images become a new pack. The other packs do not change. The new pack has their size, codec, quality,
    tiles, color space, mean and standard deviation. Classes are matched by name; new ones are appended.
    Targets of the last pack are taken by name. The name of the new pack sorts after all others. SOURCE is as
    for edgeprune build. Only a teacher needs torch.

    \b
    Example:
      edgeprune add imagefolder:today -o packs
      edgeprune train packs/*.h5 --init run --replay 0.5 -o run2
    """
    from edgeprune.packs.addition import add_images
    from edgeprune.work.progress import progress_bars
    from edgeprune_runtime.system.machine import cpu_quota

    spec = with_options(source, make_config(SourceOptions, options))
    with progress_bars(quiet) as tell:
        added = add_images(
            spec,
            output,
            split=split,
            skip_bad=skip_bad,
            seed=seed,
            teacher=teacher,
            jobs=jobs or cpu_quota(),
            progress=tell,
        )
    if quiet:
        return
    report = added.report
    say_skipped(report.skipped)
    new = ", ".join(added.new_classes[:5]) + (", ..." if len(added.new_classes) > 5 else "")
    classes = f" in {report.classes:,} class{'' if report.classes == 1 else 'es'}, "
    classes += f"{len(added.new_classes):,} of them new{f' ({new})' if new else ''}"
    say(
        f"{report.path}: {count_text(report.images, 'image')}{classes if report.classes else ''}"
        f"{report.targets_text}; {report.psnr:.1f} dB, {bytes_text(report.path.stat().st_size)}"
    )
    for note in report.notes:
        say_warning(note)
