"""The command ``robustness``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .._options import MINUTES, OUTPUT

__all__ = ["robustness"]


@click.command()
@OUTPUT
@MINUTES
@click.option("--recipe", default="cifar10-all", show_default=True, help="DATA-ROWS, such as cifar10-lf.")
@click.option(
    "--scale", type=click.Choice(["auto", "paper", "cpu", "trial"]), default="auto", show_default=True
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="EDGEPRUNE_DATA",
    help="Folder with cifar10-jpeg.npz, for cifar10 without --source.",
)
@click.option("--source", help="The images: cifar10:ROOT, cifar100:ROOT, imagefolder:PATH, npz:FILE.")
@click.option("--size", type=int, help="Resize the short side to so many pixels and crop the centre.")
@click.option("--seeds", type=int, help="Networks for each row.  [default: the scale's]")
@click.option("--images", type=int, help="Test images attacked.  [default: the scale's]")
@click.option("--device", default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default="runs/robustness", show_default=True)
def robustness(output: Path, runs: Path, **options: Any) -> None:
    """Train the rows of a recipe, attack them, judge each report by its controls; resumable.

    On a CUDA GPU the scale is the paper's, in pieces of under ten minutes by repeating:

    \b
      edgeprune bench robustness --recipe cifar10-all --source cifar10:data --minutes 9
    """
    from edgeprune_runtime._decode_torch import resolve_device

    from .run import Plan, run

    data, source = options.pop("data"), options.pop("source")
    if options["scale"] == "auto":
        on_gpu = resolve_device(options["device"]).type == "cuda"
        options["scale"] = "paper" if on_gpu else "cpu"
    spec = source or _own_images(options["recipe"], data, runs)
    run(Plan(spec=spec, **options), output, runs)


def _own_images(recipe: str, data: Path | None, runs: Path) -> str:
    from ..images import decoded_cifar10

    name = recipe.partition("-")[0]
    if name == "digits":
        return "digits"
    if name != "cifar10" or data is None:
        raise click.UsageError(f"recipe {recipe} needs --source, or for cifar10 --data")
    return f"npz:{decoded_cifar10(data, runs / 'cifar10-jpeg.npz')}"
