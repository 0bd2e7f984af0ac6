"""The commands ``build``, ``accuracy``, ``coresets``, ``issues``, ``masks`` and ``learning``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.scores import SCORES
from edgeprune.masks.config import MaskConfig
from edgeprune.options.fields import config_options
from edgeprune.options.given import refuse_given
from edgeprune.scoring.config import ScoreConfig
from edgeprune_runtime.training.settings import TrainConfig

from ..harness.options import (
    BATCH_SIZE,
    DATA,
    DEVICE,
    LEARNING_RATE,
    MINUTES,
    MODEL,
    OUTPUT,
    SEEDS,
    count,
    own_settings,
    result_name,
    runs,
    seeds,
)

__all__ = ["accuracy", "build", "coresets", "issues", "learning", "masks"]

IMAGES = click.option(
    "--images",
    type=click.Choice(["lossless", "jpeg"]),
    default="lossless",
    show_default=True,
    help="Training images: 5,085 in exact pixels, or all 50,000 as JPEG copies.",
)
RUNS = runs(None)
SCORE_EPOCHS = config_options(ScoreConfig, "epochs", prefix="score_", epochs={"default": 40})
EVERY = {"default": 1, "show_default": True, "help": "Record entropies every this many epochs."}


@click.command(short_help="Time and peak memory of building packs")
@DATA
@OUTPUT
@click.option("--scale", is_flag=True, help="Build a large data set in several ways instead; resumable.")
# Eight parts of whole chunks, and an image in each class.
@count("--images", 100_000, "With --scale: number of photographs of 224x224.", least=400)
@count("--small-images", 1_000_000, "With --scale: number of images of 32x32.")
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs/build-scale",
    show_default=True,
    help="With --scale: folder of JPEG files and finished measurements, from which the command resumes.",
)
def build(data: Path, output: Path, scale: bool, **options: Any) -> None:
    """Measure time and peak memory of building packs, and their size and PSNR at each pruning ratio.

    With --scale: build a large data set with one job, with two jobs, and in parts with Ray. Then build a pack
    of many small images; open it, verify it, read it in shuffled order, stop, and resume.

    \b
    Example:
      edgeprune bench build --data data --scale
      edgeprune bench build --data data --scale --images 1000 --small-images 10000 -o quick
    """
    if scale:
        from ..scale.run import run as run_scale

        run_scale(data, output, **options)
        return
    refuse_given(options, "without --scale")
    from ..codec.build import run

    run(data, output)


@click.command(short_help="Test accuracy from a pack and from original pixels")
@DATA
@OUTPUT
@runs("runs/accuracy")
@MINUTES
@config_options(TrainConfig, "model", model={"default": "efficientnet_b0"})
@config_options(TrainConfig, "epochs", epochs={"default": 4})
@BATCH_SIZE
@seeds(5)
@DEVICE
def accuracy(data: Path, output: Path, runs: Path, **options: Any) -> None:
    """Compare training from original pixels and from a pack with half of the components; resumable.

    All rows have the same initial weights, order of images and crops. A third row is a control: the same
    pixels, rounded to float16. Its difference from the original pixels is chance.

    \b
    Example:
      edgeprune bench accuracy --data data --model mobilenet_v2 --minutes 60
    """
    from ..selection.accuracy import Settings, run

    run(Settings(**options), data, output, runs)


@click.command(short_help="Test accuracy of coresets, for each score")
@DATA
@OUTPUT
@IMAGES
@RUNS
@MINUTES
@MODEL
@count("--iterations", 500, "Training steps of every network.")
@BATCH_SIZE
@LEARNING_RATE
@config_options(TrainConfig, "weight_decay", "label_smoothing", "ema")
@SCORE_EPOCHS
@config_options(ScoreConfig, "every", every=EVERY)
@count("--score-runs", 1, "Scoring runs; seeds use them in turn.")
@config_options(CoresetConfig, "dual_epochs")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(tuple(SCORES)),
    help="Only coresets by this score; may be repeated.",
)
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    type=float,
    help="Only coresets that leave out this share of the images; may be repeated.",
)
@SEEDS
@DEVICE
@config_options(TrainConfig, "precision")
@result_name(None, "coresets-IMAGES")
def coresets(
    data: Path,
    output: Path,
    images: str,
    runs: Path | None,
    iterations: int,
    score_epochs: int,
    every: int,
    name: str | None,
    label_smoothing: float,
    ema: float | None,
    methods: tuple[str, ...],
    ratios: tuple[float, ...],
    minutes: float | None,
    seeds: int,
    score_runs: int,
    dual_epochs: int,
    **training: Any,
) -> None:
    """Measure test accuracy of coresets by each score, and how the scores correlate; resumable.

    Every network sees the same number of images, iterations times batch size, whatever the size of its
    coreset. resnet9 has its own defaults, such as batches of 500, for options that are not given; the scoring
    run does not use them. The result is written after each network.

    The recipe of the published figures needs a GPU: --images jpeg --model resnet18 --iterations 40000
    --batch-size 256 --lr 0.1 --score-epochs 200 --every 5 --device cuda.
    """
    from ..selection.coresets import METHODS, RATIOS, Settings, run
    from ..selection.fixed_budget import Recipe

    name = name or f"coresets-{images}"
    runs = runs or Path("runs") / name
    scoring = ScoreConfig(epochs=score_epochs, every=every, **training)
    own = own_settings({"label_smoothing": label_smoothing, "ema": ema, **training})
    recipe = Recipe(iterations=iterations, brought=True, **own)
    settings = Settings(
        _source(data, images, runs),
        recipe,
        scoring,
        seeds,
        minutes,
        score_runs,
        methods or METHODS,
        ratios or RATIOS,
        dual_epochs,
    )
    run(settings, output, runs, name)


@click.command(short_help="How many wrong labels and near duplicates are found")
@DATA
@OUTPUT
@RUNS
@MINUTES
@MODEL
@config_options(ScoreConfig, "epochs", epochs={"default": 12})
@BATCH_SIZE
@LEARNING_RATE
@SEEDS
@DEVICE
def issues(
    data: Path, output: Path, runs: Path | None, minutes: float | None, seeds: int, **scoring: Any
) -> None:
    """Measure how many planted wrong labels and near duplicates `edgeprune issues` finds; resumable."""
    from ..selection.issues import Settings, run

    run(Settings(data, ScoreConfig(every=1, **scoring), seeds, minutes), output, runs or Path("runs/issues"))


@click.command(short_help="Learned masks against energy masks")
@DATA
@OUTPUT
@IMAGES
@RUNS
@MINUTES
@MODEL
@SCORE_EPOCHS
@config_options(MaskConfig, "epochs", prefix="mask_", epochs={"default": 20})
@config_options(
    TrainConfig, "epochs", epochs={"default": 6, "help": "Epochs of the networks trained from packs."}
)
@BATCH_SIZE
@config_options(
    ScoreConfig, "lr", lr={"default": TrainConfig.lr, "help": "Peak of the learning rate of the classifier."}
)
@SEEDS
@DEVICE
def masks(
    data: Path,
    output: Path,
    images: str,
    runs: Path | None,
    score_epochs: int,
    mask_epochs: int,
    lr: float,
    **options: Any,
) -> None:
    """Compare learned masks with energy masks at each pruning ratio: entropy, accuracy, PSNR; resumable.

    The paper's scale needs a GPU: --images jpeg --model resnet18 --score-epochs 200 --mask-epochs 300
    --epochs 200 --batch-size 256 --lr 0.1 --device cuda.
    """
    from ..selection.masks import Settings, run

    name = f"masks-{images}"
    runs = runs or Path("runs") / name
    shared = {key: options[key] for key in ("model", "batch_size", "device")}
    scoring = ScoreConfig(epochs=score_epochs, lr=lr, **shared)
    learned = MaskConfig(epochs=mask_epochs)
    run(Settings(_source(data, images, runs), scoring, learned, **options), output, runs, name)


@click.command(short_help="Time and memory of scoring and of learning masks")
@DATA
@OUTPUT
@DEVICE
def learning(data: Path, output: Path, device: str) -> None:
    """Measure time and memory of scoring and of learning masks, with small images and with photographs."""
    from ..selection.learning import run

    run(data, output, device)


def _source(data: Path, images: str, runs: Path) -> str:
    from ..harness.images import decoded_cifar10, lossless

    path = lossless(data) if images == "lossless" else decoded_cifar10(data, runs / "cifar10-jpeg.npz")
    return f"npz:{path}"
