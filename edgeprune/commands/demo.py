"""``edgeprune demo``: the whole road on embedded images, with the commands one would type."""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import say
from edgeprune_formats import ConfigError

from ..options.fields import Command, output_option

if TYPE_CHECKING:
    from edgeprune.report.comparison import Stored

__all__ = ["command"]

EPOCHS = "5"
MARK = ".edgeprune-demo"
# Modules, and the packages that they are in.
NEEDS = {
    **{name: name for name in ("torch", "torchvision", "safetensors")},
    "sklearn": "scikit-learn",
}
PAPER, SMALL, PICTURE, RUNS = "digits.h5", "digits-small.h5", "preview.png", ("run", "run-small")


@click.command("demo", cls=Command)
@output_option(
    "Folder for the results; those of an earlier demo are replaced.",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo",
    required=False,
    show_default=True,
)
def command(output: Path) -> None:
    """Run every step on small embedded images, in three minutes.

    The demo builds a pack in the paper's layout, converts it to a smaller one, and trains a network from
    each. A table at the end compares the packs with raw pixels, PNG and JPEG.

    \b
    Example:
      edgeprune demo
    """
    started = time.perf_counter()
    _require_packages()
    _clear(output)
    for line in _lines(output):
        _run(line)
    say()
    for line in (*_table(output), "", f"The demo took {time.perf_counter() - started:.0f} s.", "", *NEXT):
        say(line)


NEXT = (
    "With your own images, in a folder that holds a folder for each class:",
    "  edgeprune build imagefolder:PATH --size 224 -o mine.h5",
    "  edgeprune preview mine.h5 --source imagefolder:PATH -o mine.png",
    "  edgeprune train mine.h5 --test imagefolder:TEST_PATH -o run",
)


def _require_packages() -> None:
    """Raise `ConfigError` where a package is missing, before anything is made."""
    missing = [package for name, package in NEEDS.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {', '.join(missing)}; pip install 'edgeprune[build]'")


def _clear(output: Path) -> None:
    """Make the folder; empty one that an earlier demo has marked as its own, and refuse any other."""
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()) and not (output / MARK).exists():
        raise ConfigError(f"{output} is not empty, and no demo made it; name another folder with -o")
    (output / MARK).touch()
    for name in (PAPER, SMALL, PICTURE):
        (output / name).unlink(missing_ok=True)
    for name in RUNS:
        if (output / name).exists():
            shutil.rmtree(output / name)


def _lines(output: Path) -> Iterator[str]:
    """Give the commands, as they would be typed."""
    paper, small, picture = (shlex.quote(str(output / name)) for name in (PAPER, SMALL, PICTURE))
    yield f"build digits --codec sparse-f32 --freq-prune 0.5 --sample-prune 0.5 -o {paper}"
    yield f"convert {paper} --codec quantized -o {small}"
    yield f"info {small}"
    yield f"verify {small}"
    yield f"preview {small} --source digits -o {picture}"
    for pack, run in zip((paper, small), RUNS, strict=True):
        yield (
            f"train {pack} --model mobilenet_v2 --test digits --epochs {EPOCHS} --batch-size 32 "
            f"--augment crop -o {shlex.quote(str(output / run))}"
        )


def _run(line: str) -> None:
    from edgeprune.cli import cli

    say()
    say(f"$ edgeprune {line}")
    cli.main(shlex.split(line), prog_name="edgeprune", standalone_mode=False)


def _table(output: Path) -> Iterator[str]:
    """Give the lines of the closing table."""
    from edgeprune.report.comparison import as_files, as_lossy, as_pack, as_pixels
    from edgeprune.sources import open_source
    from edgeprune_formats import open_pack

    source = open_source("digits")
    with open_pack(output / PAPER) as pack:
        rows, header = pack.source_index.astype(int), pack.header
    images = source.read(rows).transpose(0, 2, 3, 1).copy()
    paper = as_pack("pack, sparse-f32 (paper)", output / PAPER, images)
    small = as_pack("pack, quantized", output / SMALL, images)
    yield f"{len(images):,} of {len(source):,} images of {header.height}x{header.width}"
    yield f"{'':<26}{'B an image':>11}{'PSNR':>11}{'decoded':>18}{'test accuracy':>16}"
    png = as_files("PNG", images, "PNG", optimize=True)
    files = (as_pixels(images), png, as_lossy("JPEG", images, "JPEG", small.psnr, optimize=True))
    yield from (_row(stored, None) for stored in files)
    yield from (
        _row(stored, _accuracy(output / run)) for stored, run in zip((paper, small), RUNS, strict=True)
    )
    tested = len(open_source("digits", split="test"))
    yield "B an image: whole files. decoded: in one process, PNG and JPEG by Pillow, packs by their loader."
    yield "PSNR: of images rounded to 8 bits. build measures before rounding, convert against the first pack."
    yield f"test accuracy: after {EPOCHS} epochs, on {tested:,} images that no pack holds."


def _row(stored: Stored, accuracy: float | None) -> str:
    psnr = "the same" if math.isinf(stored.psnr) else f"{stored.psnr:.1f} dB"
    rate = "-" if stored.images_per_second is None else f"{stored.images_per_second:,.0f} images/s"
    tested = "-" if accuracy is None else f"{accuracy:.1%}"
    return f"{stored.name:<26}{stored.bytes_per_image:>11,.0f}{psnr:>11}{rate:>18}{tested:>16}"


def _accuracy(run: Path) -> float:
    last = (run / "metrics.jsonl").read_text().splitlines()[-1]
    return float(json.loads(last)["test_accuracy"])
