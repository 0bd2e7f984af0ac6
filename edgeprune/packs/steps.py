"""The steps of a build: a checked source, scores, a coreset, masks, a plan, and then a pack or its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..coresets.selection import Coreset, require_enough, select_images
from ..masks.selector import ComponentSelector, component_selector
from ..scoring.obtain import obtain_scores
from ..scoring.scores_file import ScoresFile
from ..sources import Source, SourceCheck, source_targets
from ..sources.check import require_classes
from ..work.callbacks import EpochProgress, JoinedProgress, StageProgress
from ..work.checking import check_shared
from ..work.processes import Workers
from ..work.temporary import artifact_path, work_folder
from .config import METHODS, BuildConfig
from .encoding.encoder import Encoder, UnreadableError
from .encoding.tiles import laid_out, sample_size
from .planning.deduplication import LeftOut, left_out
from .planning.header import TakenOver, pack_header
from .planning.plan import Plan, Share
from .planning.prerequisites import Prerequisites
from .writing.assembly import assemble, build_part, make_folder, part_path, remove_parts
from .writing.report import Made, PartReport
from .writing.write import write_pack

if TYPE_CHECKING:
    from .encoding.teacher import TeacherColumn

__all__ = ["CHUNKS_IN_PART", "Steps"]

# Chunks of a part that is kept while the others are made, where masks take long.
CHUNKS_IN_PART = 16


@dataclass(frozen=True, eq=False)
class Steps:
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
    duplicates_kept: Path | None = None
    teacher: TeacherColumn | None = None

    @property
    def must_check(self) -> bool:
        """Whether all images are to be read first, to know which can be compared."""
        return self.config.skip_bad and self.config.drop_duplicates

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
            return Made(write_pack(plan, path, self._tell).bad, made)
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
        twins = self._twins(good)
        free = good if twins is None else np.setdiff1d(good, twins.rows)
        scored = _scores(source, check, free, config, given, self.beside, self.jobs, workers, self.report)
        coreset = _coreset(source, good, check, config, scored, twins)
        selector = _selector(
            source, check, config, given, scored, self.beside, self.jobs, workers, self.report
        )
        whole = selector.components == source.shape[1] * source.shape[2]
        select = None if whole and selector.file is None else selector.select
        encoder = Encoder(source, select, selector.file, config.rounding, config.skip_bad, self.teacher)
        header = laid_out(
            pack_header(source, coreset, selector, config, self.taken_over, twins, self.teacher),
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

    def _twins(self, good: NDArray[np.integer[Any]]) -> LeftOut | None:
        """Return the near duplicates to leave out, if any are to be."""
        if not self.config.drop_duplicates:
            return None
        # Rows of scores of another source are refused later.
        rows = good[good < len(self.source)]
        return left_out(
            self.source,
            rows,
            jobs=self.jobs,
            workers=self.workers,
            progress=self._tell,
            kept=self.duplicates_kept,
        )


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
    twins: LeftOut | None,
) -> Coreset:
    return select_images(
        source,
        good,
        sample_prune=config.images_dropped,
        seed=config.seed,
        scores=scored if METHODS[config.method].scored_images else None,
        config=config.coreset,
        sha256=None if check is None else check.sha256,
        left_out=None if twins is None else twins.rows,
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
