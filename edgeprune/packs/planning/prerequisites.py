"""What shows before an image is read: whether the settings fit, and what is in the files given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune_formats import ConfigError
from edgeprune_formats.coefficients import position_dtype
from edgeprune_formats.limits import MAX_CHUNK_BYTES, MAX_IMAGE_VALUES

from ...presets import component_count, coreset_size
from ...scoring.scores_file import ScoresFile, read_scores_file
from ...sources import Source
from ...work.processes import Workers
from ..config import METHODS, BuildConfig
from .header import TakenOver

if TYPE_CHECKING:
    from edgeprune_runtime.networks.trained import TrainedNetwork
    from edgeprune_runtime.training.settings import Precision

    from ...masks.fse_file import FSENetFile
    from ..encoding.teacher import PackTeacher, TeacherColumn

__all__ = ["Prerequisites", "open_prerequisites", "require_use"]


@dataclass(frozen=True, eq=False)
class Prerequisites:
    """What a build is given and need not make; see `edgeprune.build_pack`.

    Attributes
    ----------
    scores : ScoresFile or None
    classifier : TrainedNetwork or None
    fse_net : FSENetFile or None
        What was given, opened.
    teacher : TeacherColumn or None
        Likewise, for this source.
    taken_over : TakenOver or None
    needs_scores : bool
        Whether images are selected by score, or masks learned against the scoring run's classifier.
    trains : bool
        Whether scores are made or masks learned.
    """

    scores: ScoresFile | None
    classifier: TrainedNetwork | None
    fse_net: FSENetFile | None
    teacher: TeacherColumn | None
    taken_over: TakenOver | None
    needs_scores: bool
    trains: bool


def open_prerequisites(
    source: Source,
    config: BuildConfig,
    workers: Workers,
    scores: str | Path | None,
    classifier: str | Path | None,
    fse_net: str | Path | None,
    *,
    teacher: str | Path | PackTeacher | None,
    taken_over: TakenOver | None = None,
) -> Prerequisites:
    """Open the files that are given, and find what is wrong with files or settings before an image is read.

    Raises
    ------
    ConfigError
        Images that the format cannot hold, a ratio that keeps nothing, a file that has no use, k or a setting
        of the scoring run out of range, no such device.
    ArtifactError
        A file is damaged, or the FSE-Net or the classifier not for such images.
    TrainingError
        The teacher's run holds no network.
    """
    require_use(config, scores, classifier, fse_net)
    method = METHODS[config.method]
    learns = method.learned_masks and fse_net is None
    needs_scores = method.scored_images or (learns and classifier is None)
    if (needs_scores or learns) and not source.class_names:
        raise ConfigError(
            f"{source.spec} has no classes, by which method {config.method} chooses; use `method=energy` or "
            "`method=random`"
        )
    network, net = _open_networks(source, config, workers, classifier, fse_net)
    if needs_scores and scores is None:
        training = config.scoring.training(config.scoring.model_for(source.shape))
        _require_place(training.precision, workers)
    opened = None if scores is None else read_scores_file(scores)
    _require_room_in_pack(source, config)
    told = _teacher_column(teacher, source, workers, taken_over)
    trains = learns or (needs_scores and scores is None)
    return Prerequisites(opened, network, net, told, taken_over, needs_scores, trains)


def _open_networks(
    source: Source,
    config: BuildConfig,
    workers: Workers,
    classifier: str | Path | None,
    fse_net: str | Path | None,
) -> tuple[TrainedNetwork | None, FSENetFile | None]:
    if not METHODS[config.method].learned_masks:
        return None, None
    from ...masks.classifier import classifier_from_run, require_fit
    from ...masks.fse_file import FSENetFile
    from ...masks.learning import load_masks, preset_for

    _require_place(config.masks.precision, workers)
    if fse_net is not None:
        path = Path(fse_net)
        return None, FSENetFile(path, *load_masks(path, source, config.freq_prune))
    preset_for(source, config.components_dropped, config.masks)
    if classifier is None:
        return None, None
    network = classifier_from_run(classifier)
    require_fit(network, source)
    return network, None


def _teacher_column(
    teacher: str | Path | PackTeacher | None, source: Source, workers: Workers, taken_over: TakenOver | None
) -> TeacherColumn | None:
    if teacher is None:
        return None
    from ..encoding.teacher import PackTeacher

    opened = teacher if isinstance(teacher, PackTeacher) else PackTeacher(teacher, workers.device)
    return opened.for_source(source, None if taken_over is None else taken_over.class_names)


def require_use(
    config: BuildConfig,
    scores: str | Path | None,
    classifier: str | Path | None,
    fse_net: str | Path | None,
) -> None:
    """Raise `ConfigError` for a file, or settings beside it, that the build would not look at."""
    method = METHODS[config.method]
    for name, value in (("classifier", classifier), ("fse_net", fse_net)):
        if value is not None and not method.learned_masks:
            raise ConfigError(
                f"method {config.method} learns no masks; leave `{name}` out, or use lf or jelf"
            )
    if classifier is not None and fse_net is not None:
        raise ConfigError("`fse_net` needs no `classifier`; leave one of them out")
    if fse_net is not None and (config.masks.k, config.masks.accuracy_weight) != (None, None):
        raise ConfigError(
            "an FSE-Net has the `k` and `accuracy_weight` that it was learned with; leave them out"
        )
    if method.scored_images and config.coreset.score == "random" and scores is None:
        raise ConfigError(
            "score random needs no scoring run; use method random, or name a file with `scores`"
        )
    if scores is None or method.scored_images:
        return
    if not method.learned_masks:
        raise ConfigError(f"method {config.method} uses no scores; leave `scores` out, or use je, lf or jelf")
    for name, value in (("classifier", classifier), ("fse_net", fse_net)):
        if value is not None:
            raise ConfigError(
                f"method {config.method} with `{name}` uses no scores; leave `scores` out, or use jelf"
            )


def _require_place(precision: Precision, workers: Workers) -> None:
    """Raise `ConfigError` unless there is such a device."""
    from edgeprune_runtime.training.placement import place
    from edgeprune_runtime.training.settings import TrainConfig

    place(TrainConfig(device=workers.device, precision=precision))


def _require_room_in_pack(source: Source, config: BuildConfig) -> None:
    """Refuse before any image is read what the format cannot hold."""
    channels, height, width = source.shape
    components = component_count(config.components_dropped, height, width)
    size = channels * components * (4 + position_dtype(height, width).itemsize)
    if channels * height * width > MAX_IMAGE_VALUES or size > MAX_CHUNK_BYTES:
        raise ConfigError(
            f"images of {height}x{width} with {components:,} components a channel are larger than a pack "
            "can hold; lower `size` or raise `freq_prune`"
        )
    coreset_size(config.images_dropped, len(source))
