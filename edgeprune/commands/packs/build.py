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
from edgeprune.sources import KINDS
from edgeprune.sources.naming.options import SourceOptions, with_options, without_options
from edgeprune.text import bytes_text, count_text, say
from edgeprune_formats import ConfigError

from ...options.fields import (
    EXISTING,
    FORCE,
    QUIET,
    Command,
    config_options,
    make_config,
    option,
    output_option,
)
from ...options.given import refuse_given
from ...options.networks import TRUST_MODEL
from ...options.output import require_spare
from ...options.parameters import say_skipped, say_warning
from ...options.sizes import size_option
from ...options.torch import require_torch
from ._parts import assemble_parts, build_on_engine, build_one_part, parse_share, require_alone

if TYPE_CHECKING:
    from edgeprune.packs.planning.plan import Share
    from edgeprune.packs.writing.report import BuildReport

__all__ = ["command"]

SCORING = "The scoring run, where no --scores are given"


@click.command("build", cls=Command)
@click.argument("source", default="digits")
@output_option("Pack file to write.", heading="What to read and write")
@config_options(BuildConfig, "size", "fast_jpeg", "channels", "split", "skip_bad")
@config_options(SourceOptions)
@FORCE
@config_options(
    BuildConfig, "method", "sample_prune", "freq_prune", "drop_duplicates", heading="What to keep"
)
@option("--scores", type=EXISTING, help="Scores file of these images, made by edgeprune score.")
@option(
    "--classifier", type=EXISTING, help="Run of edgeprune train whose network the FSE-Net is trained against."
)
@TRUST_MODEL
@option("--fse-net", type=EXISTING, help="Choose components by this FSE-Net; do not train one.")
@option(
    "--teacher",
    type=EXISTING,
    metavar="RUN",
    help="Store the class probabilities of this run's network for each image, for edgeprune train --distill.",
)
@config_options(BuildConfig, "quality", heading="How to store it")
@size_option("--budget", "Choose the quality for a file of at most this size, e.g. 5MB.")
@option(
    "--min-quality", type=float, help="Lowest quality for --budget; below it, images are left out instead."
)
@config_options(BuildConfig, "codec", "tile", "color", "rounding", "compression")
@config_options(CoresetConfig, heading="Images by score (methods je, jelf)")
@config_options(ScoreConfig, "model", "epochs", "augment", prefix="score_", heading=SCORING)
@config_options(MaskConfig, prefix="mask_", heading="Components by FSE-Net (methods lf, jelf)")
@config_options(BuildConfig, "seed", "device", heading="Run")
@option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that read and encode images; any number gives the same pack.  [default: all cores]",
)
@QUIET
@option(
    "--part",
    metavar="K/N",
    callback=parse_share,
    help="Build only part K of N (K from 1) into the folder -o.",
    heading="In parts, on several machines",
)
@option("--assemble", type=EXISTING, metavar="DIR", help="Join the parts in DIR into the pack -o.")
@option("--engine", metavar="ray[:ADDRESS]", help="Let Ray build the parts, on this machine or on a cluster.")
@option("--parts", type=click.IntRange(min=1), metavar="N", help="Number of parts for --engine.")
def command(
    source: str,
    output: Path,
    scores: Path | None,
    classifier: Path | None,
    fse_net: Path | None,
    teacher: Path | None,
    budget: int | None,
    min_quality: float | None,
    force: bool,
    quiet: bool,
    jobs: int | None,
    part: Share | None,
    assemble: Path | None,
    engine: str | None,
    parts: int | None,
    **options: Any,
) -> None:
    """Build a pack from SOURCE.

    SOURCE is {sources}.

    A pack can leave out frequency components and images. Components are chosen by energy, and images at
    random, evenly from each class, unless --method says otherwise. An FSE-Net is a network that learns which
    components a classifier needs; by default this is the classifier of the scoring run. Scores and masks that
    you do not give are computed. This takes long. They are kept beside the pack as NAME.scores.h5 and
    NAME.fse-net.safetensors, and a stopped build continues when the same command is run again. With several
    GPUs: torchrun --standalone --nproc-per-node N -m edgeprune build ...

    \b
    Example:
      edgeprune build imagefolder:photos --size 224 --freq-prune 0.7 --sample-prune 0.5 -o photos.h5
      edgeprune build 'webdataset:train-{000..015}.tar' --size 224 -o photos.h5
      edgeprune build imagefolder:photos --size 224 --method jelf --scores photos.scores.h5 -o photos.h5
      edgeprune build imagefolder:photos --size 224 --teacher run --budget 1MB -o photos.h5
    """
    from edgeprune_runtime.system.machine import cpu_quota

    given: dict[str, Any] = {"scores": scores, "classifier": classifier, "fse_net": fse_net}
    given["teacher"] = teacher
    if assemble is not None:
        require_alone("--assemble", "force")
        require_spare(output, force)
        assemble_parts(assemble, output, quiet)
        return
    _require_use(options, given)
    _require_budget(budget, min_quality)
    _require_parts(part, engine, parts, budget, classifier)
    inputs = {"scores file": scores, "classifier": classifier, "FSE-Net": fse_net, "teacher": teacher}
    if part is None:
        require_spare(output, force, {"source": Path(without_options(source)[0].partition(":")[2]), **inputs})
    source = with_options(source, make_config(SourceOptions, options))
    jobs = jobs or cpu_quota()
    if teacher is not None:
        require_torch("a teacher", "build")
    if part is not None or engine is not None:
        del given["classifier"]
        config = _config(options, options.pop("device"))
        if part is not None:
            build_one_part(source, output, part, config, quiet, jobs=jobs, **given)
            return
        assert engine is not None
        assert parts is not None
        report = build_on_engine(engine, source, output, config, parts, quiet, jobs=jobs, **given)
        if not quiet:
            _print(report, budget)
        return
    _build_here(source, output, options, given, budget, min_quality, jobs, quiet)


