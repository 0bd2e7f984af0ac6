"""The builder at the size of ImageNet, step by step; what was measured is kept, and a stopped run goes on."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from edgeprune_formats import ConfigError, EdgePruneError, __version__

from ..harness.cells import measure_cells
from ..harness.deadline import Deadline
from ..harness.images import lossless, photographs
from ..harness.results import save
from .crops import write_crops
from .photographs import WAYS, build
from .small import STEPS, measure

__all__ = ["run"]

NO_RAY = "Ray is not installed; pip install 'edgeprune[ray]'"


def run(data: Path, output: Path, *, images: int, small_images: int, work: Path) -> None:
    """Measure what `work` does not hold yet, and save the result after each step.

    Raises
    ------
    ConfigError
        The images to make others from are not there, or `work` is of another version.
    EdgePruneError
        A build failed, or a resumed epoch is not that which was stopped.
    """
    for file in (photographs(data), lossless(data)):
        if not file.exists():
            raise ConfigError(f"{data}: {file.name} not found; give the folder that holds it with --data")
    has_ray = importlib.util.find_spec("ray") is not None
    results: dict[str, Any] = {"cores": os.cpu_count(), "images": images, "small_images": small_images}
    results |= {"left_out": {} if has_ray else {"ray-8": NO_RAY}, "photographs": [], "small": []}
    path = output
    for part, folder, name, step in _steps(data, work, images, small_images, has_ray=has_ray):
        folder.mkdir(parents=True, exist_ok=True)
        results[part] += measure_cells({name: step}, folder, {"edgeprune": __version__}, Deadline(None))
        _check(results)
        path = save(output, "build-scale", results)
    click.echo(path)


def _steps(
    data: Path, work: Path, images: int, small_images: int, *, has_ray: bool
) -> Iterator[tuple[str, Path, str, Callable[[], dict[str, Any]]]]:
    """Yield part of the result, folder of measured steps, name and what measures it."""
    files, measured = work / f"photographs-{images}", work / f"measured-{images}"
    for way in WAYS:
        if has_ray or "ray" not in way:
            yield "photographs", measured, way, partial(_built, data, work, files, images, way)
    pack, measured = work / f"small-{small_images}.h5", work / f"measured-small-{small_images}"
    if not pack.exists():
        # The steps behind it need what it has made.
        (measured / "build.json").unlink(missing_ok=True)
    for step in STEPS:
        yield "small", measured, step, partial(measure, step, lossless(data), pack, small_images)


def _built(data: Path, work: Path, files: Path, images: int, way: str) -> dict[str, Any]:
    # Here, so that a run that has built all needs no files.
    return build(write_crops(data, files, images), work / "packs", way)


def _check(results: dict[str, Any]) -> None:
    rows = {row["step"]: row for row in results["small"]}
    if "resume" in rows and rows["resume"]["first_sha256"] != rows["shuffle"]["middle_sha256"]:
        raise EdgePruneError(
            "the first batch of the resumed epoch is not that of an epoch that was not stopped"
        )
