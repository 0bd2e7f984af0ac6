"""Signals at awkward moments, and pipes that nobody reads."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..child import edgeprune
from ..place import Place, WrongError
from ..stock import pixels
from .registry import situation

KIND = "signals and pipes"
TRAIN = ("train", "pack.h5", "--model", "resnet8", "--batch-size", 4, "--augment", "none", "--device", "cpu")
PATIENCE = 30.0


def _when(is_time: Callable[[], bool], *numbers: int) -> Callable[[int], None]:
    """Return what sends signals to a child as soon as something is so."""

    def watch(child: int) -> None:
        end = time.monotonic() + PATIENCE
        while not is_time() and time.monotonic() < end:
            time.sleep(0.002)
        for number in numbers:
            os.kill(child, number)

    return watch


def _stopped_run(name: str, *numbers: int) -> None:
    @situation(KIND, f"{name} in the middle of training, which is resumed")
    def check(place: Place) -> str:
        place.take("pack.h5")
        begun = _when(lambda: any((place / "run").glob("checkpoint-*.json")), *numbers)
        done = place.run(*TRAIN, "--epochs", 60, "--checkpoint-steps", 1, "-o", "run", watch=begun)
        if done.code not in (128 + numbers[0], 130, 0) or "Traceback" in done.err:
            raise WrongError(f"exit status {done.code}: {done.err.strip()[-200:]}")
        resumed = place.run(*TRAIN, "--epochs", 60, "-o", "run", "--resume")
        return place.right(resumed, (place / "run/model.safetensors").exists(), lines=None)


_stopped_run("SIGHUP", signal.SIGHUP)
_stopped_run("SIGINT", signal.SIGINT)
_stopped_run("SIGTERM, and SIGHUP at once", signal.SIGTERM, signal.SIGHUP)


@situation(KIND, "SIGHUP that is ignored, as under nohup")
def _nohup(place: Place) -> str:
    place.take("pack.h5")

    def train() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        edgeprune([*TRAIN, "--epochs", 5, "--checkpoint-steps", 1, "-o", "run"])

    begun = _when(lambda: any((place / "run").glob("checkpoint-*.json")), signal.SIGHUP)
    done = place.script(train, watch=begun)
    return place.right(done, (place / "run/model.safetensors").exists(), lines=None)


def _stopped_build(name: str, number: int, *words: Any) -> None:
    @situation(KIND, f"{name} while a pack is written")
    def check(place: Place) -> str:
        images = pixels(4000, side=24)
        np.savez(place / "many.npz", x=images, y=np.arange(len(images)) % 3)
        begun = _when(lambda: any(place.folder.glob(".out.h5*")), number)
        build = ("build", "npz:many.npz", "--device", "cpu", "-q", "-o", "out.h5")
        done = place.run(*build, *words, watch=begun)
        if done.code not in (128 + number, 130, -number, 0) or "Traceback" in done.err:
            raise WrongError(f"exit status {done.code}: {done.err.strip()[-200:]}")
        # What SIGKILL has left, the next build sweeps.
        hidden = [path.name for path in place.new if path.name.startswith(".")]
        if hidden and number != signal.SIGKILL:
            raise WrongError(f"left {', '.join(hidden)}")
        return place.right(place.run(*build, "--force"), not list(place.folder.glob(".out*")))


_stopped_build("SIGHUP", signal.SIGHUP)
_stopped_build("SIGINT", signal.SIGINT, "--codec", "sparse-f16")
_stopped_build("SIGKILL", signal.SIGKILL, "--codec", "sparse-f32", "--compression", "gzip")


def _unread(name: str, words: tuple[Any, ...], output: str | None = None) -> None:
    @situation(KIND, f"{name}, with nobody to read it")
    def check(place: Place) -> str:
        for one in ("pack.h5", "run"):
            place.take(one)
        done = place.run(*words, is_read=False)
        # The output that matters is a file: it must be there. What only prints may stop in silence.
        if done.err or done.code not in (0, 1):
            raise WrongError(f"exit status {done.code}, said: {done.err.strip()[-200:]}")
        if output is not None and not (place / output).exists():
            raise WrongError(f"exit status {done.code}, without {output}")
        return "right"


_unread("info", ("info", "pack.h5"))
_unread("info --json", ("info", "pack.h5", "--json"))
_unread("verify", ("verify", "pack.h5"))
_unread("predict", ("predict", "run", "pack.h5"))
_unread("--help", ("build", "--help"))
_unread("train", (*TRAIN, "--epochs", 2, "-o", "other"), "other/model.safetensors")
_unread("convert", ("convert", "pack.h5", "--codec", "sparse-f32", "-o", "c.h5", "-q"), "c.h5")