_SOURCES = ", ".join(f"{kind.form} ({kind.describes})" for kind in KINDS.values())
command.help = (command.help or "").replace("{sources}", _SOURCES)


def _build_here(
    source: str,
    output: Path,
    options: dict[str, Any],
    given: dict[str, Any],
    budget: int | None,
    min_quality: float | None,
    jobs: int,
    quiet: bool,
) -> None:
    """Build in this process, or with those that torchrun started, and say what came of it."""
    from edgeprune.packs.build import build_pack
    from edgeprune.work.joining import joined
    from edgeprune.work.progress import EpochLines, progress_bars

    method = METHODS[options["method"]]
    if method.learned_masks or (method.scored_images and given["scores"] is None):
        require_torch(f"method {options['method']}", "build")
    with joined(options.pop("device")) as workers:
        quiet = quiet or workers.rank > 0
        config = _config(options, workers.device)
        if given["teacher"] is not None and budget is not None:
            from edgeprune.packs.encoding.teacher import PackTeacher

            # Asked once of each image, however many packs are tried.
            given["teacher"] = PackTeacher(given["teacher"], workers.device, remember=True)
        with progress_bars(quiet) as tell:
            told: dict[str, Any] = {"workers": workers, "progress": tell, "report": EpochLines(quiet)}
            build = partial(build_pack, source, jobs=jobs, **given, **told)
            report, choice = _build(build, output, config, budget, min_quality, workers.count)
    if not quiet:
        _print(report, budget)
        if choice:
            say(choice)


def _require_parts(
    part: Share | None, engine: str | None, parts: int | None, budget: int | None, classifier: Path | None
) -> None:
    """Raise `UsageError` for options of parts that do not go together."""
    context = click.get_current_context()
    if (engine is None) != (parts is None):
        raise click.UsageError("--engine and --parts need each other", context)
    if part is not None and engine is not None:
        raise click.UsageError("--part makes one part without an engine; leave --engine out", context)
    if part is None and engine is None:
        return
    for flag, value in (("--budget", budget), ("--classifier", classifier)):
        if value is not None:
            raise click.UsageError(f"{flag} cannot be used with parts; leave it out", context)


