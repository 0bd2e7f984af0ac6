"""Training on a device: one loop, metrics for each epoch, and a run that can be killed and resumed.

A RUN folder holds ``config.json`` (what was asked, and the versions it ran with), ``metrics.jsonl`` (a line
for each epoch), the last two checkpoints (see `edgeprune_runtime.training.run_folder.checkpoint`) and, once
finished, ``model.safetensors``. Resumed on the same CPU with the same number of threads, a run ends in the
weights it would have ended in without the interruption, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..checks import whole_number
from ..loading.loader import PackLoader
from ..networks.code import BuildNetwork, allow_code
from ..networks.grown_head import weights_file
from ..normalization import Normalization
from ..task import Task
from ..text import count_text
from .arguments import require_agreement, whole_shape
from .batches import check_batches, check_loader
from .defaults import defaults_of, learning_rate_of
from .interfaces import Batches, OnEvent, TrainLoader
from .loop import TrainRun
from .objectives.adversarial import Objective
from .objectives.making import make_loss, make_objective
from .placement import Placement, place
from .progress.cadence import Cadence
from .progress.lines import LineReport
from .progress.schedule import Schedule
from .progress.signals import TrainingInterrupted, deferred_signals
from .progress.stopping import best_epoch, is_over
from .run_folder.checkpoint import has_checkpoint
from .run_folder.description import as_begun, describe_run, read_description
from .run_folder.finished import Finished, finished_run, is_whole
from .run_folder.opening import opened_run
from .run_folder.results import load_model, save_model, write_metrics
from .settings import TrainConfig
from .step import Learner
from .taught import TaughtBatches

__all__ = [
    "Cadence",
    "Normalization",
    "TrainConfig",
    "TrainLoader",
    "TrainResult",
    "TrainingInterrupted",
    "defaults_of",
    "learning_rate_of",
    "load_model",
    "train",
]


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes
    ----------
    run_dir : Path
        Its folder; `load_model` reads the network from it.
    metrics : tuple of dict
        What ``metrics.jsonl`` holds: for each epoch ``epoch`` (from 1), ``train_loss`` and ``test_loss``
        (mean cross entropy in nats; of training with a teacher the divergence from its answers; of other
        targets see `edgeprune_runtime.training.objectives.losses`), ``train_accuracy`` and
        ``test_accuracy`` (fractions; of training on perturbed images that on them; None for several labels
        and for values), what else `edgeprune_runtime.training.objectives.metrics` measures of the target,
        such as ``test_map``, ``skipped_images`` (left out because their chunks could not be read),
        ``lr`` (of the epoch's last step), ``images_per_second`` (of the steps), ``seconds`` (with the test),
        ``peak_memory_bytes`` (of the process in RAM, since it began) and ``peak_device_memory_bytes`` (of
        tensors on a CUDA device), and with `TrainConfig.patience` ``best_epoch`` (up to here). With smoothed
        labels or weights of classes ``train_loss`` is what is minimized. The test's are None without a test
        set, and memory where it is not known.
    """

    run_dir: Path
    metrics: tuple[dict[str, Any], ...]

    @property
    def kept(self) -> dict[str, Any]:
        """The metrics of the epoch whose weights are kept: of the best with `TrainConfig.patience`."""
        return self.metrics[best_epoch(self.metrics) - 1 if "best_epoch" in self.metrics[-1] else -1]


