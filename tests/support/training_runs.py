"""Small training runs, also in a process that tests kill, and a loader that keeps to `TrainLoader`."""

import json
import math
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial

import torch
from forked import Forked

from edgeprune_runtime.training import Cadence, TrainConfig, load_model, train
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint

CLASSES = 4
SHAPE = (3, 16, 16)
TIMES = ("images_per_second", "seconds", "peak_memory_bytes", "peak_device_memory_bytes")


def separable(count, seed):
    """Images of `CLASSES` fixed patterns in noise, float32 ``[count, 3, 16, 16]``, and their labels."""
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(99))
    random_source = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=random_source)
    return patterns[labels] + torch.randn(count, *SHAPE, generator=random_source), labels


class MemoryLoader:
    """A `TrainLoader` over images in memory: shuffled, with noise for augmentation."""

    def __init__(self, count=26, batch_size=8, on_batch=lambda epoch, batch: None):
        self.images, self.labels = separable(count, seed=1)
        self.batch_size = batch_size
        self.on_batch = on_batch
        self.epoch = self.position = 0

    def __len__(self):
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self):
        order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(self.epoch))
        for batch in range(self.position, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            noise = torch.Generator().manual_seed(1000 * self.epoch + batch)
            images = self.images[chosen] + 0.1 * torch.randn(len(chosen), *SHAPE, generator=noise)
            self.position = batch + 1
            self.on_batch(self.epoch, batch)
            yield images, self.labels[chosen]

    def set_epoch(self, epoch):
        self.epoch, self.position = epoch, 0

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


class Small(MemoryLoader):
    """Images of as many pixels as a network reduces to one: by default 4x4, which resnet8 does."""

    def __init__(self, *arguments, side=4):
        super().__init__(*arguments)
        self.side = side

    def __iter__(self):
        return ((images[:, :, : self.side, : self.side], labels) for images, labels in super().__iter__())


TEST = [separable(16, seed=2), separable(5, seed=3)]
TINY = TrainConfig(model="resnet8", epochs=3, batch_size=8, lr=0.05, ema=0.9, device="cpu")


def run(run_dir, config=TINY, *, on_batch=lambda epoch, batch: None, **options):
    options = {
        "test": TEST,
        "loader": MemoryLoader(batch_size=config.batch_size, on_batch=on_batch),
    } | options
    return train(options.pop("loader"), config, run_dir, num_classes=CLASSES, image_shape=SHAPE, **options)


def send(signal_number, at):
    """An `on_batch` that sends this process a signal while batch `at` = (epoch, batch) is prepared."""
    return lambda *now: os.kill(os.getpid(), signal_number) if now == at else None


def metrics(run_dir, times=False):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if times or k not in TIMES} for line in lines]


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    ours, theirs = load_checkpoint(one), load_checkpoint(other)
    assert ours.state["step"] == theirs.state["step"]
    assert ours.tensors.keys() == theirs.tensors.keys()
    different = [
        name for name, tensor in ours.tensors.items() if not torch.equal(tensor, theirs.tensors[name])
    ]
    assert not different
    kept, expected = load_model(one).state_dict(), load_model(other).state_dict()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)


KILLED = replace(TINY, epochs=12)
CARD_SECONDS = 0.01


def start_process(run_dir):
    """Train in a process that a test kills, and once more whenever it has; each step leaves a checkpoint.

    It prints its number for each batch and before anything reaches the disk, which takes `CARD_SECONDS` as
    on a slow card. The process that starts it prints ``killed``, or ``killed while writing``.
    """
    return Forked(partial(train_until_finished, run_dir))


def train_until_finished(run_dir):
    os.fsync = slow_fsync
    while not (run_dir / "model.safetensors").exists():
        child = os.fork()
        if not child:
            run(
                run_dir,
                KILLED,
                resume=True,
                cadence=Cadence(steps=1),
                on_batch=lambda *_: print(os.getpid(), flush=True),
            )
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == signal.SIGKILL:
            print("killed while writing" if is_half_written(run_dir) else "killed", flush=True)
        elif status:
            sys.exit("the training failed")


def is_half_written(run_dir):
    """Whether the folder has part of a checkpoint that was never committed."""
    names = {path.name for path in run_dir.glob("checkpoint-*")}
    whole = {name for name in names if name.replace(".safetensors", ".json") in names}
    unfinished = list(run_dir.glob(".checkpoint-*.partial"))
    return bool(unfinished or names - whole - {name for name in names if name.endswith(".json")})


def slow_fsync(descriptor, fsync=os.fsync):
    print(os.getpid(), flush=True)
    time.sleep(CARD_SECONDS)
    fsync(descriptor)
