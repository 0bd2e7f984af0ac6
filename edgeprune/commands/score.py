"""``edgeprune score``: one training run that records how hard each image is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import ConfigError
from edgeprune_formats.files import check_writable

from .train import AUGMENTS, MODELS

__all__ = ["command", "require_torch"]


@click.command("score")
@click.argument("source", default="digits")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The scores file to write."
)
@click.option("--model", type=click.Choice(MODELS), help="[default: resnet18; resnet34 from 64 pixels on]")
@click.option("--epochs", type=int, default=200, show_default=True)
@click.option(
    "--every",
    type=int,
    help="Epochs from one record of entropies to the next.  [default: 5, or 2 from 64 pixels on]",
)
@click.option(
    "--batch-size",
    type=int,
    default=256,
    show_default=True,
    help="Images per step, of all processes together.",
)
@click.option("--lr", type=float, default=0.1, show_default=True, help="Peak learning rate.")
@click.option("--weight-decay", type=float, default=5e-4, show_default=True)
@click.option("--augment", type=click.Choice(AUGMENTS), default="crop+flip", show_default=True)
@click.option(
    "--size",
    type=int,
    metavar="PIXELS",
    help="Resize the short side to this many pixels and crop the center.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="bfloat16 is autocast; auto uses it where it pays.",
)
@click.option("--compile", is_flag=True, help="Compile the training step (torch.compile).")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    source: str,
    output: Path,
    size: int | None,
    skip_bad: bool,
    device: str,
    force: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a classifier on SOURCE and record what it sees of every image.

    One run gives every score (joint entropy, forgetting, EL2N, AUM, entropy) and the classifier that masks
    are learned against; edgeprune build takes both from the file with --scores. A run that was stopped goes
    on when the same command is run again. With N GPUs:
    torchrun --standalone --nproc-per-node N -m edgeprune score ...

    \b
    Example:
      edgeprune score imagefolder:photos --size 224 -o photos.scores.h5
      edgeprune build imagefolder:photos --size 224 --method jelf --scores photos.scores.h5 -o photos.h5
    """
    require_torch()
    from edgeprune.packs.build import check_shared
    from edgeprune.scoring.config import ScoreConfig
    from edgeprune.scoring.run import run_scoring
    from edgeprune.sources import open_source
    from edgeprune.work.joining import joined
    from edgeprune.work.progress import EpochLines, progress_bars
    from edgeprune_runtime.training.config import place

    _require_target(source, output)
    with joined(device) as workers:
        quiet = quiet or workers.rank > 0
        config = ScoreConfig(device=workers.device, **options)
        images = open_source(source, size=size)
        # Before every image is read, which can take long.
        place(config.training(config.model_for(images.shape)))
        with progress_bars(quiet) as tell:
            check = check_shared(images, skip_bad=skip_bad, workers=workers, progress=tell)
        records = run_scoring(
            images,
            check,
            output,
            config,
            workers=workers,
            report=EpochLines(quiet),
            replace_existing=force,
        )
    if not quiet:
        click.echo(_summary(output, records.provenance, len(records.rows)))


def _require_target(source: str, output: Path) -> None:
    """Raise if nothing can be written there, or if it would replace the source."""
    origin = source.partition(":")[2]
    if origin and output.exists() and output.resolve() == Path(origin).resolve():
        raise ConfigError(f"{output} is the source; name another file")
    check_writable(output)


def require_torch() -> None:
    """Raise `ConfigError` where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("scores and learned masks need torch; pip install 'edgeprune[build]'")


def _summary(output: Path, provenance: dict[str, Any], images: int) -> str:
    history = provenance["history"]
    recording = sum(epoch["record_seconds"] for epoch in history) / sum(epoch["seconds"] for epoch in history)
    return (
        f"{output}: {images:,} images, {provenance['classifier']['model']}, {len(history)} epochs, "
        f"training accuracy {history[-1]['accuracy']:.2%}, {recording:.1%} of the time in the records, "
        f"images on the {provenance['images_held']}"
    )
