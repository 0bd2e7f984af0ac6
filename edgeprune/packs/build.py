"""From a source of images to a pack: a line of steps, each of which takes what those before it gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.files import atomic_file, check_writable, sweep
from edgeprune_runtime.checks import shortened

from ..coresets.selection import Coreset, require_enough, select_images
from ..masks.selector import ComponentSelector, component_selector
from ..scoring.obtain import obtain_scores
from ..scoring.scores_file import ScoresFile
from ..sources import Source, SourceCheck, open_source, source_targets
from ..sources.check import require_classes
from ..work.callbacks import EpochProgress, StageProgress
from ..work.checking import check_shared
from ..work.processes import Workers
from ..work.temporary import artifact_path
from .config import METHODS, BuildConfig
from .encoding.encoder import Encoder, UnreadableError
from .encoding.tiles import laid_out, sample_size
from .planning.deduplication import LeftOut, left_out
from .planning.header import TakenOver, pack_header
from .planning.plan import Plan, Share
from .planning.prerequisites import Prerequisites, open_prerequisites
from .writing.assembly import build_part, make_folder, part_path, write_plan
from .writing.report import BuildReport, PartReport, build_report

if TYPE_CHECKING:
    from .encoding.teacher import PackTeacher

__all__ = ["build_pack", "build_share", "open_for_build"]

_Written = TypeVar("_Written")


def build_pack(
    source: str | Source,
    path: str | Path,
    config: BuildConfig | None = None,
    *,
    scores: str | Path | None = None,
    classifier: str | Path | None = None,
    fse_net: str | Path | None = None,
    teacher: str | Path | PackTeacher | None = None,
    beside: str | Path | None = None,
    tile_trial: Mapping[str, Any] | None = None,
    jobs: int = 1,
    taken_over: TakenOver | None = None,
    duplicates_kept: Path | None = None,
    workers: Workers | None = None,
    progress: StageProgress | None = None,
    report: EpochProgress | None = None,
) -> BuildReport:
    """Build a pack, in bounded memory; it appears under its name only when it is complete.

    Every image is read once, by `jobs` threads, also those that are not chosen: the pack names the content of
    its source. Where scores are made or masks learned, where images that cannot be read are left out and
    there are such, and to find duplicates, all are read once before. A method that needs scores or masks
    makes them where they are not given, and keeps them beside the pack as ``NAME.scores.h5`` and
    ``NAME.fse-net.safetensors``. A build of learned masks that was stopped goes on when it is called again
    with the same arguments.

    Parameters
    ----------
    source : str or Source
        A text that `edgeprune.open_source` takes, or an object with the `edgeprune.sources.Source` interface.
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
    teacher : path or PackTeacher, optional
        The folder of a run, whose probabilities for each kept image the pack stores as its target
        ``teacher``, for `TrainConfig.distill`; see `edgeprune.packs.encoding.teacher.teacher_column`. It
        sees the original pixels, at the pack's size, and their mirror image; the mean is stored. Classes are
        matched by name. An object is kept over several builds, which ask it once of each image.
    beside : path, optional
        The pack after which files made on the way are named, if not `path`.
    tile_trial : mapping, optional
        ``tile`` of the provenance of a pack built of these images before: then tiles are not tried again.
    jobs : int
        Threads that read and encode images; the pack is the same for any number. A source that is an object
        must then let several threads read at once. ``edgeprune build`` takes as many as it has cores.
    taken_over : TakenOver, optional
        What the header has of other packs, see `edgeprune.packs.addition`; for methods without learned masks.
    duplicates_kept : Path, optional
        A file that keeps which duplicates were found, for another build of these images.
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
        Scoring or learning masks failed, or was stopped; or the teacher's run holds no network.
    """
    started = time.perf_counter()
    config, path = config or BuildConfig(), Path(path)
    workers = workers or Workers(device=config.device)
    progress = progress if workers.rank == 0 else None
    run = _Run(Path(beside or path), jobs, workers, progress, report, duplicates_kept)
    check_writable(path)
    source = open_for_build(source, config)
    sweep(path)
    given = open_prerequisites(
        source, config, workers, scores, classifier, fse_net, teacher=teacher, taken_over=taken_over
    )
    with _at_hand(source, given, run) as images:
        plan, skipped = _built(
            images, config, given, run, lambda plan: write_plan(plan, path, workers, progress), tile_trial
        )
    done = build_report(path, source, skipped, plan.artifacts, time.perf_counter() - started)
    if given.teacher is None or given.teacher.teacher.stage is None:
        return done
    return replace(done, notes=(*done.notes, f"{given.teacher.teacher.path}: {given.teacher.teacher.stage}"))


def build_share(
    source: str | Source,
    folder: str | Path,
    share: Share,
    config: BuildConfig | None = None,
    *,
    scores: str | Path | None = None,
    fse_net: str | Path | None = None,
    teacher: str | Path | PackTeacher | None = None,
    jobs: int = 1,
    progress: StageProgress | None = None,
) -> PartReport:
    """Build one part of a pack into a folder; `edgeprune.packs.writing.assembly.assemble` joins them.

    Tasks need to know nothing of each other: each makes the same choice of images and encodes its own. Scores
    and masks are made once, before, and given to all.

    Parameters
    ----------
    source, config, scores, fse_net, teacher, jobs, progress
        See `build_pack`; the same for all parts.
    folder : path
        Where the parts are; made if it is not there.
    share : Share
        Which part.

    Returns
    -------
    PartReport

    Raises
    ------
    ConfigError
        A method that needs scores or masks that are not given, or more parts than chunks; otherwise as
        `build_pack`.
    SourceError, ArtifactError, PackWriteError
        See `build_pack`.
    """
    config, folder = config or BuildConfig(), Path(folder)
    source = open_for_build(source, config)
    workers = Workers(device=config.device)
    given = open_prerequisites(source, config, workers, scores, None, fse_net, teacher=teacher)
    if given.trains:
        raise ConfigError(
            f"method {config.method} needs `scores` or an `fse_net` that all parts share; make them first, "
            "with edgeprune score, or by building a pack of a few images"
        )
    make_folder(folder)
    run = _Run(folder, jobs, workers, progress, None, folder / "duplicates.npz", folder / "readable.npz")
    plan, made = _built(source, config, given, run, lambda plan: build_part(plan, folder, share, progress))
    return PartReport(part_path(folder, share), plan.images(share), plan.header.samples, made)


@dataclass(frozen=True)
class _Run:
    """How a build runs, on which its pack does not depend; see `build_pack`.

    `progress` is that of the first process. `duplicates_kept` and `readable_kept`, where they are named,
    keep what a pass over all images has found, for other builds of them.
    """

    beside: Path
    jobs: int
    workers: Workers
    progress: StageProgress | None
    report: EpochProgress | None
    duplicates_kept: Path | None = None
    readable_kept: Path | None = None


def _built(
    source: Source,
    config: BuildConfig,
    given: Prerequisites,
    run: _Run,
    write: Callable[[Plan], _Written],
    tile_trial: Mapping[str, Any] | None = None,
) -> tuple[Plan, _Written]:
    """Plan and write. Where that meets images which are to be left out, read all, then do both again."""
    if config.skip_bad and run.readable_kept is not None and run.readable_kept.exists():
        check = SourceCheck.from_bytes(run.readable_kept.read_bytes())
    elif given.trains or (config.skip_bad and config.drop_duplicates):
        check = _checked(source, config, run)
    else:
        check = None
    try:
        plan = _plan_build(source, check, config, given, run, tile_trial)
        return plan, write(plan)
    except UnreadableError:
        plan = _plan_build(source, _checked(source, config, run), config, given, run, tile_trial)
        return plan, write(plan)


def _checked(source: Source, config: BuildConfig, run: _Run) -> SourceCheck:
    """Read all images, and keep what was found where others need it: they need not do so as well."""
    check = check_shared(
        source, skip_bad=config.skip_bad, jobs=run.jobs, workers=run.workers, progress=run.progress
    )
    if run.readable_kept is not None:
        with atomic_file(run.readable_kept) as partial:
            partial.write_bytes(check.to_bytes())
    return check


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The images of a pack: rows that can be read, duplicates that are left out, scores, and the coreset."""

    good: NDArray[np.integer[Any]]
    twins: LeftOut | None
    scores: ScoresFile | None
    coreset: Coreset


