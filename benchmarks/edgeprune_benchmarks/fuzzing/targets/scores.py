"""Scores files: their bytes, and what they hold."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from edgeprune.scoring.scores_file import (
    RECORD_TYPES,
    EpochRecords,
    read_classifier,
    read_scores_file,
    write_scores_file,
)

from ..hdf5_edits import SIZE, edit
from .base import Target
from .packs import changed_in_place, write_repaired

__all__ = ["ScoresContent", "ScoresFile"]

SAMPLES = 7
PROVENANCE = {
    "source": {"spec": "digits", "sha256": "ab" * 32},
    "config": {"epochs": 2},
    "classifier": {"model": "resnet8"},
}


def _write(path: Path) -> bytes:
    noise = np.random.default_rng(0)
    epochs = [
        EpochRecords(
            {name: noise.random(SAMPLES).round().astype(kind) for name, kind in RECORD_TYPES.items()},
            noise.random(SAMPLES).astype(np.float32),
        )
        for _ in range(2)
    ]
    write_scores_file(
        path,
        rows=np.arange(SAMPLES),
        labels=np.arange(SAMPLES) % 3,
        epochs=epochs,
        count=2,
        every=1,
        classifier={"weight": noise.random((2, 3)).astype(np.float32)},
        provenance=PROVENANCE,
    )
    return path.read_bytes()


def _read(path: Path) -> None:
    records = read_scores_file(path)
    for name in (*RECORD_TYPES, "entropies", "final_entropies"):
        records.array(name)
    read_classifier(path)


class ScoresFile(Target):
    """The bytes of a scores file, with right checksums over HDF5's metadata."""

    name = "scores-file"
    what = "bytes of a scores file, checksums of HDF5 repaired"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seeds = [_write(folder / "sound.h5")]

    def check(self, data: bytes) -> None:
        """Read all of it; what is not plain is refused before HDF5 opens it."""
        path = self.folder / "scores.h5"
        write_repaired(path, data)
        _read(path)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change the file, mostly without moving what lies behind."""
        return changed_in_place(data, source, self.seeds)


class ScoresContent(Target):
    """Instructions that rewrite attributes and arrays of a scores file."""

    name = "scores-content"
    what = "attributes and arrays of a scores file, rewritten with right checksums"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._sound = _write(folder / "sound.h5")
        self.seeds = [b""]

    def check(self, data: bytes) -> None:
        """Read all of it."""
        path = self.folder / "scores.h5"
        path.write_bytes(self._sound)
        edit(path, data)
        _read(path)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Return up to three instructions, new ones or some of before."""
        steps = [source.randbytes(SIZE) for _ in range(source.randint(1, 3))]
        return data[: SIZE * source.randint(0, 1)] + b"".join(steps)
