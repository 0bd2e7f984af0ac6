"""A small source whose classes can be learned, its scores, and settings that take a moment."""

import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch

from edgeprune.masks.config import MaskConfig
from edgeprune.packs.config import BuildConfig
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.run import run_scoring
from edgeprune.sources import check_source, open_source
from edgeprune_formats import open_pack
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.training.run_folder.results import save_model

SIDE, CLASSES, IMAGES = 12, 3, 48
SCORING = ScoreConfig(
    model="resnet8",
    epochs=4,
    every=1,
    batch_size=12,
    lr=0.05,
    augment="none",
    device="cpu",
    precision="float32",
)
MASKS = MaskConfig(epochs=2, batch_size=16, lr=0.01)
LF = BuildConfig(method="lf", codec="sparse-f32", device="cpu", seed=3, masks=MASKS, scoring=SCORING)
JELF = replace(LF, method="jelf")
_CACHE = {}


def pixels(images=IMAGES, side=SIDE, seed=0, classes=CLASSES):
    """Blurred patterns, one for each class, in noise; uint8 [images, side, side, 3], and labels."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).random((classes, -(-side // 3), -(-side // 3), 3))
    labels = np.arange(images) % classes
    blurred = patterns[labels].repeat(3, axis=1).repeat(3, axis=2)[:, :side, :side]
    noisy = 0.25 + 0.5 * blurred + 0.3 * random.standard_normal((images, side, side, 3))
    return (255 * noisy.clip(0, 1)).astype(np.uint8), labels


def write_source(folder, **options):
    """Write `pixels` to ``images.npz``; give the source's spec."""
    images, labels = pixels(**options)
    np.savez(Path(folder) / "images.npz", x=images, y=labels)
    return f"npz:{Path(folder) / 'images.npz'}"


@dataclass(frozen=True)
class Scored:
    """A source and a scoring run over it, which tests leave as they are."""

    spec: str
    scores: Path

    @property
    def source(self):
        return open_source(self.spec)

    @property
    def check(self):
        return check_source(self.source)


def scored(tmp_path_factory):
    """Score the small source, once in a session."""
    if "scored" not in _CACHE:
        folder = tmp_path_factory.mktemp("scored")
        spec = write_source(folder)
        source = open_source(spec)
        run_scoring(source, check_source(source), folder / "s.scores.h5", SCORING)
        _CACHE["scored"] = Scored(spec, folder / "s.scores.h5")
    return _CACHE["scored"]


def content(path, *, without=()):
    """All that a pack holds, but for what tells when, and from which files, it was made."""
    pack = open_pack(path)
    provenance = json.loads(json.dumps(dict(pack.header.provenance)))
    for part, name in without:
        del provenance[part][name]
    with h5py.File(path, "r", locking=False) as file:
        arrays = {name: dataset[...].tobytes() for name, dataset in file["samples"].items()}
    scores = None if pack.scores is None else pack.scores.tobytes()
    return arrays, pack.labels.tolist(), pack.source_index.tolist(), scores, provenance


def kept(path):
    """The positions that a pack keeps, as a mask: bool [N, C, H, W]."""
    pack = open_pack(path)
    header = pack.header
    mask = np.zeros((len(pack), header.channels, header.height * header.width), bool)
    with h5py.File(path, "r", locking=False) as file:
        positions = file["samples/indices"][...].astype(np.int64)
    bits = (header.width - 1).bit_length()
    flat = (positions >> bits) * header.width + (positions & ((1 << bits) - 1))
    np.put_along_axis(mask, flat, True, axis=2)
    return mask.reshape(len(pack), *header.shape)


class Stops:
    """A report and a progress that stop a build when a stage is under way."""

    def __init__(self, stage, at):
        self.stage, self.left, self.seen = stage, at, []

    def _note(self, stage):
        self.seen.append(stage)
        self.left -= stage == self.stage
        return stage == self.stage and self.left == 0

    def report(self, event):
        if self._note(event["stage"]):
            os.kill(os.getpid(), signal.SIGINT)

    def progress(self, stage, done, total):
        if self._note(stage):
            raise KeyboardInterrupt


def run_folder(folder, *, classes=3, side=12, **normalization):
    """The folder of a run that has trained nothing."""
    (folder / "run").mkdir()
    torch.manual_seed(0)
    record = {"config": {"model": "resnet8"}, "num_classes": classes, "image_shape": [3, side, side]}
    normalization = normalization or {"mean": [0.5] * 3, "std": [0.25] * 3}
    save_model(
        folder / "run", create_model("resnet8", classes, side), {**record, "provenance": normalization}
    )
    return folder / "run"