def _choose(
    source: Source, check: SourceCheck | None, config: BuildConfig, given: Prerequisites, run: _Run
) -> _Chosen:
    """Find duplicates, obtain scores where the method needs them, and choose the images."""
    method, workers, jobs = METHODS[config.method], run.workers, run.jobs
    if check is not None:
        good = check.good
    else:
        good = np.arange(len(source)) if given.scores is None else given.scores.rows
        require_classes(source, good[good < len(source)], ())
    twins = None
    if config.drop_duplicates:
        # Rows of scores of another source are refused later.
        looked_at = good[good < len(source)]
        kept = run.duplicates_kept
        twins = left_out(source, looked_at, jobs=jobs, workers=workers, progress=run.progress, kept=kept)
    if method.scored_images:
        free = good if twins is None else np.setdiff1d(good, twins.rows)
        require_enough(source, free, sample_prune=config.images_dropped, config=config.coreset)
    scores = None
    if given.needs_scores:
        scores = obtain_scores(
            source,
            check,
            artifact_path(run.beside, ".scores.h5"),
            replace(config.scoring, device=workers.device, jobs=jobs),
            given=given.scores,
            workers=workers,
            report=run.report,
        )
    coreset = select_images(
        source,
        good,
        sample_prune=config.images_dropped,
        seed=config.seed,
        scores=scores if method.scored_images else None,
        config=config.coreset,
        sha256=None if check is None else check.sha256,
        left_out=None if twins is None else twins.rows,
    )
    return _Chosen(good, twins, scores, coreset)


