"""From a source of images to a pack: a line of steps, each of which takes what those before it gave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune_formats import ConfigError
from edgeprune_formats.files import atomic_file, check_writable, sweep

from ..sources import Source, SourceCheck, open_source
from ..work.callbacks import EpochProgress, StageProgress
from ..work.processes import Workers
from .config import BuildConfig
from .encoding.encoder import UnreadableError
from .planning.header import TakenOver
from .planning.plan import Share
from .planning.prerequisites import Prerequisites, open_prerequisites
from .steps import Steps
from .writing.assembly import make_folder
from .writing.report import BuildReport, PartReport, build_report

if TYPE_CHECKING:
    from .encoding.teacher import PackTeacher, TeacherColumn

__all__ = ["build_pack", "build_share", "open_for_build"]


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
    workers, beside = workers or Workers(device=config.device), Path(beside or path)
    check_writable(path)
    source = open_for_build(source, config) if isinstance(source, str) else source
    sweep(path)
    given = open_prerequisites(source, config, workers, scores, classifier, fse_net)
    told = _teacher_column(teacher, source, workers.device, taken_over)
    with _at_hand(source, beside, given, workers) as images:
        steps = Steps(
            images,
            config,
            given,
            beside,
            jobs,
            workers,
            progress,
            report,
            taken_over,
            duplicates_kept,
            told,
        )
        check = steps.checked() if given.trains or steps.must_check else None
        try:
            made = steps.write(path, check, tile_trial)
        except UnreadableError:
            made = steps.write(path, steps.checked(), tile_trial)
    done = build_report(path, source, made, time.perf_counter() - started)
    if told is None or told.teacher.stage is None:
        return done
    return replace(done, notes=(*done.notes, f"{told.teacher.path}: {told.teacher.stage}"))


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
    source = open_for_build(source, config) if isinstance(source, str) else source
    workers = Workers(device=config.device)
    given = open_prerequisites(source, config, workers, scores, None, fse_net)
    if given.trains:
        raise ConfigError(
            f"method {config.method} needs `scores` or an `fse_net` that all parts share; make them first, "
            "with edgeprune score, or by building a pack of a few images"
        )
    make_folder(folder)
    duplicates = folder / "duplicates.npz"
    told = _teacher_column(teacher, source, workers.device)
    steps = Steps(
        source,
        config,
        given,
        folder,
        jobs,
        workers,
        progress,
        None,
        duplicates_kept=duplicates,
        teacher=told,
    )
    kept = folder / "readable.npz"
    check = SourceCheck.from_bytes(kept.read_bytes()) if config.skip_bad and kept.exists() else None
    if check is None and steps.must_check:
        check = _check_kept(steps, kept)
    try:
        return steps.part(folder, share, check)
    except UnreadableError:
        return steps.part(folder, share, _check_kept(steps, kept))


def _check_kept(steps: Steps, kept: Path) -> SourceCheck:
    """Read all images, and keep what was found: the other tasks need not do so as well."""
    check = steps.checked()
    with atomic_file(kept) as partial:
        partial.write_bytes(check.to_bytes())
    return check


def _teacher_column(
    teacher: str | Path | PackTeacher | None, source: Source, device: str, taken: TakenOver | None = None
) -> TeacherColumn | None:
    if teacher is None:
        return None
    from .encoding.teacher import PackTeacher

    opened = teacher if isinstance(teacher, PackTeacher) else PackTeacher(teacher, device)
    return opened.for_source(source, None if taken is None else taken.class_names)


def _at_hand(
    source: Source, path: Path, given: Prerequisites, workers: Workers
) -> AbstractContextManager[Source]:
    """Give a source that decodes each image once, where networks train on more than memory holds."""
    if not given.trains:
        return nullcontext(source)
    from edgeprune_runtime.training.placement import place
    from edgeprune_runtime.training.settings import TrainConfig

    from ..work.image_store import cached_if_large

    device = place(TrainConfig(device=workers.device)).device
    return cached_if_large(source, path, device, workers=workers)


def open_for_build(spec: str, config: BuildConfig) -> Source:
    """Open a source as a build with these settings does; raises `ConfigError` and `SourceError`."""
    source = open_source(spec, split=config.split, size=config.size, channels=config.channels)
    if config.split == "test" and getattr(source, "undivided", False):
        raise ConfigError(
            f"{spec} has no test half, so `split=test` would pack all of it; name the test images themselves "
            "and leave `split` out"
        )
    return source
