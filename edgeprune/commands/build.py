"""``edgeprune build``: from images to a pack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.scores import SCORES
from edgeprune.masks.config import MaskConfig
from edgeprune.packs.config import METHODS, BuildConfig
from edgeprune.scoring.config import ScoreConfig
from edgeprune.text import bytes_text
from edgeprune_formats import ConfigError
from edgeprune_formats.chunks import COMPRESSIONS
from edgeprune_formats.codecs import codec_names, get_codec
from edgeprune_formats.coefficients import SparseCoefficients
from edgeprune_formats.rounding import ROUNDINGS
from edgeprune_formats.tiles import COLOR_SPACES, TILES

from . import FORMER_NAMES
from .score import require_torch
from .train import AUGMENTS, MODELS

if TYPE_CHECKING:
    from edgeprune.packs.build import BuildReport

__all__ = ["command"]

EXISTING = click.Path(exists=True, path_type=Path)
METHODS_HELP = "; ".join(f"{name}: {method.describes}" for name, method in METHODS.items())
SCORES_HELP = "; ".join(f"{name}: {score.describes}" for name, score in SCORES.items())
CORESET = {"score", "sampling", "beta", "strata", "class_balance", "tau", "gamma", "window"}


@click.command("build", context_settings=FORMER_NAMES)
@click.argument("source", default="digits")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The pack to write.")
@click.option(
    "--method",
    type=click.Choice(tuple(METHODS)),
    default="energy",
    show_default=True,
    help=f"What is chosen, and how. {METHODS_HELP}.",
)
@click.option(
    "--freq-prune",
    type=float,
    help="Share of each image's components to drop.  [default: 0.5; 0 for random, je, energy with quantized]",
)
@click.option(
    "--sample-prune",
    type=float,
    help="Share of the images to leave out.  [default: 0; 0.5 for random, je, jelf]",
)
@click.option("--scores", type=EXISTING, help="Scores file of these images (edgeprune score).")
@click.option(
    "--classifier",
    type=EXISTING,
    help="Run of edgeprune train to learn masks against.",
)
@click.option("--fse-net", type=EXISTING, help="Choose components by this FSE-Net, learn none.")
@click.option(
    "--size",
    type=int,
    help="Resize the short side to this many pixels and crop the center.",
    metavar="PIXELS",
)
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--codec", type=click.Choice(codec_names()), default="sparse-f32", show_default=True)
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default="none",
    show_default=True,
    help="Lossless compression of the coefficients.",
)
@click.option("--quality", type=float, help="Of codec quantized, 1 to 100.  [default: 75]")
@click.option("--color", type=click.Choice(COLOR_SPACES), help="Of quantized.  [default: ycbcr]")
@click.option(
    "--tile",
    type=click.Choice(TILES),
    help="Tiles of quantized, in pixels.  [default: full up to 64 pixels, else 16]",
)
@click.option("--rounding", type=click.Choice(ROUNDINGS), help="Of quantized.  [default: rdo]")
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@click.option("--seed", type=int, default=0, show_default=True, help="Fixes the choice and order of images.")
@click.option("--device", default="auto", show_default=True, help="Of learning: auto, cpu, cuda or cuda:N.")
@click.option(
    "--score",
    type=click.Choice(tuple(SCORES)),
    default="joint_entropy",
    show_default=True,
    help=f"What je and jelf choose images by. {SCORES_HELP}.",
)
@click.option(
    "--sampling",
    type=click.Choice(["ccs", "top-k"]),
    default="ccs",
    show_default=True,
    help="Spread over the score's range, or its better end.",
)
@click.option("--beta", type=float, help="Share that CCS drops as too hard.  [default: as published]")
@click.option("--strata", type=int, default=50, show_default=True, help="Bins of CCS.")
@click.option("--class-balance", is_flag=True, help="Keep the classes' proportions.")
@click.option("--tau", type=float, default=2 / 3, show_default="2/3", help="Of joint entropy.")
@click.option("--gamma", type=float, default=0.99, show_default=True, help="Of joint entropy.")
@click.option("--window", type=int, default=3, show_default=True, help="Of joint entropy, in records.")
@click.option("--k", type=int, help="Components of highest energy that stay.  [default: as published]")
@click.option("--lambda", "accuracy_weight", type=float, help="Weight of accuracy.  [default: as published]")
@click.option("--mask-epochs", type=int, default=300, show_default=True)
@click.option("--mask-batch-size", type=int, default=128, show_default=True)
@click.option("--mask-lr", type=float, default=3e-4, show_default=True)
@click.option("--score-model", type=click.Choice(MODELS), help="Of a scoring run that is needed.")
@click.option("--score-epochs", type=int, default=200, show_default=True)
@click.option("--score-augment", type=click.Choice(AUGMENTS), default="crop+flip", show_default=True)
@click.option("--budget", help="Choose the quality so that the file has at most this size, e.g. 5MB.")
@click.option("--min-quality", type=float, help="With --budget: leave out images before quality falls below.")
@click.option("--force", is_flag=True, help="Replace the pack if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    source: str,
    output: Path,
    scores: Path | None,
    classifier: Path | None,
    fse_net: Path | None,
    device: str,
    budget: str | None,
    min_quality: float | None,
    force: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Build a pack from SOURCE.

    SOURCE is digits (small embedded images, the default), imagefolder:PATH (a folder with a folder of
    images for each class), npz:FILE (arrays x_train, y_train, ... or x, y), cifar10[:ROOT] or
    cifar100[:ROOT] (the official files, already unpacked).

    What the method does not choose is left out by energy (components) and at random, evenly from each class
    (images). An FSE-Net is learned against a classifier, by default that of the scoring run. Scores and masks
    that are not given are made, which is long work, and kept beside the pack as NAME.scores.h5 and
    NAME.fse-net.safetensors. A build that was stopped goes on when the same command is run again. With
    several GPUs: torchrun --standalone --nproc-per-node N -m edgeprune build ...

    \b
    Example:
      edgeprune build imagefolder:photos --size 224 --freq-prune 0.7 --sample-prune 0.5 -o photos.h5
      edgeprune build imagefolder:photos --size 224 --method jelf --scores photos.scores.h5 -o photos.h5
    """
    from edgeprune.packs.build import build_pack
    from edgeprune.work.joining import joined
    from edgeprune.work.progress import EpochLines, progress_bars

    inputs = {"source": Path(source.partition(":")[2]), "scores file": scores}
    _require_use(options, {"scores": scores, "classifier": classifier, "fse_net": fse_net})
    _require_spare(output, force, {**inputs, "classifier": classifier, "FSE-Net": fse_net})
    method = METHODS[options["method"]]
    if method.learned_masks or (method.scored_images and scores is None):
        require_torch()
    with joined(device) as workers:
        quiet = quiet or workers.rank > 0
        config = _config(options, workers.device)
        given: dict[str, Any] = {
            "scores": scores,
            "classifier": classifier,
            "fse_net": fse_net,
            "workers": workers,
        }
        with progress_bars(quiet) as tell:
            build = partial(build_pack, source, **given, progress=tell, report=EpochLines(quiet))
            report, choice = _build(build, output, config, budget, min_quality, workers.count)
    if not quiet:
        _print(report)
        if choice:
            click.echo(choice)


