"""The scoring run: one training of a classifier that records what it saw of every image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.files import check_writable
from edgeprune_runtime.decode.augmentation import augment_name
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.system.machine import versions
from edgeprune_runtime.training.placement import Placement, place
from edgeprune_runtime.training.run_folder.description import as_begun

from ..sources import Source, SourceCheck, source_facts
from ..work.callbacks import EpochProgress
from ..work.image_cache import remove_images
from ..work.image_store import ImageStore, cached_if_large
from ..work.processes import Workers
from ..work.resumable import ResumableRun, remove_work_folder
from ..work.temporary import work_folder
from .config import ScoreConfig
from .scores_file import ScoresFile, read_scores_file, write_scores_file
from .task import ScoringTask

__all__ = ["run_scoring"]

# What to do about a finished file of other settings, and about one of other images.
_REMEDY = ("give it to a build as its `scores`, or write elsewhere", "write elsewhere")


def run_scoring(
    source: Source,
    check: SourceCheck,
    path: str | Path,
    config: ScoreConfig | None = None,
    *,
    workers: Workers | None = None,
    report: EpochProgress | None = None,
    replace_existing: bool = False,
) -> ScoresFile:
    """Train a classifier on all images and write what it saw of them; go on where an earlier call stopped.

    Until the file is complete, checkpoint and records are kept in `edgeprune.work.temporary.work_folder`, and
    images that do not fit in memory, decoded, in `edgeprune.work.temporary.images_folder`. A file that was
    made with the same settings from the same images is used as it is.

    Parameters
    ----------
    source : Source
        Labeled images.
    check : SourceCheck
        Which of them can be read.
    path : str or Path
        The scores file.
    config : ScoreConfig, optional
        Defaults to ``ScoreConfig()``.
    workers : Workers, optional
        The processes of the run, from `edgeprune.work.joining.joined`.
    report : callable, optional
        See `edgeprune.work.resumable.ResumableRun`.
    replace_existing : bool
        Whether to replace a file that is there, once the new one is complete.

    Raises
    ------
    ConfigError
        A setting that does not fit, or a run under way or a file there has other settings.
    SourceError
        An image cannot be read.
    PackWriteError, TrainingError
        A file cannot be written, or the loss stops being finite.
    TrainingInterrupted
        After SIGINT, SIGTERM or SIGHUP, once a checkpoint is written.
    """
    config = config or ScoreConfig()
    path, workers = Path(path), workers or Workers(device=config.device)
    check_writable(path)
    training = replace(config.training(config.model_for(source.shape)), device=workers.device)
    training = as_begun(training, work_folder(path))
    config, placement = _settled(config, source), place(training)
    rows = check.good.astype(np.int64)
    _require_batches(source, len(rows), config.batch_size, workers)
    record = _record(source, check, config, placement)
    if path.exists() and not replace_existing:
        found = _reuse(path, record, rows)
        if workers.rank == 0:
            remove_work_folder(work_folder(path))
            remove_images(path)
        return found
    cuda = [placement.device.index] if placement.device.type == "cuda" else []
    with (
        cached_if_large(source, path, placement.device, workers=workers) as images,
        _on(placement.device),
        torch.random.fork_rng(cuda),
    ):
        store = ImageStore(images, rows, placement.device, jobs=config.jobs)
        torch.manual_seed(config.seed)
        folder = work_folder(path)
        task = ScoringTask(
            store, check, config, training, placement, workers, folder, len(source.class_names)
        )
        settings = {"config": _decisive(record), "versions": record["versions"]}
        history = ResumableRun(task, folder, settings, workers, report).finish()
    if workers.rank == 0:
        peak = torch.cuda.max_memory_allocated(placement.device) if cuda else None
        provenance = {**record, "history": history, "images_held": store.place, "peak_device_bytes": peak}
        _publish(path, task, rows, source.labels[rows], provenance)
        shutil.rmtree(folder, ignore_errors=True)
    workers.wait()
    return read_scores_file(path)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which events and streams are those of the device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _settled(config: ScoreConfig, source: Source) -> ScoreConfig:
    """Return the settings with what depends on the source decided."""
    return replace(
        config,
        model=config.model_for(source.shape),
        every=config.every_for(len(source.class_names), source.shape),
        augment=augment_name(config.augment),
    )


def _require_batches(source: Source, images: int, batch_size: int, workers: Workers) -> None:
    """Refuse batches that cannot be normalized, or that leave a process without an image."""
    if images < 2 * workers.count:
        raise ConfigError(f"{source.spec}: {images} images are too few to train on")
    smallest = images // -(-images // batch_size)
    if smallest < max(2, workers.count):
        raise ConfigError(
            f"batches of {batch_size} images make some of {smallest}, and {workers.count} process(es) need "
            f"{max(2, workers.count)}; raise `ScoreConfig.batch_size` of edgeprune score"
        )


def _record(source: Source, check: SourceCheck, config: ScoreConfig, placement: Placement) -> dict[str, Any]:
    """Return what the scores depend on."""
    height, width = source.shape[1:]
    mean, std = check.statistics(check.good, height * width)
    settings = {**asdict(config), "device": str(placement.device), "precision": placement.precision}
    del settings["jobs"]
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "config": settings,
                "source": source_facts(source, check),
                "classifier": {
                    "model": config.model,
                    "num_classes": len(source.class_names),
                    "image_shape": source.shape,
                    "mean": mean,
                    "std": std,
                },
                "versions": versions(),
            }
        )
    )
    return plain


def _decisive(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings and images that scores depend on; a difference in one is told by its name."""
    return {"source": record["source"]["sha256"], **record["config"]}


def _reuse(path: Path, record: Mapping[str, Any], rows: NDArray[np.int64]) -> ScoresFile:
    try:
        found = read_scores_file(path)
    except ArtifactError as error:
        raise ConfigError(
            f"{path} exists and is not a sound scores file; remove it, or write elsewhere"
        ) from error
    old, new = _decisive(found.provenance), _decisive(record)
    for name, value in new.items():
        # Where it ran, and so what "auto" stood for, says nothing of what was asked for.
        if name not in ("device", "precision") and old.get(name) != value:
            raise ConfigError(
                f"{path} exists and was made with {name} {old.get(name)}, not {value}; "
                f"{_REMEDY[name == 'source']}"
            )
    if not np.array_equal(found.rows, rows):
        raise ConfigError(
            f"{path} exists and was made when other images could be read; remove it, or write elsewhere"
        )
    return found


def _publish(
    path: Path,
    task: ScoringTask,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    provenance: dict[str, Any],
) -> None:
    config = task.config
    assert config.every is not None
    tensors = {name: t.detach().cpu().contiguous().numpy() for name, t in task.network().items()}
    write_scores_file(
        path,
        rows=rows,
        labels=labels,
        epochs=(task.recorded(epoch) for epoch in range(config.epochs)),
        count=config.epochs,
        every=config.every,
        classifier=tensors,
        provenance=provenance,
    )
