"""Training from a pack: what fits the memory, which loaders, which facts are kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune_formats import ConfigError, Pack, PackHeader
from edgeprune_formats.remote.locations import RemoteFile, as_remote
from edgeprune_formats.targets import LABEL, Column
from edgeprune_runtime import Mixture, PackLoader, Replay
from edgeprune_runtime.decode.augmentation import LoaderAugment
from edgeprune_runtime.loading.chunks.cache import SmallCacheError
from edgeprune_runtime.loading.chunks.memory import LoaderMemory, default_limit, divide_memory, limit_for
from edgeprune_runtime.loading.order.replay import replay_order
from edgeprune_runtime.loading.order.skipping import OnCorrupt
from edgeprune_runtime.loading.targets import TargetReader
from edgeprune_runtime.task import Task, task_of
from edgeprune_runtime.training import Cadence, Normalization, TrainConfig, train
from edgeprune_runtime.training.interfaces import OnEvent
from edgeprune_runtime.training.memory import (
    StepMemory,
    choose_parts,
    free_bytes,
    memory_warning,
    shares_host_memory,
    step_memory,
)
from edgeprune_runtime.training.placement import Placement, place
from edgeprune_runtime.training.run_folder.description import as_begun, read_description
from edgeprune_runtime.training.settings import TEACHER

from ..text import bytes_text
from .evaluation import TestBatches, TestImages
from .tested import open_test_images, shared_warning, tested_on

__all__ = ["Setup", "set_up", "train_pack"]


@dataclass(frozen=True)
class Setup:
    """A training run from packs, ready to begin or to go on.

    Attributes
    ----------
    config : TrainConfig
        With the number of parts that was chosen.
    placement : Placement
        Where it computes.
    loader : PackLoader
        Of the training images.
    test : TestBatches, optional
        Of the test images.
    memory : LoaderMemory
        What loaders hold.
    limit_for : callable
        From bytes for the training images to a bound on memory that has them.
    step : StepMemory
        What a step is estimated to take.
    provenance : dict
        What the folder of the run says of the data.
    notes : tuple of str
        What a user should know of the test images, and of memory that is short.
    column : Column
        The target that is learned.
    task : Task
        How.
    """

    config: TrainConfig
    placement: Placement
    loader: PackLoader
    test: TestBatches | None
    memory: LoaderMemory
    limit_for: Callable[[int], int]
    step: StepMemory
    provenance: dict[str, Any]
    column: Column
    task: Task
    notes: tuple[str, ...] = ()

    @property
    def is_roomy(self) -> bool:
        """Whether more than twice the memory is free that loaders and a step on the CPU take."""
        free = free_bytes(self.placement)
        part = -(-self.config.batch_size // self.config.accumulate)
        takes = self.memory.limit + self.step.fixed_bytes + part * self.step.image_bytes
        return self.placement.device.type == "cpu" and free is not None and free > 2 * takes

    def train(
        self,
        output: Path,
        *,
        init: Path | None = None,
        teacher: Path | None = None,
        resume: bool = False,
        cadence: Cadence = Cadence(),  # noqa: B008 - frozen
        report: OnEvent | None = None,
        signer: str | None = None,
    ) -> dict[str, Any]:
        """Train and return the metrics of the epoch that is kept; see `edgeprune_runtime.training.train`.

        `signer` is the fingerprint of the key that the packs are signed by, if that was checked.

        Raises
        ------
        ConfigError, SourceError, PackFormatError, TrainingError, TrainingInterrupted
            See there; a bound on memory that is too small for the order of a run that goes on is one.
        """
        header = self.loader.pack.header
        counts = None
        if self.column.name == LABEL:
            counts = np.bincount(self.loader.pack.labels, minlength=self.column.outputs).tolist()
        try:
            result = train(
                self.loader,
                self.config,
                output,
                num_classes=self.column.outputs,
                task=self.task,
                image_shape=header.shape,
                test=self.test,
                init=init,
                teacher=teacher,
                normalization=Normalization(header.mean, header.std),
                class_counts=counts,
                resume=resume,
                cadence=cadence,
                provenance=self.provenance,
                notes={
                    "memory_bytes": self.memory.limit,
                    "on_corrupt": self.loader.on_corrupt,
                    **_fetched(self.loader.pack),
                    **({} if signer is None else {"signed_by": signer}),
                },
                on_event=report,
            )
        except SmallCacheError as error:
            enough = math.ceil(self.limit_for(error.cache_bytes) / 1e6)
            raise ConfigError(
                f"{output} cannot be resumed within {bytes_text(self.memory.limit)}: the order in which it "
                f"visits the images takes more; give `memory={enough}MB` or more, or leave `memory` out"
            ) from error
        return result.kept


def set_up(
    pack: Pack | Mixture,
    output: Path,
    config: TrainConfig,
    *,
    augment: LoaderAugment = "crop+flip",
    test: str | RemoteFile | None = None,
    skip_bad: bool = False,
    memory: int | None = None,
    choose_batch: bool = False,
    on_corrupt: OnCorrupt = "fail",
    replay: Replay | None = None,
    resume: bool = False,
    target: str = LABEL,
) -> Setup:
    """Open what a run trains and is tested on, within the memory that there is.

    Parameters
    ----------
    pack : Pack or Mixture
        Open packs.
    output : Path
        The folder of the run; what was chosen for a run there is chosen again to `resume` it.
    config : TrainConfig
        The settings; with `choose_batch` its `accumulate` is chosen.
    augment : str
        As `PackLoader`.
    test : str or RemoteFile, optional
        A pack, also a far one by its URL, or a source, see `edgeprune.training.evaluation.open_test`.
    skip_bad : bool
        Leave out test images that cannot be read instead of failing.
    memory : int, optional
        Bound in bytes on what loaders and caches hold; see `edgeprune_runtime.loading.chunks.memory`.
    choose_batch : bool
        Take batches in as few parts as the free memory allows.
    on_corrupt : str
        As `PackLoader`, for the training images; a damaged test pack is always an error. A run may go on with
        the other value.
    replay : Replay, optional
        As `PackLoader`.
    resume : bool
        Whether the run goes on where there is one.
    target : str
        The column of the packs that is learned; its kind chooses loss and metrics.

    Raises
    ------
    ConfigError
        If memory does not do, or an argument is wrong.
    SourceError, PackFormatError, RemoteError
        If the test set cannot be read.
    """
    header, test = pack.header, test and (as_remote(test) or test)
    earlier = read_description(output) if resume else {}
    limit = memory or _earlier_limit(earlier) or default_limit()
    _require_agreement(config, replay, target)
    if config.distill:
        _require_teacher(pack)
    reader = TargetReader(pack, (target,))
    task = task_of(column := reader.columns[0], reader.read(np.arange(len(pack)))[0])
    config = as_begun(config, output) if resume else config
    placement, step = place(config), step_memory(config, column.outputs, header.shape)
    if choose_batch:
        config = _in_parts(config, placement, step, limit, earlier)
    part = -(-config.batch_size // config.accumulate)
    images = None if test is None else open_test_images(test, header, skip_bad, column, earlier)
    held = {
        "test_images_bytes": 0 if images is None else images.images_bytes,
        "test_least_bytes": 0 if images is None else images.least_bytes,
    }
    # A pack of fewer images is one batch.
    batch_size = min(config.batch_size, len(pack))
    divided = divide_memory(limit, pack, batch_size, **held)
    return Setup(
        config=config,
        placement=placement,
        loader=_loader(pack, config, augment, divided, on_corrupt, replay, target),
        test=None if images is None else images.batches(part, divided.test_bytes, divided.prefetch),
        memory=divided,
        limit_for=partial(limit_for, pack=pack, batch_size=batch_size, **held),
        step=step,
        column=column,
        task=task,
        notes=_notes(images, pack, memory_warning(config, step, len(pack), placement)),
        provenance={
            **_trained_on(header, column, augment, replay),
            "test": None if images is None else images.name,
            # With none, as it was before there was a choice, so that runs of then can go on.
            **({"test_images_skipped": len(images.skipped)} if images and images.skipped else {}),
            **({} if images is None else tested_on(images, test, header, output, earlier)),
        },
    )


def _require_agreement(config: TrainConfig, replay: Replay | None, target: str) -> None:
    """Raise `ConfigError` where settings do not go with what is learned, or with `replay`."""
    if replay is not None and config.class_weights == "balanced":
        raise ConfigError(
            "`class_weights` counts the images of all packs, `replay` shows others; give one of the two"
        )
    if target != LABEL and config.distill:
        raise ConfigError(f"`distill` goes with the class of images; leave it out with {target!r}")
    if target != LABEL and "balanced" in (config.class_weights, config.sampling):
        raise ConfigError(f"`class_weights` and `sampling` go by the class; leave them out with {target!r}")


def _require_teacher(pack: Pack | Mixture) -> None:
    """Raise `ConfigError` for a pack without a teacher's probabilities."""
    for one in pack.packs if isinstance(pack, Mixture) else (pack,):
        if TEACHER not in one.targets:
            raise ConfigError(
                f"{one.path}: holds no probabilities of a teacher, which `distill` learns from; build it "
                "again with: edgeprune build SOURCE --teacher RUN"
            )