def _selector(
    source: Source,
    check: SourceCheck | None,
    config: BuildConfig,
    given: Prerequisites,
    run: _Run,
    scores: ScoresFile | None,
) -> ComponentSelector:
    """Return what selects the components: energy, or an FSE-Net that is given or learned."""
    return component_selector(
        source,
        check,
        artifact_path(run.beside, ".fse-net.safetensors"),
        config.masks if METHODS[config.method].learned_masks else None,
        freq_prune=config.components_dropped,
        seed=config.seed,
        given=given.fse_net,
        classifier=given.classifier,
        scores=scores,
        workers=run.workers,
        report=run.report,
        jobs=run.jobs,
    )


def _plan_build(
    source: Source,
    check: SourceCheck | None,
    config: BuildConfig,
    given: Prerequisites,
    run: _Run,
    tile_trial: Mapping[str, Any] | None,
) -> Plan:
    """Take the line from a source, of which all images were read or not, to what is to be written."""
    chosen = _choose(source, check, config, given, run)
    coreset, scores = chosen.coreset, chosen.scores
    selector = _selector(source, check, config, given, run, scores)
    whole = selector.file is None and selector.components == source.shape[1] * source.shape[2]
    select = None if whole else selector.select
    encoder = Encoder(source, select, selector.file, config.rounding, config.skip_bad, given.teacher)
    header = laid_out(
        pack_header(source, coreset, selector, config, given.taken_over, chosen.twins, given.teacher),
        config.given_tile,
        lambda: encoder.sample(config.codec, coreset.rows[: sample_size(*source.shape[1:])]),
        rounding=config.rounding,
        workers=run.workers,
        trial=tile_trial,
    )
    made = ((None if scores is None else scores.path, given.scores), (selector.file, given.fse_net))
    return Plan(
        source=source,
        encoder=encoder,
        header=header,
        coreset=coreset,
        compression=config.compression,
        check=check,
        unreadable=np.setdiff1d(np.arange(len(source)), chosen.good),
        scored_sha256="" if scores is None else str(scores.provenance["source"]["sha256"]),
        jobs=run.jobs,
        targets=source_targets(source) if given.taken_over is None else given.taken_over.targets,
        keep_statistics=given.taken_over is not None,
        artifacts=tuple(file for file, known in made if file is not None and known is None),
    )


def _at_hand(source: Source, given: Prerequisites, run: _Run) -> AbstractContextManager[Source]:
    """Give a source that decodes each image once, where networks train on more than memory holds."""
    if not given.trains:
        return nullcontext(source)
    from edgeprune_runtime.training.placement import place
    from edgeprune_runtime.training.settings import TrainConfig

    from ..work.image_store import cached_if_large

    device = place(TrainConfig(device=run.workers.device)).device
    return cached_if_large(source, run.beside, device, workers=run.workers)


def open_for_build(spec: str | Source, config: BuildConfig, planes: int | None = None) -> Source:
    """Open a source, unless it is one, as a build does; raises `ConfigError` and `SourceError`.

    `planes` is how many channels are needed, see `edgeprune.sources.channels.with_channels`.
    """
    if not isinstance(spec, str):
        if not hasattr(spec, "labels"):
            raise ConfigError(f"{shortened(spec)} is no source; name one in text, such as imagefolder:photos")
        return spec
    source = open_source(spec, **config.reading, planes=planes)
    if config.split == "test" and getattr(source, "undivided", False):
        raise ConfigError(
            f"{spec} has no test half, so `split=test` would pack all of it; name the test images themselves "
            "and leave `split` out"
        )
    return source