def train(
    loader: TrainLoader,
    config: TrainConfig,
    run_dir: str | Path,
    *,
    num_classes: int,
    image_shape: Sequence[int],
    model: str | BuildNetwork | None = None,
    test: Batches | None = None,
    init: str | Path | None = None,
    normalization: Normalization | None = None,
    teacher: str | Path | None = None,
    class_counts: Sequence[int] | None = None,
    task: Task | None = None,
    resume: bool = False,
    cadence: Cadence = Cadence(),  # noqa: B008 - frozen
    provenance: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    on_event: OnEvent | None = None,
    report: Callable[[str], object] | None = None,
) -> TrainResult:
    """Train a network with SGD, or go on with a run that was interrupted.

    Parameters
    ----------
    loader : TrainLoader
        Yields the training batches; with `TrainConfig.distill` the teacher's probabilities after the labels,
        as ``PackLoader(targets=("label", "teacher"))`` does.
    config : TrainConfig
        The settings.
    run_dir : str or Path
        Folder of the run, made if missing.
    num_classes : int
        Labels are below this; of other targets, how many numbers the network gives.
    image_shape : sequence of int
        Channels, height and width of an image in pixels.
    model : str or callable, optional
        The network, in place of `TrainConfig.model`: a name of one, or a function that builds it, of those of
        ``num_classes``, ``channels`` and ``image_size`` that its signature names. A run records the
        function's name, and needs the function again to be resumed and loaded.
    test : iterable of (torch.Tensor, torch.Tensor), optional
        Batches to test on after each epoch: normalized, without augmentation, iterable again and again. Of a
        list all batches are checked before the first epoch, of a `PackLoader` the shape of its images, its
        labels and the order of its classes.
    init : str or Path, optional
        A file of weights to begin with, safetensors or what torch.save has written, or the folder of a
        finished run, see `edgeprune_runtime.networks.warm_start.load_weights`. Of a run with other classes
        the last layer keeps the rows of the classes in ``provenance["class_names"]``, matched by name, and
        draws the others, see `edgeprune_runtime.networks.grown_head.grow_head`.
    normalization : Normalization, optional
        Of the batches; needed to perturb them (`TrainConfig.adversarial`) and by a teacher.
    teacher : str or Path, optional
        A finished run, whose answers are learned in place of the labels; with `TrainConfig.adversarial`
        those to perturbed images, see `edgeprune_runtime.training.objectives.adversarial.Objective`.
    class_counts : sequence of int, optional
        Training images of each class; needed by `TrainConfig.class_weights`.
    task : Task, optional
        What the batches have after the images, see `edgeprune_runtime.task.task_of`: it chooses loss and
        metrics. By default the class.
    resume : bool
        Go on with the run in `run_dir`; where there is none, start one. The config may have more epochs than
        the run had: the schedule of the learning rate that it began is trained to its end, and a new one
        follows for the epochs that were added. `init` may be left out once there is a checkpoint.
    cadence : Cadence
        How often a checkpoint is written beside the one after each epoch; every five minutes.
    provenance : mapping of str to Any, optional
        Where the data came from, for ``config.json``. A run is resumed only with the same. Its ``mean``,
        ``std`` and ``class_names`` go into the network's file, where export and prediction need them; of a
        `PackLoader` they are known.
    notes : mapping of str to Any, optional
        What else ``config.json`` is to hold, and may be different when the run is resumed.
    on_event : callable, optional
        Is given a dict: ``{"event": "start", "step"}`` before the first step; a few times a second
        ``{"event": "step", "epoch", "epochs", "step", "steps", "loss", "accuracy", "images_per_second",
        "eta_seconds", "memory_bytes", "device_memory_bytes"}`` with steps counted over the whole run, and
        loss, accuracy and rate over the epoch so far; after an epoch ``{"event": "epoch", ...}`` with its
        metrics; ``{"event": "left_out", "step", "reason"}`` at the first batch of one image that the network
        cannot train on; ``{"event": "init", "fresh", "fitted"}`` with the tensors that `init` did not have,
        and lines on those that were changed to fit; ``{"event": "remade", "reason"}`` where results of a run
        that has ended are lost or damaged, and are made again from its checkpoint;
        ``{"event": "schedule", "first", "epochs", "lr"}`` where the epochs from `first` on were added to the
        run; ``{"event": "fallback", "step", "reason"}`` where the newer checkpoint is damaged and the older
        one counts; ``{"event": "kept", "step"}`` where a batch could not be read and a checkpoint keeps what
        was done; ``{"event": "paused", "reason"}`` and ``{"event": "continued"}`` around waiting for room on
        a full disk; ``{"event": "skipped", "images", "reason"}`` for each chunk that the loader leaves out,
        see `PackLoader`; ``{"event": "stopped", "epoch", "epochs", "best_epoch"}`` where patience ended a
        run; ``{"event": "best_lost", "best_epoch", "reason"}`` where the best weights cannot be read and the
        last are kept. Without `on_event` and `report` a full disk is an error at once.
    report : callable, optional
        Is given lines for people, such as `print` takes: what the run computes with, the metrics of each
        epoch, and what else happens.

    Returns
    -------
    TrainResult
        The metrics of all epochs. For a run already finished, at once, if its results are whole.

    Raises
    ------
    ConfigError
        If an argument is wrong, or does not fit the run in the folder.
    TrainingError
        If the loss stops being finite, or a file cannot be read or written. A new folder is removed again
        where this happens before its first checkpoint.
    TrainingInterrupted
        After SIGINT, SIGTERM or SIGHUP, once the current step is done and a checkpoint is written.
    """
    if model is not None:
        config = replace(config, model=allow_code(model))
    run_dir, task = Path(run_dir), task or Task()
    config = as_begun(config, run_dir) if resume else config
    placement = place(config)
    num_classes, image_shape = whole_number("num_classes", num_classes), whole_shape(image_shape)
    provenance = _whole_provenance(loader, task, run_dir, provenance or {})
    on_event = _told(on_event, report, config, placement)
    is_warm = init is not None or (resume and has_checkpoint(run_dir))
    require_agreement(loader, config, task, test, has_teacher=teacher is not None, is_warm=is_warm)
    check_loader(loader, num_classes, image_shape, "training")
    if config.distill:
        loader = TaughtBatches(loader, num_classes)
    check_batches(test, num_classes, image_shape, provenance.get("class_names"))
    init = None if init is None else weights_file(Path(init))
    description = describe_run(
        config,
        placement,
        num_classes=num_classes,
        image_shape=image_shape,
        steps_per_epoch=len(loader),
        init=init,
        teacher=None if teacher is None else Path(teacher),
        provenance=provenance,
        notes=notes,
    )
    about: dict[str, Any] = {"steps": len(loader), "is_ranked": task.is_ranked}
    is_done = partial(is_whole, run_dir, config, **about)
    with opened_run(run_dir, description, resume, is_done) as description:
        ended = finished_run(run_dir, config, **about)
        if ended is not None and ended.network is None:
            return _as_it_ended(run_dir, ended, on_event)
        with deferred_signals() as interrupted, _seeded(config, placement):
            weights = None if has_checkpoint(run_dir) else init
            loss = make_loss(config, task, placement, class_counts, num_classes)
            objective = make_objective(config, placement, normalization, teacher, loss, description)
            learner = _learner(config, placement, description, task, objective, weights)
            ends = description.get("schedules", [config.epochs])
            schedule = Schedule(ends, len(loader), config.lr, config.schedule, config.warm_up)
            run = TrainRun(
                loader,
                test,
                learner,
                config,
                placement,
                run_dir,
                image_shape,
                cadence,
                on_event,
                interrupted,
                schedule,
                task,
            )
            _begin(run, is_warm=weights is not None)
            if ended is not None and is_over(run.history, config):
                run.events.tell("remade", reason=ended.problem)
            run.finish()
            epoch = run.take_best()
            run.disk.write(lambda: save_model(run_dir, learner.tested, description, epoch))
    return TrainResult(run_dir, tuple(run.history))


