"""The commands ``robustness``, ``landscape`` and ``attack``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.options.fields import config_options
from edgeprune.options.networks import TRUST_MODEL
from edgeprune.packs.config import BuildConfig

from ..harness.options import DEVICE, MINUTES, OUTPUT, PICTURES, count, require_packages, runs, seeds

if TYPE_CHECKING:
    from ..robustness.run import Request

__all__ = ["attack", "landscape", "robustness"]

_SCALE = click.option(
    "--scale",
    type=click.Choice(["auto", "paper", "cpu", "trial"]),
    default="auto",
    show_default=True,
    help="How much is trained, how many images are attacked, and how long attacks search.",
)
_LINF = click.option("--linf", is_flag=True, help="Attack only in Linf, and with AutoAttack only at 8/255.")
_PRECISION = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Number format of a first pass of attacks; images that resist are attacked again in float32.",
)
_ATTACKED = count("--images", None, "Number of test images to attack.  [default: by --scale]")
_SHARED = (
    OUTPUT,
    MINUTES,
    click.option(
        "--recipe",
        default="cifar10-all",
        show_default=True,
        help="Data set and rows, joined by a dash, such as cifar10-lf.",
    ),
    _SCALE,
    click.option(
        "--data",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        envvar="EDGEPRUNE_DATA",
        help="Folder of cifar10-jpeg.npz; for recipes of cifar10, if --source is not given.",
    ),
    click.option("--source", help="The images: cifar10:ROOT, cifar100:ROOT, imagefolder:PATH, npz:FILE."),
    config_options(BuildConfig, "size"),
    seeds(None, "by --scale"),
    DEVICE,
    runs("runs/robustness"),
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(short_help="Train networks, attack them, and check the reports")
@_shared
@_ATTACKED
@_LINF
@_PRECISION
def robustness(output: Path, images: int | None, linf: bool, precision: str, **options: Any) -> None:
    """Train the networks of a recipe, attack them, and check each report by its controls; resumable.

    On a CUDA GPU the scale is by default that of the paper. Repeat the command until all networks are done.

    \b
    Example:
      edgeprune bench robustness --data data --recipe cifar10-lf
      edgeprune bench robustness --source cifar10:ROOT --device cuda --minutes 9
    """
    require_packages("torch", "pyautoattack")
    from ..robustness.run import attack_all

    attack_all(_request(**options), output, images=images, linf=linf, precision=precision)


@click.command(short_help="Loss around the weights and images of networks")
@_shared
@count("--images", 500, "Images over which the loss is averaged.")
@count("--directions", 5, "Random directions in which the weights are moved.", least=2)
@PICTURES
def landscape(output: Path, images: int, directions: int, pictures: Path, **options: Any) -> None:
    """Measure and draw the loss around weights and images, saliency maps (SmoothGrad), and kept images.

    The networks are those of `bench robustness`; they are trained if they do not exist yet.

    \b
    Example:
      edgeprune bench landscape --data data
    """
    require_packages("torch", "pyautoattack", "captum", "matplotlib")
    from ..robustness.pictures.measure import Settings, picture_all

    picture_all(Settings(images, directions), _request(**options), output, pictures)


@click.command(short_help="Attack a trained network, and check the report")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@MINUTES
@click.option("--source", required=True, help="Test images: imagefolder:PATH, cifar10:ROOT, npz:FILE.")
@_SCALE
@_ATTACKED
@_LINF
@_PRECISION
@DEVICE
@TRUST_MODEL
def attack(run: Path, source: str, scale: str, device: str, **options: Any) -> None:
    """Attack the network in RUN, a folder of `edgeprune train`, and check the report; resumable.

    Exits with an error if a control fails, because the figures cannot be trusted then.

    \b
    Example:
      edgeprune bench attack run --source imagefolder:photos
    """
    require_packages("torch", "pyautoattack")
    from ..robustness.run import device_of
    from ..robustness.single import attack_run

    attack_run(run, source, device=device_of(device), scale=_scale(scale, device), **options)


def _scale(scale: str, device: str) -> str:
    from ..robustness.run import device_of

    if scale != "auto":
        return scale
    return "paper" if device_of(device).type == "cuda" else "cpu"


def _request(data: Path | None, source: str | None, scale: str, **options: Any) -> Request:
    from ..robustness.run import Request

    spec = source or _own_images(options["recipe"], data, options["runs"])
    return Request(spec=spec, scale=_scale(scale, options["device"]), **options)


def _own_images(recipe: str, data: Path | None, runs: Path) -> str:
    from ..harness.images import decoded_cifar10

    name = recipe.partition("-")[0]
    if name == "digits":
        return "digits"
    if name != "cifar10" or data is None:
        raise click.UsageError(f"recipe {recipe} needs --source; a recipe of cifar10 can have --data instead")
    return f"npz:{decoded_cifar10(data, runs / 'cifar10-jpeg.npz')}"
