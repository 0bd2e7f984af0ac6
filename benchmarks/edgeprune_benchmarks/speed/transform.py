"""Seconds to transform whole data sets and back, which table 4 of the paper gives."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import idctn

from edgeprune.masks.torch_dct import dct2, idct2
from edgeprune.packs.encoding.dct import dct2 as dct2_scipy
from edgeprune_formats import EdgePruneError

from ..harness.results import save, spread
from ..harness.timing import limits
from .images import timed_images

__all__ = ["DATA_SETS", "measure", "run"]

BATCH = 250
# Name, image size, images in the data set; CIFAR-100 has as many of the same size as CIFAR-10.
DATA_SETS = (
    ("CIFAR-10", "32x32", 50_000),
    ("CIFAR-100", "32x32", 50_000),
    ("ImageNet-1K", "224x224", 1_281_167),
)

Transform = Callable[[Any], Any]


def run(data: Path, output: Path, *, rounds: int, count: int | None) -> None:
    """Measure on the CPU, and on a GPU where there is one, and save the result.

    As many images as CIFAR-10 has at 32x32; at 224x224 the photographs stand for all of ImageNet.
    """
    rows: list[dict[str, Any]] = []
    for size in ("32x32", "224x224"):
        with tempfile.TemporaryDirectory() as folder:
            images = timed_images(data, Path(folder), size, count).pixels
        if size == "32x32" and count is None:
            # The exact images are too few: again and again, which takes a transform no less time.
            images = images[np.resize(np.arange(len(images)), 50_000)]
        for row in measure(images, rounds):
            for name, of, whole in DATA_SETS:
                if of == size:
                    rows.append(_whole(row, name, whole, len(images)))
                    _show(rows[-1])
    results = {"threads": torch.get_num_threads(), "rows": rows, "limits": limits()}
    click.echo(save(output, "time-transform", results))


def measure(images: NDArray[np.uint8], rounds: int) -> list[dict[str, Any]]:
    """Time both directions of each implementation over some images, in turn; the inverse is checked.

    The forward transform starts from pixels uint8, the inverse ends with float32 pixels on [0, 1]; both
    are of whole images.
    """
    found = _implementations()
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    spectra = {name: [forward(part) for part in parts] for name, (forward, _, _) in found.items()}
    seconds: dict[tuple[str, str], list[float]] = {}
    for name, (_, inverse, _) in found.items():
        back = np.asarray(inverse(spectra[name][0]).cpu() if name != "scipy" else inverse(spectra[name][0]))
        if np.abs(back - parts[0] / 255).max() > 1e-4:
            raise EdgePruneError(f"{name}: the inverse does not give the pixels back")
    for _ in range(rounds):
        for name, (forward, inverse, wait) in found.items():
            for kind, transform, inputs in (("dct", forward, parts), ("idct", inverse, spectra[name])):
                started = time.perf_counter()
                for part in inputs:
                    transform(part)
                wait()
                seconds.setdefault((name, kind), []).append(time.perf_counter() - started)
    return [
        {
            "way": name,
            "dct_seconds": spread(seconds[name, "dct"]),
            "idct_seconds": spread(seconds[name, "idct"]),
        }
        for name in found
    ]


def _implementations() -> dict[str, tuple[Transform, Transform, Callable[[], object]]]:
    """Return forward, inverse and what to wait for, by implementation."""

    def inverse(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = idctn(spectra, axes=(2, 3), norm="ortho", workers=-1)
        return found

    found: dict[str, tuple[Transform, Transform, Callable[[], object]]] = {
        "scipy": (dct2_scipy, inverse, lambda: None),
        "torch, CPU": (_torch_forward("cpu"), idct2, lambda: None),
    }
    if torch.cuda.is_available():
        name = f"torch, {torch.cuda.get_device_name()}"
        found[name] = (_torch_forward("cuda"), idct2, torch.cuda.synchronize)
    return found


def _torch_forward(device: str) -> Transform:
    def forward(images: NDArray[np.uint8]) -> torch.Tensor:
        return dct2(torch.from_numpy(images).to(device).float() / 255)

    return forward


def _whole(row: dict[str, Any], name: str, whole: int, measured: int) -> dict[str, Any]:
    """Return the seconds of a data set from those of the images that were timed."""
    scaled = {
        kind: {part: value * whole / measured if part != "n" else value for part, value in row[kind].items()}
        for kind in ("dct_seconds", "idct_seconds")
    }
    return {"data_set": name, "images": whole, "measured_images": measured, "way": row["way"], **scaled}


def _show(row: dict[str, Any]) -> None:
    click.echo(
        f"{row['data_set']}, {row['way']}: DCT {row['dct_seconds']['median']:,.2f} s, inverse "
        f"{row['idct_seconds']['median']:,.2f} s, from {row['measured_images']:,} of {row['images']:,} images"
    )
