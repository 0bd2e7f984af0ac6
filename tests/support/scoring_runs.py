"""Small scoring runs, also in a process that tests kill."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from forked import Forked

import edgeprune.work.resumable
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.run import run_scoring
from edgeprune.scoring.scores_file import read_classifier
from edgeprune.sources import check_source, open_source
from edgeprune_runtime.networks.models import create_model

IMAGES, CLASSES, STEPS = 40, 3, 3
# In float32, in which one process and two, and this and the tests' own sums, agree closely.
TINY = ScoreConfig(
    model="resnet8",
    epochs=3,
    every=2,
    batch_size=16,
    lr=0.05,
    seed=1,
    device="cpu",
    precision="float32",
)
RUNS = {
    "tiny.h5": TINY,
    # With two processes, one image for each in a step.
    "pairs.h5": replace(TINY, epochs=1, every=1, batch_size=2, lr=0.005),
    # Of the command line, long enough to be stopped on its way.
    "long.h5": replace(TINY, epochs=4, batch_size=4, lr=0.005),
}
"""Settings of the runs that are repeated with two processes."""


def options(config):
    """The settings of a run on the command line."""
    names = ("model", "epochs", "every", "batch_size", "lr", "seed", "device", "precision")
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(config, name)))]


def write_source(folder, images=IMAGES, side=16, seed=0):
    """Write noise in `CLASSES` classes; give the source's spec."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, side, side, 3)).astype(np.uint8)
    path = Path(folder) / "images.npz"
    np.savez(path, x=pixels, y=np.arange(images) % CLASSES)
    return f"npz:{path}"


def score(path, spec, config=TINY, *, skip_bad=False, **options):
    source = open_source(spec)
    return run_scoring(source, check_source(source, skip_bad=skip_bad), path, config, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def arrays(path):
    """Every array of a scores file but its provenance; of the network, every tensor."""
    found = {f"classifier/{name}": tensor for name, tensor in read_classifier(path).items()}

    def note(name, item):
        if isinstance(item, h5py.Dataset) and name not in ("provenance", "classifier"):
            found[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return found


def assert_same_scores(one, other):
    ours, theirs = arrays(one), arrays(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
    assert not different


def at_report(number, act):
    """A report that acts when it is called for the `number`-th time, from 1.

    With `edgeprune.work.resumable.ResumableRun.report_seconds` below 0 it is called after each step.
    """
    calls = 0

    def report(event):
        nonlocal calls
        calls += 1
        if calls == number:
            act()

    return report


def interrupt(number=signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


class Crash(BaseException):
    """What no code expects: a stand-in for kill -9 that needs no process."""


def crash():
    raise Crash


def normalized(pixels, mean, std):
    images = torch.from_numpy(pixels.copy()).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) for values in (mean, std))
    return (images.float() / 255 - mean) / std


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def entropies_of_the_classifier(records, spec):
    network = records.provenance["classifier"]
    model = create_model(network["model"], network["num_classes"], min(network["image_shape"][1:]))
    tensors = {name: torch.from_numpy(array) for name, array in read_classifier(records.path).items()}
    model.load_state_dict(tensors)
    source = open_source(spec)
    pixels = source.read(records.rows)
    with torch.no_grad():
        logits = model.eval()(normalized(pixels, network["mean"], network["std"]))
    probabilities = softmax(logits.double().numpy())
    return -(probabilities * np.log(probabilities)).sum(axis=1)


def start_process(path, spec, config):
    """Score in a process that a test kills, and once more whenever it has.

    It keeps a checkpoint after each step, and before that prints its number for the test to count. The
    process that starts it prints ``killed``.
    """
    return Forked(partial(score_until_finished, path, spec, config))


def score_until_finished(path, spec, config):
    run = edgeprune.work.resumable.ResumableRun
    run.report_seconds = run.checkpoint_seconds = -1
    while not path.exists():
        child = os.fork()
        if not child:
            score(path, spec, config, report=lambda event: print(os.getpid(), flush=True))
            os._exit(0)
        if os.waitpid(child, 0)[1] == signal.SIGKILL:
            print("killed", flush=True)