@contextmanager
def _seeded(config: TrainConfig, placement: Placement) -> Iterator[None]:
    """Draw random numbers from the seed of the settings, and give those of the caller back afterwards."""
    cuda = [placement.device.index] if placement.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.manual_seed(config.seed)
        yield


def _learner(
    config: TrainConfig,
    placement: Placement,
    description: Mapping[str, Any],
    task: Task,
    objective: Objective,
    weights: Path | None,
) -> Learner:
    """Return the network of a run with its optimizer."""
    channels, *size = description["image_shape"]
    return Learner(
        config,
        placement,
        description["num_classes"],
        min(size),
        weights,
        objective,
        channels,
        description["provenance"].get("class_names"),
        task,
    )


def _as_it_ended(run_dir: Path, ended: Finished, on_event: OnEvent | None) -> TrainResult:
    """Return the result of a run whose network is whole, with its metrics written again if need be."""
    if ended.metrics is not None:
        write_metrics(run_dir, ended.history)
        if on_event is not None:
            on_event({"event": "remade", "reason": ended.metrics})
    return TrainResult(run_dir, tuple(ended.history))


def _told(
    on_event: OnEvent | None,
    report: Callable[[str], object] | None,
    config: TrainConfig,
    placement: Placement,
) -> OnEvent | None:
    """Return what takes events, and makes lines of them where there is a report."""
    if report is None:
        return on_event
    threads = count_text(torch.get_num_threads(), "thread")
    lines = LineReport(
        report, config.epochs, f"{config.model}; {placement.device}; {threads}; {placement.precision}"
    )

    def tell(event: dict[str, Any]) -> None:
        if on_event is not None:
            on_event(event)
        lines(event)

    return tell


def _begin(run: TrainRun, *, is_warm: bool) -> None:
    """Go to the checkpoint, if there is one, and tell what the run begins with."""
    if is_warm:
        run.events.tell("init", fresh=run.learner.fresh, fitted=run.learner.fitted)
    if has_checkpoint(run.run_dir):
        run.restore()
    run.events.tell("start", step=run.step)
    *_, before, epochs = 0, *run.schedule.ends
    if before:
        run.events.tell("schedule", first=before + 1, epochs=epochs, lr=run.config.lr)


def _whole_provenance(
    loader: TrainLoader, task: Task, run_dir: Path, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the provenance with the task, and with what a network's file is to say of its images.

    Of that nothing where an earlier run in the folder has none.
    """
    given = {**given} if task.is_default else {**given, "task": task.to_json()}
    if not isinstance(loader, PackLoader) or "mean" in given:
        return given
    earlier = read_description(run_dir)
    if earlier and "mean" not in earlier.get("provenance", {}):
        return given
    classes = loader.targets[0].classes if loader.targets else ()
    known: dict[str, Any] = {"mean": loader.normalization.mean, "std": loader.normalization.std}
    return known | ({"class_names": classes} if classes else {}) | given
