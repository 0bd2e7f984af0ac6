"""``edgeprune score``: one training run that records how hard each image is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.packs.config import BuildConfig
from edgeprune.scoring.config import ScoreConfig
from edgeprune.sources.naming.options import SourceOptions, with_options, without_options
from edgeprune.text import say
from edgeprune_formats import ConfigError
from edgeprune_formats.files import check_writable

from ...options.fields import FORCE, QUIET, Command, config_options, make_config, output_option
from ...options.parameters import say_warning
from ...options.torch import require_torch

if TYPE_CHECKING:
    import torch

    from edgeprune.sources import Source
    from edgeprune.work.processes import Workers

__all__ = ["command"]


@click.command("score", cls=Command)
@click.argument("source", default="digits")
@output_option("Scores file to write.", heading="What to read and write")
@config_options(BuildConfig, "size", "fast_jpeg", "channels", "skip_bad")
@config_options(SourceOptions, "image_column", "label_column", "split_column", "class_names")
@FORCE
@config_options(ScoreConfig, "model", "epochs", "every", "batch_size", "lr", heading="The scoring run")
@config_options(ScoreConfig, "weight_decay", "augment", "seed")
@config_options(ScoreConfig, "device", "jobs", "precision", "compile", heading="Machine")
@QUIET
def command(
    source: str,
    output: Path,
    size: int | None,
    channels: str,
    fast_jpeg: bool,
    skip_bad: bool,
    force: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how hard each image of SOURCE is, by one training run.

    The file holds what every score of edgeprune build needs (joint entropy, forgetting, EL2N, AUM, entropy,
    Dyn-Unc, DUAL), and the classifier for learning masks; edgeprune build --scores takes both. A stopped run
    continues when the same command is run again. SOURCE is as for edgeprune build. With N GPUs: torchrun
    --standalone --nproc-per-node N -m edgeprune score ...

    \b
    Example:
      edgeprune score imagefolder:photos --size 224 -o photos.scores.h5
      edgeprune build imagefolder:photos --size 224 --method jelf --scores photos.scores.h5 -o photos.h5
    """
    require_torch("scoring", "build")
    from edgeprune.scoring.run import run_scoring
    from edgeprune.sources import open_source
    from edgeprune.work.checking import check_shared
    from edgeprune.work.joining import joined
    from edgeprune.work.progress import EpochLines, progress_bars
    from edgeprune_runtime.system.machine import cpu_quota
    from edgeprune_runtime.training.placement import place

    _require_target(source, output)
    source = with_options(source, make_config(SourceOptions, options))
    with joined(options.pop("device")) as workers:
        quiet = quiet or workers.rank > 0
        config = make_config(ScoreConfig, options, device=workers.device)
        images = open_source(source, size=size, channels=channels, fast_jpeg=fast_jpeg)
        if not quiet:
            for note in getattr(images, "notes", ()):
                say_warning(note)
        # Before every image is read, which can take long.
        jobs = config.jobs or cpu_quota()
        device = place(config.training(config.model_for(images.shape))).device
        with _at_hand(images, output, device, workers, quiet=quiet, force=force) as images:
            with progress_bars(quiet) as tell:
                check = check_shared(images, skip_bad=skip_bad, jobs=jobs, workers=workers, progress=tell)
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
        say(_summary(output, records.provenance, len(records.rows)))


def _at_hand(
    source: Source, output: Path, device: torch.device, workers: Workers, *, quiet: bool, force: bool
) -> AbstractContextManager[Source]:
    """Give a source that keeps what the check decodes, unless the scores are there already."""
    from edgeprune.work.image_store import cached_if_large

    if output.exists() and not force:
        return nullcontext(source)
    tell = None if quiet else partial(say, err=True)
    return cached_if_large(source, output, device, workers=workers, tell=tell)


def _require_target(source: str, output: Path) -> None:
    """Raise if nothing can be written there, or if it would replace the source."""
    origin = without_options(source)[0].partition(":")[2]
    if origin and output.exists() and output.resolve() == Path(origin).resolve():
        raise ConfigError(f"{output} is the source; name another file")
    check_writable(output)


def _summary(output: Path, provenance: dict[str, Any], images: int) -> str:
    history = provenance["history"]
    recording = sum(epoch["record_seconds"] for epoch in history) / sum(epoch["seconds"] for epoch in history)
    return (
        f"{output}: {images:,} images, {provenance['classifier']['model']}, {len(history)} epochs, "
        f"training accuracy {history[-1]['accuracy']:.2%}, {recording:.1%} of the time in the records, "
        f"images on the {provenance['images_held']}"
    )
