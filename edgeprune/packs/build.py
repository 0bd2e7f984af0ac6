"""From a source of images to a pack: a line of steps, each of which takes what those before it gave."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from edgeprune_formats import ConfigError
from edgeprune_formats.files import check_writable, sweep

from ..coresets.selection import require_enough, select_images
from ..masks.selector import component_selector
from ..scoring.obtain import obtain_scores
from ..sources import Source, open_source
from ..work.callbacks import EpochProgress, StageProgress
from ..work.checking import check_shared
from ..work.processes import Workers
from ..work.temporary import work_folder
from .config import METHODS, BuildConfig
from .encoding import Encoder, encoded_parts, remove_parts
from .header import pack_header
from .layout import laid_out, sample_size
from .prerequisites import open_prerequisites
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
    config = config or BuildConfig()
    method = METHODS[config.method]
    path, workers = Path(path), workers or Workers(device=config.device)
    beside = Path(beside or path)
    progress = progress if workers.rank == 0 else None
    check_writable(path)
    source = _open(source, config) if isinstance(source, str) else source
    folder = work_folder(path)
    sweep(path)
    given = open_prerequisites(source, config, workers, scores, classifier, fse_net)
    check = check_shared(source, skip_bad=config.skip_bad, workers=workers, progress=progress)
    if method.scored_images:
        require_enough(source, check, sample_prune=config.images_dropped, config=config.coreset)
    scored = None
    if given.needs_scores:
        scoring = replace(config.scoring, device=workers.device)
        scores_path = beside.with_suffix(".scores.h5")
        scored = obtain_scores(
            source, check, scores_path, scoring, given=given.scores, workers=workers, report=report
        )
    coreset = select_images(
        source,
        check,
        sample_prune=config.images_dropped,
        seed=config.seed,
        scores=scored if method.scored_images else None,
        config=config.coreset,
    )
    selector = component_selector(
        source,
        check,
        beside.with_suffix(".fse-net.safetensors"),
        config.masks if method.learned_masks else None,
        freq_prune=config.components_dropped,
        seed=config.seed,
        given=given.fse_net,
        classifier=given.classifier,
        scores=scored,
        workers=workers,
        report=report,
    )
    encoder = Encoder(source, coreset.rows, selector.select)
    header = laid_out(
        pack_header(source, check, coreset, selector, config),
        config.given_tile,
        lambda: encoder.sample(sample_size(*source.shape[1:])),
        rounding=config.rounding,
        workers=workers,
    )
    parts = encoded_parts(encoder, selector, header, folder, workers, progress)
    if workers.rank == 0:
        labels = source.labels[coreset.rows]
        store_parts(path, header, labels, coreset, parts, config.compression, config.rounding, progress)
        remove_parts(folder)
    else:
        # They are in files, from which the first process stores them.
        for _ in parts:
            pass
    if workers.count > 1:
        workers.wait()
    made = ((scored.path if scored else None, given.scores), (selector.file, given.fse_net))
    artifacts = tuple(file for file, known in made if file is not None and known is None)
    return build_report(path, source, check, artifacts, time.perf_counter() - started)


def _open(spec: str, config: BuildConfig) -> Source:
    source = open_source(spec, split=config.split, size=config.size)
    if config.split == "test" and getattr(source, "undivided", False):
        raise ConfigError(
            f"{spec} has no test half, so `split=test` would pack all of it; name the test images themselves "
            "and leave `split` out"
        )
    return source
