"""A pack of very many small images: built, opened, verified, shuffled through, stopped and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, EdgePruneError, open_pack, verify_pack

from ..codec.packs import read_8_bits
from ..harness.peak import peak_mib
from ..harness.process import run_python

__all__ = ["STEPS", "Varied", "measure"]

BATCH = 256
# Pixels by which an image is moved, and gray levels by which it is made lighter or darker, at most.
SHIFT, LIGHT = 4, 24


@dataclass(frozen=True, eq=False)
class Varied:
    """A source of as many images as one likes that takes no memory for them: some, moved and lit anew.

    Attributes
    ----------
    pixels : uint8 [n, 3, H, W]
    given : int64 [n]
        Their labels.
    count : int
        Row k is image k modulo n, and how it differs depends on k alone.
    """

    pixels: NDArray[np.uint8]
    given: NDArray[np.int64]
    count: int
    spec = "varied"
    split = "train"
    license = None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """One for each label."""
        return tuple(str(label) for label in range(int(self.given.max()) + 1))

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """[count]."""
        return np.resize(self.given, self.count)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @cached_property
    def _windows(self) -> NDArray[np.uint8]:
        margin = (SHIFT, SHIFT)
        padded = np.pad(self.pixels, ((0, 0), (0, 0), margin, margin), mode="reflect")
        windows: NDArray[np.uint8] = sliding_window_view(padded, self.shape[1:], axis=(2, 3))
        return windows

    def __len__(self) -> int:
        return self.count

    def name(self, row: int) -> str:
        """Return how a message calls an image."""
        return f"varied[{row}]"

    def read(self, rows: Any) -> NDArray[np.uint8]:
        """Return some images, uint8 [n, 3, H, W]."""
        rows = np.asarray(rows, np.int64)
        random, places = _mixed(rows), 2 * SHIFT + 1
        down, across = random % places, random // 2**16 % places
        light = random // 2**32 % (2 * LIGHT + 1) - LIGHT
        moved = self._windows[rows % len(self.pixels), :, down, across]
        lit = moved.astype(np.int16) + light.astype(np.int16)[:, None, None, None]
        return lit.clip(0, 255).astype(np.uint8)


def _mixed(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 63 bits for each row that look random: the finalizer of SplitMix64."""
    mixed = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found: NDArray[np.int64] = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return found


def measure(step: str, data: Path, pack: Path, count: int) -> dict[str, Any]:
    """Do one of `STEPS` in a new process, whose imports are not timed, and return what it found.

    Parameters
    ----------
    step : str
    data : Path
        The file of images, ``npz``.
    pack : Path
        Beside it the position is kept at which an epoch was stopped.
    count : int
        Images.
    """
    task = {"step": step, "data": str(data), "pack": str(pack), "count": count}
    row: dict[str, Any] = run_python(step, "-m", __spec__.name, json.dumps(task))
    row = {"step": step, "images": count, **row}
    rate = f", {row['images_per_second']:,.0f} images/s" if "images_per_second" in row else ""
    click.echo(f"{count:,} small images, {step}: {row['seconds']:,.2f} s{rate}, {row['peak_mib']:,.0f} MiB")
    return row


def _build(pack: Path, task: dict[str, Any]) -> dict[str, Any]:
    from edgeprune import BuildConfig, build_pack, open_source

    source = open_source(f"npz:{task['data']}")
    varied = Varied(read_8_bits(source, np.arange(len(source))), source.labels, task["count"])
    jobs, started = os.cpu_count() or 1, time.perf_counter()
    build_pack(varied, pack, BuildConfig(device="cpu"), jobs=jobs)
    seconds = time.perf_counter() - started
    rate = task["count"] / seconds
    return {"seconds": seconds, "images_per_second": rate, "jobs": jobs, "file_bytes": pack.stat().st_size}


def _open(pack: Path, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    with open_pack(pack) as opened:
        seconds = time.perf_counter() - started
        _require(len(opened) == task["count"], f"holds {len(opened)} images")
    return {"seconds": seconds}


def _verify(pack: Path, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    problems = verify_pack(pack)
    seconds = time.perf_counter() - started
    _require(not problems, f"is not sound: {problems[:1]}")
    return {"seconds": seconds, "images_per_second": task["count"] / seconds}


def _shuffle(pack: Path, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    loader, backend = _loader(pack)
    images, first, middle = 0, 0.0, ""
    for number, (pixels, labels) in enumerate(loader):
        first = first or time.perf_counter() - started
        images += len(labels)
        if number == len(loader) // 2:
            middle = _digest(pixels, labels)
    seconds = time.perf_counter() - started
    _require(images == task["count"], f"gave {images} images in an epoch")
    facts = {"seconds": seconds, "images_per_second": images / seconds, "first_batch_seconds": first}
    return {**facts, "backend": backend, "batch": BATCH, "middle_sha256": middle}


def _stop(pack: Path, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    loader, _ = _loader(pack)
    for number, _ in enumerate(loader, start=1):
        if number == len(loader) // 2:
            break
    _state(pack).write_text(json.dumps(loader.state_dict()))
    return {"seconds": time.perf_counter() - started, "batches": len(loader) // 2}


def _resume(pack: Path, task: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    loader, _ = _loader(pack)
    loader.load_state_dict(json.loads(_state(pack).read_text()))
    pixels, labels = next(iter(loader))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "first_sha256": _digest(pixels, labels)}


STEPS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "build": _build,
    "open": _open,
    "verify": _verify,
    "shuffle": _shuffle,
    "stop": _stop,
    "resume": _resume,
}
"""In this order: each needs what those before it have made."""


def _loader(pack: Path) -> tuple[Any, str]:
    """Return a loader, decoded by the kernel in C where it was compiled, and the name of its backend."""
    from edgeprune_runtime import PackLoader

    options: dict[str, Any] = {"shuffle": True, "normalize": True, "device": "cpu"}
    try:
        return PackLoader(pack, BATCH, backend="native", **options), "native"
    except ConfigError:
        return PackLoader(pack, BATCH, backend="scipy", **options), "scipy"


def _state(pack: Path) -> Path:
    return pack.with_suffix(".state.json")


def _digest(pixels: Any, labels: Any) -> str:
    found = hashlib.sha256(np.ascontiguousarray(pixels).tobytes())
    found.update(np.ascontiguousarray(labels).tobytes())
    return found.hexdigest()


def _require(sound: bool, message: str) -> None:
    if not sound:
        raise EdgePruneError(f"the pack {message}")


def _serve() -> None:
    """Do the step of the command line and print what it found, in the child of `measure`."""
    task = json.loads(sys.argv[1])
    import edgeprune_runtime  # noqa: F401

    imported = peak_mib()
    found = STEPS[task["step"]](Path(task["pack"]), task)
    print(json.dumps({**found, "peak_mib": peak_mib(), "imported_mib": imported}))


if __name__ == "__main__":
    _serve()