def _build(
    build: Callable[[Path, BuildConfig], BuildReport],
    output: Path,
    config: BuildConfig,
    budget: str | None,
    min_quality: float | None,
    processes: int,
) -> tuple[BuildReport, str]:
    """Build once, or as often as it takes to fill the budget; return also what was chosen and why."""
    if budget is None:
        if min_quality is not None:
            raise click.UsageError("--min-quality needs --budget", click.get_current_context())
        return build(output, config), ""
    from edgeprune.commands._sizes import parse_size
    from edgeprune.packs.budget import build_within
    from edgeprune.packs.quality import quantization_step

    if processes > 1:
        raise ConfigError("--budget builds repeatedly, in one process; leave torchrun out")
    if min_quality is not None:
        quantization_step(min_quality)
    fit = build_within(build, output, config, parse_size(budget), min_quality=min_quality)
    share = fit.bytes / fit.budget
    return fit.report, (
        f"budget {fit.budget:,} B: {fit.bytes:,} B, {share:.1%} of it, after {fit.builds} builds; {fit.why}"
    )


def _require_use(options: dict[str, Any], files: dict[str, Path | None]) -> None:
    """Raise `UsageError` for an option that the method would not look at."""
    context = click.get_current_context()
    method = METHODS[options["method"]]
    scored, learns = method.scored_images, method.learned_masks and files["fse_net"] is None
    scores = files["scores"] is None and (scored or (learns and files["classifier"] is None))
    uses = {
        **dict.fromkeys(CORESET, scored),
        **dict.fromkeys(("tau", "gamma", "window"), scored and options["score"] == "joint_entropy"),
        **dict.fromkeys(("beta", "strata"), scored and options["sampling"] == "ccs"),
        **dict.fromkeys(("k", "accuracy_weight", "mask_epochs", "mask_batch_size", "mask_lr"), learns),
        **dict.fromkeys(("score_model", "score_epochs", "score_augment"), scores),
    }
    given = [p for p in context.command.params if p.name in uses and not uses[p.name] and _is_given(p.name)]
    if given:
        raise click.UsageError(f"{given[0].opts[0]} has no effect here; leave it out", context)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def _require_spare(output: Path, force: bool, inputs: dict[str, Path | None]) -> None:
    """Raise `ConfigError` where writing the pack would replace what is not to be replaced."""
    if not output.exists() or output.is_dir():
        return
    if not force:
        raise ConfigError(f"{output} exists; pass --force to replace it")
    for name, path in inputs.items():
        if path is not None and output.resolve() == path.resolve():
            raise ConfigError(f"{output} is the {name}; name another file")


