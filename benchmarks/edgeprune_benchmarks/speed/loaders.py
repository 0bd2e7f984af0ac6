"""Loading: a whole epoch from a pack against the loaders that people use, on JPEG files of the same PSNR."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune_formats import EdgePruneError, open_pack
from edgeprune_formats.codecs import memory_bytes

from ..codec.peers import LOSSY, encode_all
from ..harness.results import save, spread
from ..harness.timing import Epoch, images_of, interleave, limits, pinned, serve
from .images import SIZES, prepare
from .peers.loaders import LOADERS, Job

__all__ = ["measure", "run"]

OURS = "PackLoader, quantized"


def run(data: Path, output: Path, *, rounds: int, count: int | None, batch: int) -> None:
    """Measure with one core and no workers, then with two cores and two workers, and save the result."""
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            task = {**prepare(data, Path(folder), size, count), "rounds": rounds, "batch": batch}
            for threads in (1, 2):
                rows.append(pinned(__spec__.name, {**task, "folder": folder}, threads))
                _show(rows[-1])
    click.echo(save(output, "time-loaders", {"rows": rows}))


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Check every loader, then time epochs of all in turn."""
    images = np.load(task["pixels"])
    epochs: dict[str, Epoch] = {OURS: _ours(task)}
    absent: dict[str, str] = {}
    files = _write_files(task, images)
    header = open_pack(task["packs"]["quantized"]).header
    for name, make in LOADERS.items():
        folder = Path(task["folder"]) / f"{len(epochs)}-{task['threads']}"
        workers = 0 if task["threads"] == 1 else task["threads"]
        try:
            epochs[name] = make(Job(files, folder, header.mean, header.std, task["batch"], workers))
        except ModuleNotFoundError as error:
            absent[name] = f"not installed ({error.name})"
    for name, epoch in epochs.items():
        _check(name, epoch, images)
    rates = interleave(epochs, task["rounds"])
    return {
        **{name: task[name] for name in ("size", "threads", "batch")},
        "images": len(images),
        "jpeg": task["jpeg"]["quantized"],
        "quality": task["quality"]["quantized"],
        "limits": limits(),
        "absent": absent,
        "images_per_second": {name: spread(found) for name, found in rates.items()},
        "ratio_of_ours": {
            name: spread([ours / other for ours, other in zip(rates[OURS], found, strict=True)])
            for name, found in rates.items()
        },
    }


def _ours(task: dict[str, Any]) -> Epoch:
    from edgeprune_runtime import PackLoader

    pack = open_pack(task["packs"]["quantized"])
    # A quarter of the coefficients, so that most chunks are read and decoded again in each epoch.
    window = memory_bytes(pack.header) * len(pack) // 4
    loader = PackLoader(
        pack, task["batch"], shuffle=True, normalize=True, backend="auto", device="cpu", cache_bytes=window
    )
    return partial(images_of, loader)


def _write_files(task: dict[str, Any], images: Any) -> Path:
    """Write the JPEG files once, a folder a class."""
    target = Path(task["folder"]) / "files"
    if target.exists():
        return target
    jpeg, pack = task["jpeg"]["quantized"], open_pack(task["packs"]["quantized"])
    labels = np.empty(len(pack), np.int64)
    labels[pack.source_index] = pack.labels
    for row, file in enumerate(encode_all(LOSSY[jpeg["peer"]], images, jpeg["level"])):
        path = target / f"{labels[row]:04d}" / f"{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
    return target


def _check(name: str, epoch: Epoch, images: Any) -> None:
    """Raise unless an epoch holds as many images, normalized: mean near 0 and spread near 1."""
    batches = [np.asarray(batch, np.float32) for batch in epoch()]
    count = sum(len(batch) for batch in batches)
    values = np.concatenate([batch.ravel() for batch in batches])
    shape = batches[0].shape[1:]
    if count != len(images) or shape != images.shape[1:]:
        raise EdgePruneError(f"{name} gives {count} images of {shape}, not {len(images)}")
    if abs(values.mean()) > 0.1 or abs(values.std() - 1) > 0.1:
        raise EdgePruneError(f"{name}: mean {values.mean():.3f}, spread {values.std():.3f} after normalizing")


def _show(row: dict[str, Any]) -> None:
    click.echo(f"{row['size']}, {row['threads']} threads, batches of {row['batch']}, {row['images']} images")
    for name, rate in row["images_per_second"].items():
        ratio = row["ratio_of_ours"][name]["median"]
        click.echo(f"  {name:<26} {rate['median']:>9,.0f} images/s, ours {ratio:.2f}x as fast")
    for name, reason in row["absent"].items():
        click.echo(f"  {name:<26} {reason}")


if __name__ == "__main__":
    serve(measure)
