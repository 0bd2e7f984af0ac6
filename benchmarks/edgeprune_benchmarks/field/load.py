"""One pack under load: many readers at once, and torch's DataLoader with every way to start workers."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune import BuildConfig, build_pack
from edgeprune_formats import EdgePruneError

from ..harness.markdown import Column, render
from ..harness.results import save
from .child import Done, in_child, preload
from .stock import CLASSES, pixels

__all__ = ["Settings", "load_table", "run"]

SIDE, BATCH, EPOCHS = 24, 32, 2
# Less than the pack, so that chunks are read again and again.
CACHE_BYTES = 1 << 20


@dataclass(frozen=True)
class Way:
    """One way to read a pack at once from several places.

    Attributes
    ----------
    name : str
        What reads.
    readers : int
        How many; 0 for a DataLoader in the process itself.
    start : str or None
        How a DataLoader's workers are started.
    persistent : bool
        Whether these workers outlive an epoch.
    """

    name: str
    readers: int
    start: str | None = None
    persistent: bool = False


@dataclass(frozen=True)
class Settings:
    """How much load.

    Attributes
    ----------
    minutes : float
        In all; the ways take turns.
    readers : int
        Threads, and processes, that read at once.
    images : int
        In the pack.
    patience : float
        Seconds after which a way hangs.
    """

    minutes: float
    readers: int = 64
    images: int = 1000
    patience: float = 300.0


def ways(readers: int) -> list[Way]:
    """Return all ways to read, beginning with one of each name."""
    many = [Way(name, readers) for name in ("threads, a pack each", "threads, one dataset", "processes")]
    workers = [
        Way("DataLoader", count, start, persistent)
        for count in (1, 2, 4, 8)
        for persistent in (False, True)
        for start in ("fork", "forkserver", "spawn")
    ]
    return [*many, Way("DataLoader", 0), *workers]


def run(settings: Settings, output: Path, tried: Sequence[Way] | None = None) -> None:
    """Read in all ways by turns until the minutes are over, and save what was read and what hung.

    What a file in `output` holds of other versions of Python is kept.
    """
    tried = ways(settings.readers) if tried is None else tried
    preload()
    here = {"python": ".".join(platform.python_version_tuple()[:2]), "torch": version("torch")}
    rows = [{**here, **asdict(way), **dict.fromkeys(COUNTS, 0)} for way in tried]
    minutes = {here["python"]: settings.minutes}
    end = time.monotonic() + 60 * settings.minutes
    with tempfile.TemporaryDirectory() as name:
        path, sums = _pack(Path(name), settings.images)
        while time.monotonic() < end:
            for way, row in zip(tried, rows, strict=True):
                if time.monotonic() >= end:
                    break
                work = partial(_tell, partial(_read, way, path))
                _count(row, in_child(work, Path(name), limit=settings.patience), sums, settings.images)
            click.echo(f"{sum(row['runs'] for row in rows)} runs, {_wrong(rows)} wrong")
    earlier = _earlier(output / "load.json", here["python"])
    results = {"minutes": earlier["minutes"] | minutes, "rows": earlier["rows"] + rows}
    click.echo(save(output, "load", asdict(settings) | results))
    if _wrong(rows):
        raise EdgePruneError("some runs hung, failed, or read other images; see the table of the result")


COUNTS = ("runs", "epochs", "images", "other", "hung", "failed")


def _earlier(path: Path, python: str) -> dict[str, Any]:
    results = json.loads(path.read_text())["results"] if path.exists() else {"minutes": {}, "rows": []}
    return results | {"rows": [row for row in results["rows"] if row["python"] != python]}


def _wrong(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["other"] + row["hung"] + row["failed"] for row in rows)


def _pack(folder: Path, images: int) -> tuple[Path, str]:
    """Build a pack of several chunks, and return it with the digest of its images, read one after another."""
    np.savez(folder / "images.npz", x=pixels(images, SIDE), y=np.arange(images) % CLASSES)
    path, config = folder / "pack.h5", BuildConfig(codec="sparse-f32", device="cpu")
    _require(in_child(partial(build_pack, f"npz:{folder / 'images.npz'}", path, config), folder, limit=600))
    done = in_child(partial(_tell, lambda: [_in_order(path, images)]), folder)
    _require(done)
    return path, json.loads(done.out)[0]


def _in_order(path: Path, images: int) -> str:
    dataset = _dataset(path)
    return _digest(dataset[row] for row in range(images))


def _require(done: Done) -> None:
    if done.code != 0:
        why = "not in time" if done.code is None else done.err.strip()[-300:]
        raise EdgePruneError(f"the pack cannot be made or read: {why}")


def _count(row: dict[str, Any], done: Done, expected: str, images: int) -> None:
    row["runs"] += 1
    if done.code is None:
        row["hung"] += 1
    elif done.code != 0:
        row["failed"] += 1
        click.echo(f"{row['name']}: {done.err.strip()[-300:]}", err=True)
    else:
        digests = json.loads(done.out.splitlines()[-1])
        row["epochs"] += len(digests)
        row["images"] += images * len(digests)
        row["other"] += sum(digest != expected for digest in digests)


def _tell(work: Callable[[], list[str]]) -> None:
    os.write(1, (json.dumps(work()) + "\n").encode())


def _dataset(path: Path) -> Any:
    from edgeprune_runtime import PackDataset

    return PackDataset(path, cache_bytes=CACHE_BYTES)


def _digest(samples: Iterable[tuple[Any, Any]]) -> str:
    """Return the SHA-256 of the sorted checksums of images with their labels, whatever their order."""
    sums = [zlib.crc32(np.ascontiguousarray(image).tobytes(), int(label)) for image, label in samples]
    return hashlib.sha256(np.sort(np.array(sums, np.uint32)).tobytes()).hexdigest()


def _read(way: Way, path: Path) -> list[str]:
    """Read in one way, and return the digest of each epoch of each reader."""
    if way.name == "DataLoader":
        return _by_loader(way, path)
    if way.name == "processes":
        return _by_processes(way.readers, path)
    shared = _dataset(path) if way.name == "threads, one dataset" else None
    digests: list[str] = []

    def read(seed: int) -> None:
        digests.append(_shuffled(shared if shared is not None else _dataset(path), seed))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(way.readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The exception of a thread is printed, and its digest is missing.
    assert len(digests) == way.readers
    return digests


def _shuffled(dataset: Any, seed: int) -> str:
    order = np.random.default_rng(seed).permutation(len(dataset))
    batches = np.array_split(order, max(1, len(order) // BATCH))
    return _digest(sample for rows in batches for sample in dataset.__getitems__(rows))


def _by_processes(readers: int, path: Path) -> list[str]:
    import multiprocessing

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=_one_process, args=(path, seed, results)) for seed in range(readers)]
    for process in processes:
        process.start()
    digests = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return digests


def _one_process(path: Path, seed: int, results: Any) -> None:
    try:
        results.put(_shuffled(_dataset(path), seed))
    except BaseException as error:
        results.put(repr(error))
        raise


def _by_loader(way: Way, path: Path) -> list[str]:
    import torch
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _dataset(path),
        BATCH,
        shuffle=True,
        num_workers=way.readers,
        multiprocessing_context=way.start,
        persistent_workers=way.persistent,
        generator=torch.Generator().manual_seed(way.readers),
    )
    return [
        _digest(sample for images, labels in loader for sample in zip(images, labels, strict=True))
        for _ in range(EPOCHS)
    ]


def load_table(results: dict[str, Any]) -> list[str]:
    """Return what was read, a row for each version of Python and kind of reader."""
    minutes = ", ".join(f"{count:g} with Python {python}" for python, count in results["minutes"].items())
    intro = (
        f"Minutes on one pack of {results['images']:,} images: {minutes}; the ways of reading take turns. "
        f"Hung: not done within {results['patience']:g} s. "
        "Other images: epochs whose images are not those of the pack."
    )
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in results["rows"]:
        groups.setdefault((row["python"], row["name"]), []).append(row)
    columns = [
        Column("Python", "python"),
        Column("torch", "torch"),
        Column("read by", "name"),
        Column("readers", "readers"),
        Column("started by", "start"),
        Column("runs", "runs", "{:,}"),
        Column("epochs", "epochs", "{:,}"),
        Column("images read", "images", "{:,}"),
        Column("hung", "hung"),
        Column("failed", "failed"),
        Column("other images", "other"),
    ]
    return render(columns, [_together(rows) for rows in groups.values()], intro)


def _together(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one row for several of one kind of reader."""
    counts = {name: sum(row[name] for row in rows) for name in COUNTS}
    readers = ", ".join(str(count) for count in sorted({row["readers"] for row in rows}))
    start = ", ".join(sorted({row["start"] for row in rows if row["start"]})) or None
    return {**rows[0], **counts, "readers": readers, "start": start}
