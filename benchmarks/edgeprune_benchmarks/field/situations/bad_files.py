"""One bad file among good ones."""

from __future__ import annotations

import os

from ..place import Place
from ..stock import photographs
from .registry import situation

KIND = "one bad file"
TRAIN = ("train", "pack.h5", "--model", "resnet8", "--epochs", 1, "--batch-size", 8, "--device", "cpu")
CONTENTS = {
    "empty": b"",
    "a web page": b"<!DOCTYPE html><title>404</title>",
    "zeros": bytes(4096),
    "a PNG's first bytes": b"\x89PNG\r\n\x1a\n\0\0",
}


def _predict(name: str, at: int) -> None:
    @situation(KIND, f"{name}, number {at + 1} of 40 in predict")
    def check(place: Place) -> str:
        place.take("run")
        photos = photographs(place / "photos", ("a",), each=40)
        bad = sorted(photos.rglob("*.png"))[at]
        bad.write_bytes(CONTENTS[name])
        done = place.run("predict", "run", "photos", "--top", 1)
        told = len(done.out.splitlines()) == 39
        return place.refused(done, bad.name, "--skip-bad") if told else place.right(done, told)


for _name, _at in zip(CONTENTS, (0, 39, 31, 32), strict=True):
    _predict(_name, _at)


@situation(KIND, "three bad ones, --skip-bad")
def _skipped(place: Place) -> str:
    place.take("run")
    photos = photographs(place / "photos", each=9)
    for path in sorted(photos.rglob("*.png"))[:9:4]:
        path.write_bytes(path.read_bytes()[:60])
    done = place.run("predict", "run", "photos", "--top", 1, "--skip-bad")
    return place.right(done, len(done.out.splitlines()) == 15, lines=None)


@situation(KIND, "a file that may not be read, among the images of a build")
def _forbidden(place: Place) -> str:
    photos = photographs(place / "photos")
    bad = photos / "dog/1.png"
    bad.unlink()
    bad.symlink_to("nowhere.png")
    done = place.run("build", "imagefolder:photos", "-o", "out.h5", "--device", "cpu", "-q")
    return place.refused(done, "dog/1.png", "--skip-bad")


@situation(KIND, "a test image that is cut short")
def _test_image(place: Place) -> str:
    place.take("pack.h5")
    photos = photographs(place / "photos/test", ("0", "1", "2"))
    bad = photos / "2/2.png"
    bad.write_bytes(bad.read_bytes()[:-40])
    done = place.run(*TRAIN, "--test", "imagefolder:photos", "-o", "run")
    return place.refused(done, "2/2.png", "--skip-bad")


@situation(KIND, "a test pack with a damaged chunk")
def _test_pack(place: Place) -> str:
    place.take("pack.h5")
    place.take("damaged.h5")
    done = place.run(*TRAIN, "--test", "damaged.h5", "-o", "run")
    return place.refused(done, "damaged.h5", "checksum")


@situation(KIND, "a test pack of other classes, in the folder of an older run's curve")
def _other_classes(place: Place) -> str:
    place.take("pack.h5")
    (place / "run").mkdir()
    (place / "run/notes.txt").write_text("mine")
    photographs(place / "photos/test", ("x", "y"))
    done = place.run(*TRAIN, "--test", "imagefolder:photos", "-o", "run")
    if not (place / "run/notes.txt").exists():
        return place.right(done, False)
    return place.refused(done, "class")


@situation(KIND, "a pipe in a folder of images")
def _pipe(place: Place) -> str:
    place.take("run")
    photos = photographs(place / "photos")
    os.mkfifo(photos / "dog/9.png")
    done = place.run("predict", "run", "photos", "--top", 1, limit=20)
    if done.code == 0:
        return place.right(done, len(done.out.splitlines()) == 6, lines=None)
    return place.refused(done, "9.png", "--skip-bad")
