"""``edgeprune demo``: the whole road on embedded images, with the commands one would type."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import click

from edgeprune.text import bytes_text
from edgeprune_formats import ConfigError

__all__ = ["command"]

EPOCHS = "10"
MARK = ".edgeprune-demo"
NEEDS = ("torch", "sklearn", "safetensors")


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo",
    show_default=True,
    help="Folder for what the demo makes; what an earlier demo made there is replaced.",
)
def command(output: Path) -> None:
    """Build, verify, look at and train from a pack of embedded images, in a few minutes.

    \b
    Example:
      edgeprune demo
    """
    started = time.perf_counter()
    for name in NEEDS:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    _clear(output)
    pack, run = output / "digits.h5", output / "run"
    options = "--freq-prune 0.5 --sample-prune 0.5"
    _run(f"build digits {options} -o {shlex.quote(str(pack))}")
    _run(f"info {shlex.quote(str(pack))}")
    _run(f"verify {shlex.quote(str(pack))}")
    _run(f"preview {shlex.quote(str(pack))} --source digits -o {shlex.quote(str(output / 'preview.png'))}")
    _run(
        f"train {shlex.quote(str(pack))} --model mobilenet_v2 --test digits --epochs {EPOCHS} "
        f"--batch-size 32 --lr 0.05 --augment crop -o {shlex.quote(str(run))}"
    )
    _summary(pack, run, time.perf_counter() - started)


def _clear(output: Path) -> None:
    """Make the folder; empty one that an earlier demo has marked as its own, and refuse any other."""
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()) and not (output / MARK).exists():
        raise ConfigError(f"{output} is not empty, and no demo made it; name another folder with -o")
    (output / MARK).touch()
    for name in ("digits.h5", "preview.png"):
        (output / name).unlink(missing_ok=True)
    if (output / "run").exists():
        shutil.rmtree(output / "run")


def _run(line: str) -> None:
    from edgeprune.cli import cli

    click.echo(f"\n$ edgeprune {line}")
    cli.main(shlex.split(line), prog_name="edgeprune", standalone_mode=False)


def _summary(pack: Path, run: Path, seconds: float) -> None:
    from edgeprune.commands.info import describe

    facts = describe(pack)
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name, value in _rows(facts, metrics[-1], seconds):
        click.echo(f"  {name:<28} {value}")
    click.echo(
        "\nWith your own images, in a folder that holds a folder for each class:\n"
        "  edgeprune build imagefolder:PATH --size 224 --freq-prune 0.7 --sample-prune 0.5 -o mine.h5\n"
        "  edgeprune preview mine.h5 --source imagefolder:PATH -o mine.png\n"
        "  edgeprune train mine.h5 --model mobilenet_v2 --test imagefolder:TEST_PATH -o run"
    )


def _rows(facts: dict[str, Any], last: dict[str, Any], seconds: float) -> list[tuple[str, str]]:
    source = facts["provenance"]["source"]
    each = facts["bytes_per_image"]
    return [
        ("", ""),
        ("images kept", f"{facts['images']:,} of {source['images']:,}"),
        ("components kept", f"{facts['components']:,} of {facts['components_of']:,} a channel"),
        ("PSNR", f"{facts['provenance']['result']['psnr_db']:.1f} dB"),
        ("bytes an image, coefficients", f"{each['coefficients']:,} (raw uint8 {each['raw_uint8']:,})"),
        ("pack", bytes_text(facts["file_bytes"])),
        ("training", f"{last['epoch']} epochs, {last['images_per_second']:,.0f} images/s"),
        ("test accuracy", f"{last['test_accuracy']:.1%} on original images that the pack never saw"),
        ("the whole demo", f"{seconds:.0f} s"),
    ]