def _require_budget(budget: int | None, min_quality: float | None) -> None:
    """Raise where `min_quality` has no use, or is none."""
    from edgeprune.packs.encoding.quality import quantization_step

    if min_quality is not None:
        if budget is None:
            raise click.UsageError("--min-quality needs --budget", click.get_current_context())
        quantization_step(min_quality, "min_quality")


def _build(
    build: Callable[[Path, BuildConfig], BuildReport],
    output: Path,
    config: BuildConfig,
    budget: int | None,
    min_quality: float | None,
    processes: int,
) -> tuple[BuildReport, str]:
    """Build once, or as often as it takes to fill the budget; return also what was chosen and why."""
    if budget is None:
        return build(output, config), ""
    from edgeprune.packs.budget import build_within

    if processes > 1:
        raise ConfigError("--budget builds repeatedly, in one process; leave torchrun out")
    fit = build_within(build, output, config, budget, min_quality=min_quality)
    share = fit.bytes / fit.budget
    return fit.report, (
        f"budget {fit.budget:,} B: {fit.bytes:,} B, {share:.1%} of it, after {fit.builds} builds; {fit.why}"
    )


def _require_use(options: dict[str, Any], files: dict[str, Path | None]) -> None:
    """Raise `UsageError` for an option that the method would not look at."""
    method = METHODS[options["method"]]
    scored, learns = method.scored_images, method.learned_masks and files["fse_net"] is None
    scores = files["scores"] is None and (scored or (learns and files["classifier"] is None))
    score = options["score"]
    ccs = (options["sampling"] or SCORES[score].sampling) == "ccs"
    uses = {
        **dict.fromkeys(("tau", "gamma", "window"), scored and score == "joint_entropy"),
        **dict.fromkeys(("beta", "strata"), scored and ccs),
        "dual_epochs": scored and score == "dual",
    }
    by_config = {CoresetConfig: scored, MaskConfig: learns, ScoreConfig: scores}
    unused = [
        param.name
        for param in click.get_current_context().command.params
        if not uses.get(param.name or "", by_config.get(getattr(param, "config", type(None)), True))
    ]
    refuse_given(unused, "here")


def _config(options: dict[str, Any], device: str) -> BuildConfig:
    parts: dict[str, Any] = {
        "coreset": make_config(CoresetConfig, options),
        "masks": make_config(MaskConfig, options),
        "scoring": make_config(ScoreConfig, options, seed=options["seed"]),
    }
    return make_config(BuildConfig, options, device=device, **parts)


def _print(report: BuildReport, budget: int | None) -> None:
    from edgeprune.packs.planning.deduplication import left_out_text

    say_skipped(report.skipped)
    header = report.header
    if report.empty_classes:
        names = ", ".join(report.empty_classes[:3]) + (", ..." if len(report.empty_classes) > 3 else "")
        remedy = "lower `sample_prune`" if budget is None else "raise `budget`"
        say_warning(
            f"no image was kept of {len(report.empty_classes):,} of the classes ({names}); "
            f"{remedy}, or pass `class_balance` with je or jelf"
        )
    if (facts := header.provenance.get("duplicates")) is not None:
        say(left_out_text(facts))
    for path in report.artifacts:
        say(f"{path}: kept, can be used again")
    images = f"{count_text(header.samples, 'image')} of {header.height}x{header.width}"
    if report.skipped:
        images += f" ({len(report.skipped):,} skipped as unreadable)"
    classes = f" in {report.classes:,} class{'' if report.classes == 1 else 'es'}" if report.classes else ""
    kept, of = header.components, header.height * header.width
    components = "" if kept == of else f"{kept:,} of {of:,} components a channel, "
    say(
        f"{report.path}: {images}{classes}{report.targets_text}, {components}"
        f"{report.bytes_per_image:,.0f} B an image (its source {report.source_bytes_per_image:,.0f}), "
        f"{report.psnr:.1f} dB, {bytes_text(report.path.stat().st_size)}, in {report.seconds:.1f} s"
    )
    for warning in report.warnings:
        say_warning(warning)
