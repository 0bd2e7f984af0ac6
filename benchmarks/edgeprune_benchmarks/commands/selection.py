"""The commands ``build``, ``accuracy``, ``coresets``, ``masks`` and ``learning``."""

from __future__ import annotations

from pathlib import Path

import click

from ..harness.options import DATA, MINUTES, OUTPUT

__all__ = ["accuracy", "build", "coresets", "learning", "masks"]

IMAGES = click.option(
    "--images",
    type=click.Choice(["lossless", "jpeg"]),
    default="lossless",
    show_default=True,
    help="5085 images in their exact pixels, or the JPEG copy of all 50,000.",
)
RUNS = click.option("--runs", type=click.Path(path_type=Path), help="Folder of runs.  [default: runs/NAME]")


@click.command()
@DATA
@OUTPUT
def build(data: Path, output: Path) -> None:
    """Time and peak memory of building packs; size and PSNR at each pruning ratio."""
    from ..codec.build import run

    run(data, output)


@click.command()
@DATA
@OUTPUT
@click.option("--epochs", type=int, default=5, show_default=True)
@click.option("--seeds", type=int, default=1, show_default=True, help="Runs of each network.")
@click.option("--device", default="auto", show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default="runs/accuracy", show_default=True)
def accuracy(data: Path, output: Path, epochs: int, seeds: int, device: str, runs: Path) -> None:
    """Test accuracy of networks trained from a 50% pack and from the original pixels; resumable."""
    from ..selection.accuracy import run

    run(data, output, epochs=epochs, seeds=seeds, device=device, runs=runs)


@click.command()
@DATA
@OUTPUT
@IMAGES
@RUNS
@MINUTES
@click.option("--model", default="resnet8", show_default=True, help="Scored with, and trained.")
@click.option("--iterations", type=int, default=500, show_default=True, help="Of every network.")
@click.option("--batch-size", type=int, default=64, show_default=True)
@click.option("--lr", type=float, default=0.05, show_default=True)
@click.option("--score-epochs", type=int, default=40, show_default=True)
@click.option("--every", type=int, default=1, show_default=True, help="Epochs between records of entropies.")
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
def coresets(
    data: Path,
    output: Path,
    images: str,
    runs: Path | None,
    minutes: float | None,
    model: str,
    iterations: int,
    batch_size: int,
    lr: float,
    score_epochs: int,
    every: int,
    seeds: int,
    device: str,
) -> None:
    """Test accuracy of coresets by every score, and how scores agree; resumable.

    The recipe of the published figures needs a GPU: --images jpeg --model resnet18 --iterations 40000
    --batch-size 256 --lr 0.1 --score-epochs 200 --every 5 --device cuda.
    """
    from edgeprune.scoring.config import ScoreConfig

    from ..selection.coresets import Plan, run
    from ..selection.fixed_budget import Recipe

    name = f"coresets-{images}"
    runs = runs or Path("runs") / name
    scoring = ScoreConfig(
        model=model, epochs=score_epochs, every=every, batch_size=batch_size, lr=lr, device=device
    )
    recipe = Recipe(model, iterations, batch_size, lr, device)
    run(Plan(_source(data, images, runs), recipe, scoring, seeds, minutes), output, runs, name)


@click.command()
@DATA
@OUTPUT
@IMAGES
@RUNS
@MINUTES
@click.option("--model", default="resnet8", show_default=True, help="The classifier, and what is trained.")
@click.option("--score-epochs", type=int, default=40, show_default=True, help="Of the classifier.")
@click.option("--mask-epochs", type=int, default=20, show_default=True)
@click.option("--epochs", type=int, default=6, show_default=True, help="Of the networks trained from packs.")
@click.option("--batch-size", type=int, default=64, show_default=True)
@click.option("--lr", type=float, default=0.05, show_default=True, help="Of the classifier.")
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--device", default="auto", show_default=True)
def masks(
    data: Path,
    output: Path,
    images: str,
    runs: Path | None,
    minutes: float | None,
    model: str,
    score_epochs: int,
    mask_epochs: int,
    epochs: int,
    batch_size: int,
    lr: float,
    seeds: int,
    device: str,
) -> None:
    """Learned masks against energy masks at each ratio: entropy, accuracy, PSNR; resumable.

    The paper's scale needs a GPU: --images jpeg --model resnet18 --score-epochs 200 --mask-epochs 300
    --epochs 200 --batch-size 256 --lr 0.1 --device cuda.
    """
    from edgeprune.masks.config import MaskConfig
    from edgeprune.scoring.config import ScoreConfig

    from ..selection.masks import Plan, run

    name = f"masks-{images}"
    runs = runs or Path("runs") / name
    scoring = ScoreConfig(model=model, epochs=score_epochs, batch_size=batch_size, lr=lr, device=device)
    plan = Plan(
        source=_source(data, images, runs),
        scoring=scoring,
        masks=MaskConfig(epochs=mask_epochs),
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        seeds=seeds,
        device=device,
        minutes=minutes,
    )
    run(plan, output, runs, name)


@click.command()
@DATA
@OUTPUT
@click.option("--device", default="auto", show_default=True)
def learning(data: Path, output: Path, device: str) -> None:
    """Time and memory of scoring and of learning masks, an epoch at each image size."""
    from ..selection.learning import run

    run(data, output, device)


def _source(data: Path, images: str, runs: Path) -> str:
    from ..harness.images import decoded_cifar10, lossless

    path = lossless(data) if images == "lossless" else decoded_cifar10(data, runs / "cifar10-jpeg.npz")
    return f"npz:{path}"
