"""Packs smaller than anyone plans for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..child import Done
from ..place import Place
from ..stock import pixels
from .registry import situation

KIND = "small numbers"


def _train(place: Place, images: int, *words: Any, classes: int = 2) -> Done:
    np.savez(place / "few.npz", x=pixels(images, classes=classes), y=np.arange(images) % classes)
    built = place.run("build", "npz:few.npz", "-o", "few.h5", "--device", "cpu", "-q")
    place.right(built, lines=None)
    words = ("--model", "resnet8", "--epochs", 2, "--device", "cpu", "-o", "run", *words)
    return place.run("train", "few.h5", *words)


def _steps(place: Place, done: Done, steps: int) -> str:
    from edgeprune_runtime.training.run_folder.checkpoint import read_state

    place.right(done, lines=None)
    lines = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text().splitlines()]
    finite = all(0 <= line["train_loss"] < 1e3 for line in lines) and len(lines) == 2
    return place.right(done, finite and read_state(place / "run")["step"] == steps, lines=None)


@situation(KIND, "five images in batches of 128")
def _five(place: Place) -> str:
    return _steps(place, _train(place, 5), 2)


@situation(KIND, "two images, gone through in two parts")
def _two(place: Place) -> str:
    return _steps(place, _train(place, 2, "--accumulate", 2), 2)


@situation(KIND, "one image")
def _one(place: Place) -> str:
    done = _train(place, 1, classes=1)
    return _steps(place, done, 2) if done.code == 0 else place.refused(done, "image")


@situation(KIND, "seven images in batches of one")
def _batches_of_one(place: Place) -> str:
    done = _train(place, 7, "--batch-size", 1)
    return _steps(place, done, 14) if done.code == 0 else place.refused(done, "batch")


@situation(KIND, "three images on perturbed images, moving average")
def _adversarial(place: Place) -> str:
    return _steps(place, _train(place, 3, "--adversarial", "n-fgsm", "--ema", 0.9), 2)


@situation(KIND, "one class of nine images")
def _one_class(place: Place) -> str:
    done = _train(place, 9, "--batch-size", 4, classes=1)
    place.right(done, lines=None)
    return place.right(done, (place / "run/model.safetensors").exists(), lines=None)


@situation(KIND, "more parts than images")
def _more_parts(place: Place) -> str:
    place.take("pack.h5")
    done = place.run("split", "pack.h5", "-n", 25, "-o", "parts")
    return place.refused(done, "25")


@situation(KIND, "parts of one image each, merged again")
def _parts_of_one(place: Place) -> str:
    place.take("pack.h5")
    place.right(place.run("split", "pack.h5", "-n", 24, "-o", "parts", "-q"))
    packs = sorted((place / "parts").glob("*.h5"))
    place.right(place.run("merge", *packs, "-o", "all.h5", "-q"), len(packs) == 24)
    from edgeprune_formats import open_pack

    with open_pack(place / "all.h5") as pack:
        return place.right(place.run("verify", "all.h5"), len(pack) == 24)
