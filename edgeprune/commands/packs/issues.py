"""``edgeprune issues``: images that look mislabeled, and near duplicates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.packs.config import BuildConfig
from edgeprune.text import count_text, printable, say
from edgeprune_formats import ConfigError

from ...options.fields import PACK_FILE, QUIET, Command, config_options, option
from ...options.given import refuse_given
from ...options.output import file_of, require_other
from ..training.predict import tell

if TYPE_CHECKING:
    from edgeprune.issues.report import Issues, Record

__all__ = ["command"]

FILE = click.Path(dir_okay=False, path_type=Path)
_OF_SOURCES = ("size", "channels", "split", "skip_bad", "jobs")
# Images of a group that are printed.
_FEW = 3


@click.command("issues", cls=Command)
@click.argument("scores", type=PACK_FILE, required=False)
@option(
    "--source",
    "data",
    metavar="SOURCE_OR_PACK",
    help="Images of SCORES to name, and to search for near duplicates.",
)
@config_options(BuildConfig, "size", "channels", "split", "skip_bad")
@option(
    "--distance",
    type=int,
    default=20,
    show_default=True,
    help="Largest difference between the hashes of near duplicates, in bits of 128; at most 24.",
)
@option(
    "--top",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Number of lines of each list to print.",
)
@option("--json", "as_json", type=FILE, metavar="FILE", help="Write all results as JSON.")
@option(
    "--csv", "as_csv", type=FILE, metavar="FILE", help="Write all results as CSV, one line for each image."
)
@option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Threads that read images.  [default: all cores]"
)
@QUIET
def command(
    scores: Path | None,
    data: str | None,
    distance: int,
    top: int,
    as_json: Path | None,
    as_csv: Path | None,
    jobs: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """List images that look mislabeled, and near duplicates.

    SCORES is a file of edgeprune score. It tells which images look mislabeled: those with a low margin (AUM),
    the lowest first. The margin is the logit of the label minus the largest other logit, as a mean over all
    epochs; low means below -log(classes - 1). --source adds the names of the images, and lists near
    duplicates among all of them, also without SCORES. Near duplicates have the same pixels, or perceptual
    hashes that differ in few bits; mirror images count too. Groups with more than one class come first.

    \b
    Example:
      edgeprune issues photos.scores.h5 --source imagefolder:photos --size 224 --csv issues.csv
      edgeprune issues --source photos.h5
    """
    from edgeprune.issues.images import is_pack, open_images
    from edgeprune.issues.report import Issues, duplicate_groups, suspect_images
    from edgeprune.work.progress import progress_bars
    from edgeprune_formats.files import atomic_file, check_writable
    from edgeprune_runtime.system.machine import cpu_quota

    if scores is None and data is None:
        raise click.UsageError("name a scores file, --source or both", click.get_current_context())
    if data is None:
        refuse_given(("distance", *_OF_SOURCES), "without --source")
    elif is_pack(data):
        refuse_given(_OF_SOURCES, "with a pack")
    for file, other in ((as_json, as_csv), (as_csv, as_json)):
        if file is not None:
            require_other(file, {"scores file": scores, "source": file_of(data)})
            if file == other:
                raise ConfigError(f"{file} is named for both --json and --csv; name two files")
            check_writable(file)
    records = suspects = images = groups = None
    if scores is not None:
        from edgeprune.issues.mislabeled import find_suspects
        from edgeprune.scoring.scores_file import read_scores_file

        records = read_scores_file(scores)
        suspects = find_suspects(records)
    if data is not None:
        images = open_images(data, records, jobs=jobs or cpu_quota(), tell=tell, **options)
        with progress_bars(quiet) as progress:
            groups = duplicate_groups(images, distance, progress)
    found = Issues(None if suspects is None else suspect_images(suspects, images), groups)
    for path, text in ((as_json, json.dumps(found.record(), indent=1) + "\n"), (as_csv, found.table())):
        if path is not None:
            with atomic_file(path) as partial:
                partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    if not quiet:
        for line in _lines(found, top):
            say(line)


def _lines(found: Issues, top: int) -> Iterator[str]:
    if found.mislabeled is not None:
        yield from _label_lines(found.mislabeled, top)
    if found.mislabeled is not None and found.duplicates is not None:
        yield ""
    if found.duplicates is not None:
        yield from _duplicate_lines(found.duplicates, top)


def _label_lines(found: Record, top: int) -> Iterator[str]:
    images = found["images"]
    odds = f"{math.exp(-found['threshold']):,.0f} times " if found["threshold"] else ""
    yield (
        f"{count_text(len(images), 'image')} of {found['scored']:,} may be mislabeled: mean margin (AUM) "
        f"below {found['threshold']:.2f}, where another class was {odds}as probable as the label"
    )
    if images[:top]:
        width = max(len("class"), *(len(printable(one["class"])) for one in images[:top]))
        yield f"{'margin':>7}  {'class':{width}}  image"
        for one in images[:top]:
            yield f"{one['margin']:>7.3f}  {printable(one['class']):{width}}  {one['image']}"
    yield from _rest(len(images), top)


def _duplicate_lines(found: Record, top: int) -> Iterator[str]:
    groups = found["groups"]
    differ = sum(group["classes_differ"] for group in groups)
    images = sum(len(group["images"]) for group in groups)
    yield (
        f"{count_text(len(groups), 'group')} of near duplicates among {found['compared']:,} images, "
        f"{images:,} images in all, hashes within {found['distance']} bits of the first; "
        f"{differ:,} with more than one class"
    )
    for group in groups[:top]:
        kind = "classes differ: " if group["classes_differ"] else ""
        named = [
            f"{one['image']} ({one['class']}{_how(one) if place else ''})"
            for place, one in enumerate(group["images"][:_FEW])
        ]
        more = len(group["images"]) - _FEW
        yield f"  {kind}{', '.join(named)}{f' and {more:,} more' if more > 0 else ''}"
    yield from _rest(len(groups), top)


def _how(one: Record) -> str:
    same = "the same pixels" if one["exact"] else f"{one['distance']} bits"
    return f", {'mirrored, ' if one['mirrored'] else ''}{same}"


def _rest(count: int, top: int) -> Iterator[str]:
    if count > top:
        yield f"  ... and {count - top:,} more; --json FILE or --csv FILE has all"
