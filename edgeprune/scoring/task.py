"""The task of a scoring run: epochs of training, what each saw of every image in a file of its own."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from edgeprune_formats.strict_json import parse_json
from edgeprune_runtime.decode.augmentation import draw
from edgeprune_runtime.errors import ArtifactError, TrainingError
from edgeprune_runtime.output_files import write_tensors
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.placement import Placement
from edgeprune_runtime.training.progress.schedule import learning_rate
from edgeprune_runtime.training.step import Learner

from ..sources import SourceCheck
from ..work.image_store import ImageStore
from ..work.processes import Workers
from .config import ScoreConfig
from .scores_file import RECORD_TYPES, EpochRecords

__all__ = ["ScoringTask"]

_EVALUATION_BATCHES = 4  # Without gradients a batch may be this much larger than a process's part.


class ScoringTask:
    """Training with records, as `edgeprune.work.resumable.Task` has it.

    Parameters
    ----------
    store : ImageStore
        The N images to train on and to record.
    check : SourceCheck
        Gives their mean and standard deviation.
    config : ScoreConfig
        With `model` and `every` decided.
    training, placement : TrainConfig, Placement
        The same for the network, and where it runs.
    workers : Workers
        The processes that share each batch.
    folder : Path
        For the files of epochs, ``records/epoch-NNNN.safetensors``.
    classes : int
        Length of the network's output.
    """

    name = "scoring"

    def __init__(
        self,
        store: ImageStore,
        check: SourceCheck,
        config: ScoreConfig,
        training: TrainConfig,
        placement: Placement,
        workers: Workers,
        folder: Path,
        classes: int,
    ) -> None:
        self.config, self.epochs, self.images = config, config.epochs, len(store)
        self.steps = -(-len(store) // config.batch_size)
        self._store, self._placement, self._workers = store, placement, workers
        self._folder = folder
        shape = store.shape
        self._learner = Learner(training, placement, classes, min(shape[1:]), channels=shape[0])
        self._learner.model = workers.synchronized(self._learner.model)
        forward = workers.wrap(self._learner.model)
        self._learner.forward = cast(nn.Module, torch.compile(forward)) if config.compile else forward
        height, width = store.shape[1:]
        mean, std = check.statistics(check.good, height * width)
        self._mean, self._std = _channels(mean, placement.device), _channels(std, placement.device)
        self._records = torch.zeros((len(RECORD_TYPES) + 1, len(store)), device=placement.device)
        self._clock = _Clock(placement.device)

    def run(self, epoch: int, first: int) -> Iterator[int]:
        """Take the steps of an epoch; see `edgeprune.work.resumable.Task`."""
        if first == 0:
            self._records.zero_()
        self._diversify(epoch, first)
        parts = self._parts(epoch)[first:]
        # Drawn one by one: those of a whole epoch would be gigabytes for a million large images.
        batches = (
            (rows, self._augmentation(epoch, step, total))
            for step, (rows, total) in enumerate(parts, start=first)
        )
        model = self._learner.model
        model.train()
        for step, images in enumerate(self._store.batches(batches), start=first):
            rows, total = parts[step - first]
            number = epoch * self.steps + step
            labels = self._store.labels[torch.from_numpy(rows).to(self._placement.device, non_blocking=True)]
            lr = learning_rate(number, self.epochs * self.steps, self.config.lr)
            share = self._workers.share(len(rows), total)
            loss, logits = self._learner.step(self._normalize(images), labels, lr, number, share=share)
            with self._clock.of_records():
                self._note(rows, labels, logits, loss)
            yield step

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Write the epoch's records; see `edgeprune.work.resumable.Task`."""
        sums = self._workers.total(self._records)
        loss = float(sums[-1].mean())
        self._require_finite("loss", loss, epoch)
        assert self.config.every is not None
        recorded = dict(zip(RECORD_TYPES, sums, strict=False))
        tensors = {name: values.cpu() for name, values in recorded.items()}
        tensors["correct"] = tensors["correct"].to(torch.uint8)
        entropy = None
        if (epoch + 1) % self.config.every == 0 or epoch + 1 == self.epochs:
            with self._clock.of_records():
                tensors["entropies"] = self._entropies()
            entropy = float(tensors["entropies"].double().mean())
            self._require_finite("entropy", entropy, epoch)
        if self._workers.rank == 0:
            _epoch_file(self._folder, epoch).parent.mkdir(exist_ok=True)
            checksums = {name: zlib.crc32(tensor.numpy().tobytes()) for name, tensor in tensors.items()}
            write_tensors(_epoch_file(self._folder, epoch), tensors, {"crc32": json.dumps(checksums)})
        accuracy = float(tensors["correct"].double().mean())
        return {"loss": loss, "accuracy": accuracy, "entropy": entropy, "record_seconds": self._clock.read()}

    def recorded(self, epoch: int) -> EpochRecords:
        """Return what an epoch recorded.

        Raises
        ------
        ArtifactError
            Its file is damaged.
        """
        path = _epoch_file(self._folder, epoch)
        try:
            with safe_open(path, "np") as file:
                checksums = parse_json((file.metadata() or {})["crc32"].encode())
                arrays = {name: file.get_tensor(name) for name in checksums}
            if any(zlib.crc32(array.tobytes()) != checksums[name] for name, array in arrays.items()):
                raise ValueError("a checksum does not match")
            if any(array.shape != (len(self._store),) for array in arrays.values()):
                raise ValueError("of another number of images")
            return EpochRecords({name: arrays[name] for name in RECORD_TYPES}, arrays.get("entropies"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path}: the records of an epoch are missing or damaged; remove {self._folder} "
                "and start again"
            ) from error

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state of training and the records of the epoch so far."""
        return {**self._learner.tensors(), "records": self._workers.total(self._records)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned."""
        self._learner.restore(tensors)
        # They are summed over processes when they are next needed, so one of them holds what there was.
        kept = tensors["records"] if self._workers.rank == 0 else torch.zeros_like(tensors["records"])
        self._records = kept.to(self._placement.device)

    def network(self) -> dict[str, torch.Tensor]:
        """Return the trained network's tensors by name."""
        return dict(self._learner.model.state_dict())

    def _require_finite(self, name: str, value: float, epoch: int) -> None:
        if not np.isfinite(value):
            raise TrainingError(
                f"the {name} became {value} in epoch {epoch + 1} of {self.epochs}; "
                f"start again with a lower learning rate than {self.config.lr} "
                "(`ScoreConfig.lr` of edgeprune score)"
            )

    def _diversify(self, epoch: int, first: int) -> None:
        """Seed what networks draw themselves, such as dropout, differently in each of several processes."""
        if self._workers.count > 1:
            words = np.random.SeedSequence([self.config.seed, epoch, first, self._workers.rank])
            torch.manual_seed(int(words.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def _normalize(self, images: torch.Tensor) -> torch.Tensor:
        return (images.float() / torch.iinfo(images.dtype).max - self._mean) / self._std

    def _parts(self, epoch: int) -> list[tuple[NDArray[np.int64], int]]:
        """Return, for each step, this process's rows and how many the batch has in all processes."""
        order = np.random.default_rng([self.config.seed, epoch]).permutation(self.images)
        # Batches of sizes that differ by one at most: no last batch that is too small to be normalized.
        return [(self._workers.part(rows), len(rows)) for rows in np.array_split(order, self.steps)]

    def _augmentation(self, epoch: int, step: int, total: int) -> Any:
        _, height, width = self._store.shape
        drawn = draw(
            self.config.augment,
            seed=self.config.seed,
            epoch=epoch,
            batch=step,
            count=total,
            height=height,
            width=width,
        )
        if drawn is None:
            return None
        return replace(drawn, rows=self._workers.part(drawn.rows), columns=self._workers.part(drawn.columns))

    @torch.no_grad()
    def _note(
        self, rows: NDArray[np.int64], labels: torch.Tensor, logits: torch.Tensor, loss: torch.Tensor
    ) -> None:
        softmax = logits.float().softmax(dim=1)
        column = labels[:, None]
        probability = softmax.gather(1, column)
        other = softmax.scatter(1, column, -1.0).amax(dim=1)
        error = softmax.scatter_add(1, column, -torch.ones_like(probability)).norm(dim=1)
        probability = probability[:, 0]
        correct = (logits.argmax(1) == labels).float()
        values = torch.stack([correct, probability, probability - other, error, loss.expand_as(correct)])
        self._records[:, torch.from_numpy(rows).to(self._records.device, non_blocking=True)] = values.float()

    @torch.no_grad()
    def _entropies(self) -> torch.Tensor:
        """Return the entropy of every image's softmax in nats, float32 [N], on the CPU."""
        model = self._learner.model.eval()
        entropies = torch.zeros(self.images, device=self._placement.device)
        start, stop = self._workers.bounds(self.images)
        size = max(1, self.config.batch_size * _EVALUATION_BATCHES // self._workers.count)
        parts = [np.arange(at, min(at + size, stop)) for at in range(start, stop, size)]
        for rows, images in zip(parts, self._store.batches([(rows, None) for rows in parts]), strict=True):
            with self._placement.autocast():
                logits = model(self._normalize(images))
            logs = logits.float().log_softmax(dim=1)
            entropies[int(rows[0]) : int(rows[-1]) + 1] = -(logs.exp() * logs).sum(dim=1)
        return self._workers.total(entropies).cpu()


class _Clock:
    """Time spent in recording, without making the device wait between steps."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = 0.0
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def of_records(self) -> Iterator[None]:
        """Count the block's time."""
        if self._cuda:
            begin, end = _event(), _event()
            begin.record()
            yield
            end.record()
            self._pairs.append((begin, end))
            return
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def read(self) -> float:
        """Return the seconds counted since the last call."""
        if self._cuda:
            torch.cuda.synchronize()
            self._seconds = sum(begin.elapsed_time(end) for begin, end in self._pairs) / 1000
            self._pairs.clear()
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _epoch_file(folder: Path, epoch: int) -> Path:
    return folder / "records" / f"epoch-{epoch + 1:04d}.safetensors"


def _channels(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
