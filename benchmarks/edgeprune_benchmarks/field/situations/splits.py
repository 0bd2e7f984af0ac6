"""Folders for splits under names, and in places, that are not the usual ones."""

from __future__ import annotations

import json
from pathlib import Path

from ..place import Place
from ..stock import photographs
from .registry import situation

KIND = "split folders"
BUILD = ("build", "imagefolder:photos", "-o", "out.h5", "--device", "cpu", "-q")


def _classes(path: Path) -> dict[str, int]:
    from edgeprune_formats import open_pack

    with open_pack(path) as pack:
        names, labels = pack.header.class_names, pack.labels.tolist()
    return {name: labels.count(number) for number, name in enumerate(names)}


@situation(KIND, "TRAINING and Eval")
def _case(place: Place) -> str:
    photographs(place / "photos/TRAINING", each=4)
    photographs(place / "photos/Eval", each=2)
    done = place.run(*BUILD)
    return place.right(done, _classes(place / "out.h5") == {"cat": 4, "dog": 4})


@situation(KIND, "the test split of Training and Validation")
def _test_split(place: Place) -> str:
    photographs(place / "photos/Training", each=4)
    photographs(place / "photos/Validation", each=2)
    done = place.run(*BUILD, "--split", "test")
    return place.right(done, _classes(place / "out.h5") == {"cat": 2, "dog": 2})


@situation(KIND, "Val beside two folders of images")
def _mixed(place: Place) -> str:
    photographs(place / "photos/Val")
    photographs(place / "photos", names=("emu", "yak"))
    return place.refused(place.run(*BUILD), "photos", "Val", "name it: imagefolder:")


@situation(KIND, "two folders too high")
def _too_high(place: Place) -> str:
    photographs(place / "photos/download/set-1")
    return place.refused(place.run(*BUILD), "name that folder: imagefolder:photos/download/set-1")


@situation(KIND, "validation alone, where train is asked for")
def _no_train(place: Place) -> str:
    photographs(place / "photos/validation")
    return place.refused(place.run(*BUILD), "photos", "no train", "imagefolder:")


@situation(KIND, "Train and training side by side")
def _twice(place: Place) -> str:
    photographs(place / "photos/Train")
    photographs(place / "photos/training")
    return place.refused(place.run(*BUILD), "photos", "Train and training", "name one")


@situation(KIND, "splits inside each class")
def _inside_out(place: Place) -> str:
    for name in ("cat", "dog"):
        photographs(place / "photos" / name, names=("train", "test"))
    return place.refused(place.run(*BUILD), "photos/cat", "holds", "arrange")


@situation(KIND, "a test folder that has one class less")
def _fewer_classes(place: Place) -> str:
    photographs(place / "photos/Training", names=("ant", "bee", "cow"), each=4, side=12)
    photographs(place / "photos/Testing", names=("ant", "cow"), each=2, side=12)
    built = place.run(*BUILD)
    place.right(built)
    words = [
        "train",
        "out.h5",
        "--model",
        "resnet8",
        "--epochs",
        1,
        "--batch-size",
        4,
        "-o",
        "run",
    ]
    done = place.run(*words, "--test", "imagefolder:photos", "--device", "cpu")
    tested = json.loads((place / "run/metrics.jsonl").read_text().splitlines()[-1])["test_accuracy"]
    return place.right(done, tested is not None and 0 <= tested <= 1, lines=None)
