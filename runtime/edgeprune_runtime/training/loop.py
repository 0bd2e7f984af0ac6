"""The loop of a training run, with its checkpoints and events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_formats.errors import one_line

from ..checks import from_json
from ..errors import TrainingError
from ..loading.order.skipping import SkippedChunk
from ..networks.shapes import smallest_batch
from ..system.machine import peak_bytes
from ..task import Task
from .interfaces import Batches, OnEvent, TrainLoader
from .objectives.losses import loss_of
from .objectives.metrics import hits, make_meter
from .placement import Placement
from .progress.cadence import Cadence
from .progress.events import Events
from .progress.schedule import Schedule
from .progress.signals import TrainingInterrupted
from .progress.state import TrainState
from .progress.stopping import best_epoch, is_over
from .progress.tally import Tally
from .run_folder.best import best_weights, remove_other_bests, write_best
from .run_folder.checkpoint import load_checkpoint, save_checkpoint
from .run_folder.full_disk import PatientDisk
from .run_folder.results import write_metrics
from .settings import TrainConfig
from .step import Learner

__all__ = ["TrainRun"]


@dataclass
class TrainRun:
    """A run under way: where it stands, and what it needs to go on.

    Attributes
    ----------
    history : list of dict
        The metrics of the epochs that are complete.
    step : int
        Steps taken since the run began.
    tally : Tally
        The running sums of the epoch that is not complete.
    best : dict of str to str
        The digests of the files of the best weights, with `TrainConfig.patience`.
    """

    loader: TrainLoader
    test: Batches | None
    learner: Learner
    config: TrainConfig
    placement: Placement
    run_dir: Path
    image_shape: Sequence[int]
    cadence: Cadence
    on_event: OnEvent | None
    interrupted: Callable[[], bool]
    schedule: Schedule
    task: Task = Task()  # noqa: RUF009 - frozen
    history: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    tally: Tally = field(default_factory=Tally)
    best: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.events = Events(self.on_event, self.schedule.steps, self.step)
        self._saved, self._saved_step = time.perf_counter(), self.step
        self.disk = PatientDisk(self.on_event, self.interrupted)
        self._loss = loss_of(self.task)
        self._smallest: dict[int | tuple[int, int] | None, int] = {}

    def _smallest_batch(self) -> int:
        """Return the fewest images of a batch in the epoch that runs, by its size."""
        config, size = self.config, self.config.resolutions.size(len(self.history))
        if size not in self._smallest:
            self._smallest[size] = smallest_batch(
                config.model, self.image_shape, config.stem, self.learner.num_classes, size
            )
        return self._smallest[size]

    def restore(self) -> None:
        """Go to where the checkpoint in the folder stands, and cut the metrics back to it.

        Raises
        ------
        TrainingError
            If the checkpoint is damaged or of another model.
        ConfigError
            If the loader finds that the position is not one of its own.
        """
        checkpoint = load_checkpoint(self.run_dir)
        state = self._checked(checkpoint.state)
        self.step, self.history, self.tally = state.step, state.history, state.tally.running()
        self.events.first_step = self._saved_step = self.step
        self.best = state.best
        if checkpoint.damage is not None:
            self.events.tell("fallback", step=self.step, reason=checkpoint.damage)
        self.disk.write(lambda: write_metrics(self.run_dir, self.history))
        try:
            self.loader.load_state_dict(state.loader)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self._forged(f"the loader cannot go to its position ({error!r})") from error
        self.learner.restore(checkpoint.tensors)

    def _checked(self, state: dict[str, Any]) -> TrainState:
        try:
            found = from_json(TrainState, state)
            found.check(self.config.epochs, len(self.loader), is_ranked=self.task.is_ranked)
        except ValueError as error:
            raise self._forged(str(error)) from error
        return found

    def _forged(self, reason: str) -> TrainingError:
        what = f"the checkpoint is not one of this run: {one_line(reason)}"
        return TrainingError(f"{self.run_dir}: {what}; start again in another folder")

    def finish(self) -> None:
        """Train the epochs that are left, with a checkpoint after each and in between as `cadence` has it.

        Raises
        ------
        TrainingError
            If the loss stops being finite, or a file cannot be written.
        TrainingInterrupted
            After a signal, once a checkpoint is written.
        EdgePruneError, OSError
            If a batch cannot be read, once a checkpoint is written of the steps that were taken.
        """
        while not is_over(self.history, self.config):
            started = time.perf_counter() - self.tally.seconds
            with self._keeping_work(started):
                self._train_epoch(started)
                scores = self._score()
            self._end_epoch(scores, time.perf_counter() - started)

    def take_best(self) -> int | None:
        """Take the weights of the best epoch for those to keep, and return its number.

        None without `TrainConfig.patience`. Where they cannot be read, the last stay, and this is told.
        """
        if self.config.patience is None:
            return None
        last, epoch = len(self.history), best_epoch(self.history)
        if last < self.config.epochs:
            self.events.tell("stopped", epoch=last, epochs=self.config.epochs, best_epoch=epoch)
        try:
            self.learner.tested.load_state_dict(best_weights(self.run_dir, epoch, self.best))
        except (TrainingError, RuntimeError) as error:
            self.events.tell("best_lost", best_epoch=epoch, reason=one_line(error))
            return last
        return epoch

    @contextlib.contextmanager
    def _keeping_work(self, started: float) -> Iterator[None]:
        """Write a checkpoint where the data fails, from which the run goes on once they are mended."""
        try:
            yield
        except (TrainingError, TrainingInterrupted):
            raise
        except (EdgePruneError, OSError):
            if self.step > self._saved_step:
                self._drain(started)
                self._require_finite()
                self._checkpoint()
                self.events.tell("kept", step=self.step)
            raise

    def _train_epoch(self, started: float) -> None:
        if not self.tally.steps:
            self.loader.set_epoch(len(self.history))
        self.learner.train()
        # A run that stopped after the epoch's last step: its loader stands at the start of the next epoch.
        batches = self.loader if self.tally.steps < len(self.loader) else ()
        for images, labels in batches:
            # It takes a while to find out, and two images are always enough.
            if len(labels) > 1 or len(labels) >= self._smallest_batch():
                self._take_step(images, labels)
            else:
                self._drain(started)
                self._leave_out()
            self.events.tell_skipped(self._skipped())
            self._look_up(started)
        self._drain(started)
        if not self.tally.images:
            what = f"the loader gave no batch in epoch {len(self.history) + 1}"
            raise TrainingError(f"{what}; lower `batch_size` or keep the last batch")
        self._require_finite()

    def _look_up(self, started: float) -> None:
        """After a step: tell of it, write a checkpoint if it is time, stop if asked to."""
        now = time.perf_counter()
        stops, tells = self.interrupted(), self.events.is_step_due(now)
        keeps = self.cadence.is_due(self.step, now - self._saved)
        if stops or tells or keeps:
            self._drain(started)
        if tells:
            self._tell_of_step()
        if stops:
            self._stop()
        if keeps:
            self._require_finite()
            self._checkpoint()

    def _take_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        images, labels = self.placement.put(images, labels)
        loss, logits = self.learner.step(images, labels, self.schedule.rate(self.step), self.step)
        self.tally.add(loss, hits(self.task, logits, labels), len(labels))
        self.step += 1

    def _leave_out(self) -> None:
        """Pass over a last batch of one image, as a step without images, and tell of it once."""
        what = "a batch of one image cannot be normalized where the network has reduced it to one pixel"
        if not self.tally.images:
            raise TrainingError(f"{what}; raise `batch_size`, or train on more images")
        none = torch.zeros(2, dtype=torch.int64, device=self.placement.device)
        self.tally.add(none[0].float(), none[1], 0)
        self.step += 1
        self.events.tell_left_out(self.step, what)

    def _drain(self, started: float) -> None:
        wrong = self.tally.drain()
        if wrong is not None:
            raise self._diverged(f"the loss became {wrong} at step {self.tally.steps} of {len(self.loader)}")
        self.tally.seconds = time.perf_counter() - started

    def _skipped(self) -> Sequence[SkippedChunk]:
        return getattr(self.loader, "skipped", ())

    def _tell_of_step(self) -> None:
        self.events.tell_step(
            self.step,
            epoch=len(self.history) + 1,
            epochs=self.config.epochs,
            loss=self.tally.loss / self.tally.images,
            accuracy=self._train_accuracy(),
            images_per_second=self.tally.images / self.tally.seconds,
            device_memory_bytes=self._device_bytes(torch.cuda.memory_allocated),
        )

    def _train_accuracy(self) -> float | None:
        return self.tally.correct / self.tally.images if self.task.is_ranked else None

    def _device_bytes(self, measure: Callable[[torch.device], int]) -> int | None:
        return measure(self.placement.device) if self.placement.device.type == "cuda" else None

    def _require_finite(self) -> None:
        # A step with a finite loss can still have gradients that are not.
        if not all(torch.isfinite(p).all() for p in self.learner.model.parameters()):
            raise self._diverged("a weight is no longer finite")

    def _stop(self) -> None:
        self._require_finite()
        self._checkpoint()
        where = f"after step {self.step} of {self.schedule.steps}"
        raise TrainingInterrupted(f"{self.run_dir}: interrupted {where}; go on with `resume=True`")

    def _score(self) -> dict[str, Any]:
        """Return the metrics of the test set, whose names begin with ``test_``."""
        if self.test is None:
            return {"test_loss": None, "test_accuracy": None}
        self.learner.tested.eval()
        total, count = torch.zeros((), dtype=torch.float64, device=self.placement.device), 0
        meter = make_meter(self.task)
        for images, wanted in self.test:
            images, wanted = self.placement.put(images, wanted)
            outputs = self.learner.answers(images)
            total += self._loss(outputs, wanted, "sum").double()
            meter.add(outputs, wanted)
            count += len(wanted)
            if self.interrupted():
                self._stop()
        if not count:
            raise ConfigError("the test set yields no batch")
        if not torch.isfinite(total):
            if not all(one.isfinite().all() for batch in self.test for one in batch):
                raise ConfigError(
                    "test images or their targets have values that are not finite; leave them out"
                )
            raise self._diverged(f"the test loss became {float(total)}")
        found = {f"test_{name}": value for name, value in meter.result().items()}
        return {"test_loss": float(total) / count, "test_accuracy": None, **found}

    def _end_epoch(self, scores: dict[str, Any], seconds: float) -> None:
        tally = self.tally
        metrics = {
            "epoch": len(self.history) + 1,
            "train_loss": tally.loss / tally.images,
            "train_accuracy": self._train_accuracy(),
            "skipped_images": sum(one.images for one in self._skipped()),
            **scores,
            "lr": self.schedule.rate(self.step - 1),
            "images_per_second": tally.images / tally.seconds,
            "seconds": seconds,
            "peak_memory_bytes": peak_bytes(),
            "peak_device_memory_bytes": self._device_bytes(torch.cuda.max_memory_allocated),
        }
        self.history.append(metrics)
        self.tally = Tally()
        if self.config.patience is None:
            self._checkpoint()
        else:
            self._checkpoint_with_best(metrics)
        self.disk.write(lambda: write_metrics(self.run_dir, self.history))
        self.events.tell("epoch", **metrics)

    def _checkpoint_with_best(self, metrics: dict[str, Any]) -> None:
        metrics["best_epoch"] = best_epoch(self.history)
        if metrics["best_epoch"] == metrics["epoch"]:
            weights = self.learner.tested.state_dict()
            self.disk.write(lambda: self.best.update(write_best(self.run_dir, metrics["epoch"], weights)))
        self._checkpoint()
        self.best = remove_other_bests(self.run_dir, self.history, self.best)

    def _checkpoint(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "tally": self.tally.sums(),
            "history": self.history,
            "loader": self.loader.state_dict(),
        }
        if self.best:
            state["best"] = self.best
        self.disk.write(lambda: save_checkpoint(self.run_dir, self.learner.tensors(), state))
        self._saved, self._saved_step = time.perf_counter(), self.step

    def _diverged(self, what: str) -> TrainingError:
        epoch = f"epoch {len(self.history) + 1} of {self.config.epochs}"
        return TrainingError(f"{what} in {epoch}; start again with an `lr` lower than {self.config.lr}")
