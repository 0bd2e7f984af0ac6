"""From a source of images to a pack: a line of steps, each of which takes what those before it gave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.files import check_writable, sweep

from ..coresets.selection import Coreset, require_enough, select_images
from ..masks.selector import ComponentSelector, component_selector
from ..scoring.obtain import obtain_scores
from ..scoring.scores_file import ScoresFile
from ..sources import Source, SourceCheck, open_source
from ..work.callbacks import EpochProgress, StageProgress
from ..work.checking import check_shared
from ..work.processes import Workers
from ..work.temporary import artifact_path, work_folder
from .config import METHODS, BuildConfig
from .encoding import Encoder, encoded_parts, remove_parts
from .header import pack_header
from .layout import laid_out, sample_size
from .prerequisites import Prerequisites, open_prerequisites
from .report import BuildReport, build_report
from .storing import store_parts

__all__ = ["build_pack"]


def build_pack(
    source: str | Source,
    path: str | Path,
    config: BuildConfig | None = None,
    *,
    scores: str | Path | None = None,
    classifier: str | Path | None = None,
    fse_net: str | Path | None = None,
    beside: str | Path | None = None,
    tile_trial: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
    progress: StageProgress | None = None,
    report: EpochProgress | None = None,
) -> BuildReport:
    """Build a pack, in bounded memory; it appears under its name only when it is complete.

    Every image is read twice: once to check that all can be read, before anything is written, and once to
    be encoded. A method that needs scores or masks makes them where they are not given, and keeps them
    beside the pack as ``NAME.scores.h5`` and ``NAME.fse-net.safetensors``. A build that was stopped goes on
    when it is called again with the same arguments.

    Parameters
    ----------
    source : str or Source
        ``"digits"``, ``"cifar10[:ROOT]"``, ``"cifar100[:ROOT]"``, ``"imagefolder:PATH"``, ``"npz:FILE"``,
        or an object with the `edgeprune.sources.Source` interface.
    path : path
        The pack to write; an existing one is replaced when the new one is complete.
    config : BuildConfig, optional
        Defaults to ``BuildConfig()``.
    scores : path, optional
        A scores file of ``edgeprune score`` over the same images.
    classifier : path, optional
        The network that masks are learned against: a run of ``edgeprune train``, or its model file. By
        default that of the scoring run.
    fse_net : path, optional
        An FSE-Net learned before, to choose components without learning.
    beside : path, optional
        The pack after which files made on the way are named, if not `path`.
    tile_trial : mapping, optional
        ``tile`` of the provenance of a pack built of these images before: then tiles are not tried again.
    workers : Workers, optional
        The processes that share the work, from `edgeprune.work.joining.joined`.
    progress : callable, optional
        Called as ``progress(stage, images done, images in all)``.
    report : callable, optional
        Told of the epochs of scoring and mask learning, see `edgeprune.work.resumable.ResumableRun`.

    Returns
    -------
    BuildReport

    Raises
    ------
    ConfigError
        Unknown source, or a configuration that does not fit it.
    SourceError
        Images or labels that cannot be used.
    ArtifactError
        A scores file, classifier or FSE-Net that is damaged or not for these images.
    PackWriteError
        The pack cannot be written.
    TrainingError, TrainingInterrupted
        Scoring or learning masks failed, or was stopped.
    """
    started = time.perf_counter()
    config, path = config or BuildConfig(), Path(path)
    workers, beside = workers or Workers(device=config.device), Path(beside or path)
    progress = progress if workers.rank == 0 else None
    check_writable(path)
    source = _open(source, config) if isinstance(source, str) else source
    sweep(path)
    given = open_prerequisites(source, config, workers, scores, classifier, fse_net)
    check = check_shared(source, skip_bad=config.skip_bad, workers=workers, progress=progress)
    scored = _scores(source, check, config, given, beside, workers, report)
    coreset = _coreset(source, check, config, scored)
    selector = _selector(source, check, config, given, scored, beside, workers, report)
    encoder = Encoder(source, coreset.rows, selector.select)
    header = laid_out(
        pack_header(source, check, coreset, selector, config),
        config.given_tile,
        lambda: encoder.sample(sample_size(*source.shape[1:])),
        rounding=config.rounding,
        workers=workers,
        trial=tile_trial,
    )
    folder = work_folder(path)
    parts = encoded_parts(encoder, selector, header, folder, workers, progress)
    if workers.rank == 0:
        labels = source.labels[coreset.rows]
        store_parts(path, header, labels, coreset, parts, config.compression, config.rounding, progress)
        remove_parts(folder)
    else:
        # They are in files, from which the first process stores them.
        for _ in parts:
            pass
    workers.wait()
    made = ((scored.path if scored else None, given.scores), (selector.file, given.fse_net))
    artifacts = tuple(file for file, known in made if file is not None and known is None)
    return build_report(path, source, check, artifacts, time.perf_counter() - started)


def _scores(
    source: Source,
    check: SourceCheck,
    config: BuildConfig,
    given: Prerequisites,
    beside: Path,
    workers: Workers,
    report: EpochProgress | None,
) -> ScoresFile | None:
    """Return the scores that are given, or made beside the pack; None where the method needs none."""
    if METHODS[config.method].scored_images:
        require_enough(source, check, sample_prune=config.images_dropped, config=config.coreset)
    if not given.needs_scores:
        return None
    path, scoring = artifact_path(beside, ".scores.h5"), replace(config.scoring, device=workers.device)
    return obtain_scores(source, check, path, scoring, given=given.scores, workers=workers, report=report)


def _coreset(source: Source, check: SourceCheck, config: BuildConfig, scored: ScoresFile | None) -> Coreset:
    return select_images(
        source,
        check,
        sample_prune=config.images_dropped,
        seed=config.seed,
        scores=scored if METHODS[config.method].scored_images else None,
        config=config.coreset,
    )


def _selector(
    source: Source,
    check: SourceCheck,
    config: BuildConfig,
    given: Prerequisites,
    scored: ScoresFile | None,
    beside: Path,
    workers: Workers,
    report: EpochProgress | None,
) -> ComponentSelector:
    return component_selector(
        source,
        check,
        artifact_path(beside, ".fse-net.safetensors"),
        config.masks if METHODS[config.method].learned_masks else None,
        freq_prune=config.components_dropped,
        seed=config.seed,
        given=given.fse_net,
        classifier=given.classifier,
        scores=scored,
        workers=workers,
        report=report,
    )


def _open(spec: str, config: BuildConfig) -> Source:
    source = open_source(spec, split=config.split, size=config.size)
    if config.split == "test" and getattr(source, "undivided", False):
        raise ConfigError(
            f"{spec} has no test half, so `split=test` would pack all of it; name the test images themselves "
            "and leave `split` out"
        )
    return source
