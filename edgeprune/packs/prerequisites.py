"""What a method needs beside the images: scores, a classifier, an FSE-Net; from files, or made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune_formats import ConfigError
from edgeprune_formats.files import file_sha256

from ..coresets.selection import require_enough, require_records_of
from ..masks.energy import Selector, by_energy
from ..presets import component_count
from ..scoring.scores_file import ScoreRecords, read_records
from ..sources import Source, SourceCheck
from ..work.processes import Workers
from .config import METHODS, BuildConfig

if TYPE_CHECKING:
    from edgeprune_runtime.networks.trained import TrainedNetwork
    from edgeprune_runtime.training.settings import Precision

    from ..masks.fse_net import FSENet
    from ..work.resumable import Report

__all__ = ["Artifacts", "GivenFiles", "Masks"]


@dataclass(frozen=True)
class GivenFiles:
    """Files that need not be made; see `edgeprune.packs.build.build_pack`."""

    scores: Path | None = None
    classifier: Path | None = None
    fse_net: Path | None = None

    def require_use(self, config: BuildConfig) -> None:
        """Raise `ConfigError` for a file, or settings beside it, that the build would not look at."""
        method = METHODS[config.method]
        for option, value in (("--classifier", self.classifier), ("--fse-net", self.fse_net)):
            if value is not None and not method.learned_masks:
                raise ConfigError(
                    f"method {config.method} learns no masks; leave {option} out, or use lf or jelf"
                )
        if self.classifier is not None and self.fse_net is not None:
            raise ConfigError("--fse-net needs no --classifier; leave one of them out")
        if self.fse_net is not None and (config.masks.k, config.masks.accuracy_weight) != (None, None):
            raise ConfigError("an FSE-Net has the k and lambda that it was learned with; leave them out")
        if method.scored_images and config.coreset.score == "random" and self.scores is None:
            raise ConfigError(
                "score random needs no scoring run; use method random, or name a file with --scores"
            )
        if self.scores is None or method.scored_images:
            return
        if not method.learned_masks:
            raise ConfigError(
                f"method {config.method} uses no scores; leave --scores out, or use je, lf or jelf"
            )
        for option, value in (("--classifier", self.classifier), ("--fse-net", self.fse_net)):
            if value is not None:
                raise ConfigError(
                    f"method {config.method} with {option} uses no scores; leave --scores out, or use jelf"
                )


@dataclass(frozen=True, eq=False)
class Masks:
    """How components are chosen.

    Attributes
    ----------
    select : callable
        Gives the mask of some spectra.
    freq_prune : float
        The share of components that is dropped.
    components : int
        How many are kept in each channel.
    facts : dict
        For provenance.
    learned : bool
        By an FSE-Net, which takes long to ask.
    """

    select: Selector
    freq_prune: float
    components: int
    facts: dict[str, Any]
    learned: bool


class Artifacts:
    """Gets what a method needs: reads the files that are given, makes the others beside the pack.

    What is wrong with files or settings is found, as far as it can be, before an image is read.

    Parameters
    ----------
    source : Source
    path : Path
        The pack.
    config : BuildConfig
    given : GivenFiles
    workers : Workers
    report : callable or None
        See `edgeprune.work.resumable.LongRun`.

    Attributes
    ----------
    made : list of Path
        Files that were made, now or by an earlier call.

    Raises
    ------
    ConfigError
        A file that has no use, k or a setting of the scoring run out of range, no such device.
    ArtifactError
        A file is damaged, or the FSE-Net or the classifier not for such images.
    """

    def __init__(
        self,
        source: Source,
        path: Path,
        config: BuildConfig,
        given: GivenFiles,
        workers: Workers,
        report: Report | None,
    ) -> None:
        given.require_use(config)
        self._source, self._path, self._config = source, path, config
        self._given, self._workers, self._report = given, workers, report
        self.made: list[Path] = []
        self._records: ScoreRecords | None = None
        self._classifier: TrainedNetwork | None = None
        self._fse_net: tuple[FSENet, dict[str, Any]] | None = None
        if METHODS[config.method].learned_masks:
            self._look_at_masks()
        if given.scores is not None:
            read_records(given.scores)
        elif self._must_score():
            training = config.scoring.training(config.scoring.model_for(source.shape))
            _require_place(training.precision, workers)

    def _must_score(self) -> bool:
        method, given = METHODS[self._config.method], self._given
        learns = method.learned_masks and given.fse_net is None and given.classifier is None
        return given.scores is None and (method.scored_images or learns)

    def _look_at_masks(self) -> None:
        from ..masks.classifier import classifier_of_run, require_fit
        from ..masks.learning import load_masks, preset_for

        _require_place(self._config.masks.precision, self._workers)
        if self._given.fse_net is not None:
            self._fse_net = load_masks(self._given.fse_net, self._source, self._config.freq_prune)
            return
        preset_for(self._source, self._config)
        if self._given.classifier is not None:
            self._classifier = classifier_of_run(self._given.classifier)
            require_fit(self._classifier, self._source)

    def records(self, check: SourceCheck) -> ScoreRecords:
        """Return the records of the scores file, or those of a scoring run.

        Raises
        ------
        ConfigError, ArtifactError
            beta leaves too few images; the scores file is damaged or of another source.
        SourceError, PackWriteError, TrainingError, TrainingInterrupted
            See `edgeprune.scoring.run.run_scoring`.
        """
        if self._records is None:
            if METHODS[self._config.method].scored_images:
                require_enough(self._source, check, self._config)
            self._records = self._read_records(check) if self._given.scores else self._make_records(check)
        return self._records

    def _read_records(self, check: SourceCheck) -> ScoreRecords:
        assert self._given.scores is not None
        records = read_records(self._given.scores)
        require_records_of(records, self._source, check)
        return records

    def _make_records(self, check: SourceCheck) -> ScoreRecords:
        from ..scoring.run import run_scoring

        path = self._path.with_suffix(".scores.h5")
        self.made.append(path)
        config = replace(self._config.scoring, device=self._workers.device)
        return run_scoring(self._source, check, path, config, workers=self._workers, report=self._report)

    def masks(self, check: SourceCheck) -> Masks:
        """Return how components are chosen, by an FSE-Net that is learned first if none is given.

        Raises
        ------
        ArtifactError, TrainingError, TrainingInterrupted, SourceError
            See `edgeprune.masks.learning.learn_masks`.
        """
        if not METHODS[self._config.method].learned_masks:
            dropped = self._config.components_dropped
            components = component_count(dropped, *self._source.shape[1:])
            return Masks(by_energy(components), dropped, components, {"mask": "energy"}, learned=False)
        from ..masks.learning import learned_selector

        path = self._given.fse_net or self._path.with_suffix(".fse-net.safetensors")
        net, record = self._fse_net or self._learn(path, check)
        select = learned_selector(net, record["k"], record["k_total"], self._workers.device)
        described = {name: value for name, value in record.items() if name != "history"}
        last = record["history"][-1] if record.get("history") else None
        facts = {"mask": "fse-net", "fse_net": {**described, "sha256": file_sha256(path), "last_epoch": last}}
        return Masks(select, record["freq_prune"], record["k_total"], facts, learned=True)

    def _learn(self, path: Path, check: SourceCheck) -> tuple[FSENet, dict[str, Any]]:
        from ..masks.classifier import classifier_of_records
        from ..masks.learning import learn_masks

        classifier = self._classifier or classifier_of_records(self.records(check))
        self.made.append(path)
        return learn_masks(
            self._source, check, classifier, path, self._config, workers=self._workers, report=self._report
        )


def _require_place(precision: Precision, workers: Workers) -> None:
    """Raise `ConfigError` unless there is such a device."""
    from edgeprune_runtime.training.config import TrainConfig, place

    place(TrainConfig(device=workers.device, precision=precision))