def _trained_on(
    header: PackHeader, column: Column, augment: LoaderAugment, replay: Replay | None
) -> dict[str, Any]:
    """Return what the run says of its training images."""
    return {
        **{f"pack {name}": value for name, value in header.provenance.items()},
        "mean": header.mean,
        "std": header.std,
        **({"class_names": column.classes} if column.classes else {}),
        # Absent of labels, as it was before there was a choice.
        **({} if column.name == LABEL else {"target": column.name}),
        "augment": augment,
        **({} if replay is None else {"replay": asdict(replay)}),
    }


def _fetched(pack: Pack | Mixture) -> dict[str, Any]:
    """Return what a run notes of the far packs that it was trained from."""
    packs = pack.packs if isinstance(pack, Mixture) else (pack,)
    found = [{"url": one.fetched.url, "sha256": one.fetched.sha256} for one in packs if one.fetched]
    return {"fetched": found} if found else {}


def _loader(
    pack: Pack | Mixture,
    config: TrainConfig,
    augment: LoaderAugment,
    memory: LoaderMemory,
    on_corrupt: OnCorrupt,
    replay: Replay | None,
    target: str,
) -> PackLoader:
    order = replay_order(pack, replay, config.batch_size)
    return PackLoader(
        pack,
        config.batch_size,
        shuffle=True,
        seed=config.seed,
        backend="torch",
        device=config.device,
        drop_last=len(order or pack) >= config.batch_size,
        augment=augment,
        normalize=True,
        cache_bytes=memory.cache_bytes,
        prefetch=memory.prefetch,
        sampling=config.sampling,
        resolution_schedule=config.resolution_schedule,
        on_corrupt=on_corrupt,
        replay=replay,
        reuse_buffers=True,
        targets=(target, TEACHER) if config.distill else (target,),
    )