def _config(options: dict[str, Any], device: str) -> BuildConfig:
    coreset = CoresetConfig(**{name: options.pop(name) for name in CORESET})
    masks = MaskConfig(
        epochs=options.pop("mask_epochs"),
        batch_size=options.pop("mask_batch_size"),
        lr=options.pop("mask_lr"),
        k=options.pop("k"),
        accuracy_weight=options.pop("accuracy_weight"),
    )
    scoring = ScoreConfig(
        model=options.pop("score_model"),
        epochs=options.pop("score_epochs"),
        augment=options.pop("score_augment"),
        seed=options["seed"],
    )
    return BuildConfig(device=device, coreset=coreset, masks=masks, scoring=scoring, **options)


def _print(report: BuildReport) -> None:
    for message in report.skipped:
        click.echo(f"skipped {message}")
    header = report.header
    if report.empty_classes:
        names = ", ".join(report.empty_classes[:3]) + (", ..." if len(report.empty_classes) > 3 else "")
        click.echo(
            f"warning: no image was kept of {len(report.empty_classes):,} of the classes ({names}); "
            "lower --sample-prune, or pass --class-balance with je or jelf",
            err=True,
        )
    for path in report.artifacts:
        click.echo(f"{path}: kept, can be used again")
    images = f"{header.samples:,} images of {header.height}x{header.width}"
    of = header.height * header.width
    if report.skipped:
        images += f" ({len(report.skipped):,} unreadable ones skipped)"
    size = report.path.stat().st_size
    each = SparseCoefficients.image_bytes(header) if get_codec(header.codec).exact else size / header.samples
    click.echo(
        f"{report.path}: {images}, {header.components} of {of} components a channel "
        f"({each:,.0f} B an image), {report.psnr:.1f} dB, {bytes_text(size)}, in {report.seconds:.1f} s"
    )
