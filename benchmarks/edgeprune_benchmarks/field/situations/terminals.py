"""Terminals that cannot print a name, and names that would drive a terminal."""

from __future__ import annotations

import json
from pathlib import Path

from ..place import Place
from ..stock import photographs
from .registry import situation

KIND = "terminals"
# None of the first encoding's letters are in all of the others; the rest are no letters at all.
NAMES = ("солнце", "花", "naïve", "\x1b]8;;\x07link", "car\rriage", "\u2067right\u2069", "tab\tbed", "\x9b2J")


def _photos(place: Place) -> Path:
    return photographs(place / "photos", NAMES, each=2)


def _pack(place: Place) -> None:
    _photos(place)
    place.right(place.run("build", "imagefolder:photos", "-o", "p.h5", "--device", "cpu", "-q"))


def _is_tame(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def _info(encoding: str) -> None:
    @situation(KIND, f"info on a terminal of {encoding}")
    def check(place: Place) -> str:
        _pack(place)
        done = place.run("info", "p.h5", encoding=encoding)
        return place.right(done, _is_tame(done.out) and "\\x1b]8" in done.out)


for _encoding in ("koi8-r", "cp437", "gb2312", "ascii", "utf-8"):
    _info(_encoding)


@situation(KIND, "info --json keeps the names, on a terminal of ASCII")
def _json(place: Place) -> str:
    _pack(place)
    done = place.run("info", "p.h5", "--json", encoding="ascii")
    names = {entry["name"] for entry in json.loads(done.out)["classes"]}
    return place.right(done, names == set(NAMES))


@situation(KIND, "training and predicting on a terminal of cp866")
def _train(place: Place) -> str:
    _pack(place)
    words = ("train", "p.h5", "--model", "resnet8", "--epochs", 1, "--batch-size", 4, "--device", "cpu")
    trained = place.run(*words, "-o", "день", encoding="cp866")
    place.right(trained, _is_tame(trained.out), lines=None)
    done = place.run("predict", "день", "photos", "--top", 8, encoding="cp866")
    return place.right(done, _is_tame(done.out) and len(done.out.splitlines()) >= 2 * len(NAMES))


@situation(KIND, "a build of two classes of one file, told on a terminal of cp1250")
def _build(place: Place) -> str:
    _photos(place)
    done = place.run("build", "imagefolder:photos", "-o", "день.h5", "--device", "cpu", encoding="cp1250")
    return place.right(done, _is_tame(done.out + done.err), lines=None)


@situation(KIND, "a damaged file with a name that drives the terminal")
def _damaged(place: Place) -> str:
    name = "\x1b[2J правда.h5"
    (place / name).write_bytes(b"nothing")
    done = place.run("info", name, encoding="latin-1")
    if not _is_tame(done.err):
        return place.right(done, False)
    return place.refused(done, "\\x1b[2J \\u043f", ".h5")


@situation(KIND, "a curve of a run with a name of all kinds")
def _plot(place: Place) -> str:
    name = "$\\int_{\x1b[1m花"
    place.take("run").rename(place / name)
    done = place.run("plot", name, "-o", "curve.png", encoding="ascii")
    return place.right(done, (place / "curve.png").read_bytes()[:4] == b"\x89PNG", lines=None)
