"""From a source of images to a pack: a line of steps, each of which takes what those before it gave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.files import atomic_file, check_writable, sweep

from ..coresets.selection import Coreset, require_enough, select_images
from ..masks.selector import ComponentSelector, component_selector
from ..scoring.obtain import obtain_scores
from ..scoring.scores_file import ScoresFile
from ..sources import Source, SourceCheck, open_source, source_targets
from ..sources.check import require_classes
from ..work.callbacks import EpochProgress, JoinedProgress, StageProgress
from ..work.checking import check_shared
from ..work.processes import Workers
from ..work.temporary import artifact_path, work_folder
from .assembly import assemble, build_part, make_folder, part_path, remove_parts
from .config import METHODS, BuildConfig
from .encoding import Encoder, UnreadableError
from .header import TakenOver, pack_header
from .layout import laid_out, sample_size
from .plan import Plan, Share
from .prerequisites import Prerequisites, open_prerequisites
from .report import BuildReport, Made, PartReport, build_report

__all__ = ["build_pack", "build_share", "open_for_build"]

# Chunks of a part that is kept while the others are made, where masks take long.
CHUNKS_IN_PART = 16


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
    jobs: int = 1,
    taken_over: TakenOver | None = None,
    workers: Workers | None = None,
    progress: StageProgress | None = None,
    report: EpochProgress | None = None,
) -> BuildReport:
    """Build a pack, in bounded memory; it appears under its name only when it is complete.

    Every image is read once, by `jobs` threads, also those that are not chosen: the pack names the content of
    its source. Where scores are made or masks learned, and where images that cannot be read are left out and
    there are such, all are read once before. A method that needs scores or masks makes them where they are
    not given, and keeps them beside the pack as ``NAME.scores.h5`` and ``NAME.fse-net.safetensors``. A build
    of learned masks that was stopped goes on when it is called again with the same arguments.

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
    jobs : int
        Threads that read and encode images; the pack is the same for any number. A source that is an object
        must then let several threads read at once. ``edgeprune build`` takes as many as it has cores.
    taken_over : TakenOver, optional
        What the header has of other packs, see `edgeprune.packs.addition`; for methods without learned masks.
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
    check_writable(path)
    source = open_for_build(source, config) if isinstance(source, str) else source
    sweep(path)
    given = open_prerequisites(source, config, workers, scores, classifier, fse_net)
    with _at_hand(source, beside, given, workers) as images:
        steps = _Steps(images, config, given, beside, jobs, workers, progress, report, taken_over)
        check = steps.checked() if given.trains else None
        try:
            made = steps.write(path, check, tile_trial)
        except UnreadableError:
            made = steps.write(path, steps.checked(), tile_trial)
    return build_report(path, source, made, time.perf_counter() - started)