def train_pack(
    pack: Pack | Mixture,
    output: Path,
    *,
    test: str | RemoteFile | None,
    resume: bool,
    augment: LoaderAugment,
    report: OnEvent | None = None,
    target: str = LABEL,
    **options: Any,
) -> dict[str, Any]:
    """Train from open packs and return the metrics of the epoch that is kept.

    `options` are those of `TrainConfig`.

    Raises
    ------
    ConfigError, SourceError, PackFormatError, TrainingError, TrainingInterrupted
        See `set_up` and `edgeprune_runtime.training.train`.
    """
    setup = set_up(
        pack, output, TrainConfig(**options), augment=augment, test=test, resume=resume, target=target
    )
    return setup.train(output, resume=resume, report=report)


def _notes(images: TestImages | None, pack: Pack | Mixture, of_memory: str | None) -> tuple[str, ...]:
    of_images = () if images is None else (*images.notes, *(f"skipped {line}" for line in images.skipped))
    warnings = (of_memory, shared_warning(images, pack), _repeated_warning(pack))
    return (*(warning for warning in warnings if warning), *of_images)


def _repeated_warning(pack: Pack | Mixture) -> str | None:
    """Return a warning where one file is named several times, as two patterns may do."""
    files = Counter(one.path.resolve() for one in pack.packs) if isinstance(pack, Mixture) else Counter()
    told = [f"{file} is named {times} times" for file, times in files.items() if times > 1]
    return f"{', '.join(told[:3])}; its images come as often in each epoch" if told else None


def _in_parts(
    config: TrainConfig, placement: Placement, step: StepMemory, limit: int, earlier: Mapping[str, Any]
) -> TrainConfig:
    parts = earlier.get("config", {}).get("accumulate")
    if not isinstance(parts, int):
        free = free_bytes(placement)
        held = limit if shares_host_memory(placement.device) else 0
        parts = 1 if free is None else choose_parts(config, step, free - held)
    return replace(config, accumulate=parts)


def _earlier_limit(earlier: Mapping[str, Any]) -> int | None:
    limit = earlier.get("notes", {}).get("memory_bytes")
    return limit if isinstance(limit, int) and limit > 0 else None