def build_share(
    source: str | Source,
    folder: str | Path,
    share: Share,
    config: BuildConfig | None = None,
    *,
    scores: str | Path | None = None,
    fse_net: str | Path | None = None,
    jobs: int = 1,
    progress: StageProgress | None = None,
) -> PartReport:
    """Build one part of a pack into a folder, for `edgeprune.packs.assembly.assemble` to put together.

    Tasks need to know nothing of each other: each makes the same choice of images and encodes its own. Scores
    and masks are made once, before, and given to all.

    Parameters
    ----------
    source, config, scores, fse_net, jobs, progress
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
    steps = _Steps(source, config, given, folder, jobs, workers, progress, None)
    kept = folder / "readable.npz"
    check = SourceCheck.from_bytes(kept.read_bytes()) if config.skip_bad and kept.exists() else None
    try:
        return steps.part(folder, share, check)
    except UnreadableError:
        check = steps.checked()
        # The other tasks need not read everything as well.
        with atomic_file(kept) as partial:
            partial.write_bytes(check.to_bytes())
        return steps.part(folder, share, check)


@dataclass(frozen=True, eq=False)
class _Steps:
    """The steps of one build, and what all of them need."""

    source: Source
    config: BuildConfig
    given: Prerequisites
    beside: Path
    jobs: int
    workers: Workers
    progress: StageProgress | None
    report: EpochProgress | None
    taken_over: TakenOver | None = None

    def checked(self) -> SourceCheck:
        """Read all images."""
        tell = self.progress if self.workers.rank == 0 else None
        return check_shared(
            self.source, skip_bad=self.config.skip_bad, jobs=self.jobs, workers=self.workers, progress=tell
        )

    def write(self, path: Path, check: SourceCheck | None, trial: Mapping[str, Any] | None = None) -> Made:
        """Write the pack: at once, or in parts that several processes make and that are kept meanwhile."""
        plan, made = self.planned(check, trial)
        place = work_folder(path) / f"parts-{plan.build}"
        if self.workers.rank == 0:
            remove_parts(work_folder(path), but=place)
        if self.workers.count == 1 and plan.encoder.select_file is None:
            return Made(plan.write(path, self._tell).bad, made)
        if self.workers.rank == 0:
            make_folder(place)
        self.workers.wait()
        self._write_parts(plan, place)
        skipped: tuple[str, ...] = ()
        if self.workers.rank == 0:
            skipped = assemble(place, path, self._tell)
            remove_parts(work_folder(path))
        self.workers.wait()
        return Made(skipped, made)

    def part(self, folder: Path, share: Share, check: SourceCheck | None) -> PartReport:
        """Write one part, unless it is there."""
        plan, _ = self.planned(check, None)
        made = build_part(plan, folder, share, self._tell)
        return PartReport(part_path(folder, share), plan.images(share), plan.header.samples, made)

    @property
    def _tell(self) -> StageProgress | None:
        return self.progress if self.workers.rank == 0 else None

    def _write_parts(self, plan: Plan, place: Path) -> None:
        """Write this process's share of the parts."""
        chunks = plan.header.chunks
        count = min(chunks, max(self.workers.count, -(-chunks // CHUNKS_IN_PART)))
        unreadable = False
        shares = [
            Share(number, count) for number in range(1 + self.workers.rank, count + 1, self.workers.count)
        ]
        tell = self._tell and JoinedProgress(self._tell, sum(plan.images(share) for share in shares))
        for share in shares:
            try:
                build_part(plan, place, share, tell)
            except UnreadableError:
                unreadable = True
                break
            if tell is not None:
                tell.before += plan.images(share)
        if self.workers.any(unreadable):
            raise UnreadableError

    def planned(
        self, check: SourceCheck | None, trial: Mapping[str, Any] | None
    ) -> tuple[Plan, tuple[Path, ...]]:
        """Return what to encode, and the files that were made to find out."""
        source, config, given, workers = self.source, self.config, self.given, self.workers
        good = np.arange(len(source)) if check is None else check.good
        if check is None:
            good = good if given.scores is None else given.scores.rows
            require_classes(source, good[good < len(source)], ())
        scored = _scores(source, check, good, config, given, self.beside, self.jobs, workers, self.report)
        coreset = _coreset(source, good, check, config, scored)
        selector = _selector(
            source, check, config, given, scored, self.beside, self.jobs, workers, self.report
        )
        whole = selector.components == source.shape[1] * source.shape[2]
        select = None if whole and selector.file is None else selector.select
        encoder = Encoder(source, select, selector.file, config.rounding, config.skip_bad)
        header = laid_out(
            pack_header(source, coreset, selector, config, self.taken_over),
            config.given_tile,
            lambda: encoder.sample(config.codec, coreset.rows[: sample_size(*source.shape[1:])]),
            rounding=config.rounding,
            workers=workers,
            trial=trial,
        )
        plan = Plan(
            source=source,
            encoder=encoder,
            header=header,
            coreset=coreset,
            compression=config.compression,
            check=check,
            unreadable=np.setdiff1d(np.arange(len(source)), good),
            scored_sha256="" if scored is None else str(scored.provenance["source"]["sha256"]),
            jobs=self.jobs,
            targets=source_targets(source) if self.taken_over is None else self.taken_over.targets,
            keep_statistics=self.taken_over is not None,
        )
        made = ((scored.path if scored else None, given.scores), (selector.file, given.fse_net))
        return plan, tuple(file for file, known in made if file is not None and known is None)


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


def _scores(
    source: Source,
    check: SourceCheck | None,
    good: NDArray[np.integer[Any]],
    config: BuildConfig,
    given: Prerequisites,
    beside: Path,
    jobs: int,
    workers: Workers,
    report: EpochProgress | None,
) -> ScoresFile | None:
    """Return the scores that are given, or made beside the pack; None where the method needs none."""
    if METHODS[config.method].scored_images:
        require_enough(source, good, sample_prune=config.images_dropped, config=config.coreset)
    if not given.needs_scores:
        return None
    if check is None:
        return given.scores
    path = artifact_path(beside, ".scores.h5")
    scoring = replace(config.scoring, device=workers.device, jobs=jobs)
    return obtain_scores(source, check, path, scoring, given=given.scores, workers=workers, report=report)


def _coreset(
    source: Source,
    good: NDArray[np.integer[Any]],
    check: SourceCheck | None,
    config: BuildConfig,
    scored: ScoresFile | None,
) -> Coreset:
    return select_images(
        source,
        good,
        sample_prune=config.images_dropped,
        seed=config.seed,
        scores=scored if METHODS[config.method].scored_images else None,
        config=config.coreset,
        sha256=None if check is None else check.sha256,
    )


def _selector(
    source: Source,
    check: SourceCheck | None,
    config: BuildConfig,
    given: Prerequisites,
    scored: ScoresFile | None,
    beside: Path,
    jobs: int,
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
        jobs=jobs,
    )


def open_for_build(spec: str, config: BuildConfig) -> Source:
    """Open a source as a build with these settings does; raises `ConfigError` and `SourceError`."""
    source = open_source(spec, split=config.split, size=config.size, channels=config.channels)
    if config.split == "test" and getattr(source, "undivided", False):
        raise ConfigError(
            f"{spec} has no test half, so `split=test` would pack all of it; name the test images themselves "
            "and leave `split` out"
        )
    return source
