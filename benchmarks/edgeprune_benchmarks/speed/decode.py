"""Decoding speed: from memory to normalized batches, ours and the peers', interleaved in one process."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, EdgePruneError, open_pack
from edgeprune_formats.codecs import memory_bytes

from ..codec.peers import LOSSY, encode_all
from ..harness.results import save, spread
from ..harness.timing import Epoch, images_of, interleave, limits, pinned, ratios, serve
from .images import SIZES, prepare, without_images
from .peers.jpeg_decoders import Peers

__all__ = ["Bench", "measure", "run"]

BATCHES = (1, 32, 256)
BACKENDS = ("native", "torch", "scipy")
# Of the pack's coefficients, so that most chunks are read and decoded again in each epoch.
WINDOW_SHARE = 0.25


def run(data: Path, output: Path, *, rounds: int, count: int | None, sizes: tuple[str, ...] = SIZES) -> None:
    """Measure with one and two threads, each in a process pinned to as many cores, and save the result.

    Raises
    ------
    ConfigError
        None of the images is there.
    """
    rows, left_out = [], without_images(data, sizes)
    for size, reason in left_out.items():
        click.echo(f"{size}: left out, {reason}")
    for size in sizes:
        if size in left_out:
            continue
        with tempfile.TemporaryDirectory() as folder:
            task = prepare(data, Path(folder), size, count)
            for threads in (1, 2):
                for row in pinned(__spec__.name, {**task, "rounds": rounds, "batches": BATCHES}, threads):
                    rows.append(row)
                    _show(row)
    click.echo(save(output, "time-decode", {"rows": rows, "left_out": left_out}))


def measure(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Check every decoder at each batch size, then time them in turn; one row a batch size."""
    images = np.load(task["pixels"])
    facts = {name: task[name] for name in ("size", "threads", "quality")}
    facts |= {"images": len(images), "limits": limits()}
    facts["jpeg"] = task["jpeg"]
    bench = Bench(task, images)
    rows = []
    for batch in task["batches"]:
        epochs, absent = bench.epochs(batch)
        rates = interleave(epochs, task["rounds"])
        row = {**facts, "batch": batch, "absent": absent}
        row["images_per_second"] = {name: spread(found) for name, found in rates.items()}
        for peer in ("simplejpeg", "raw"):
            if peer in rates:
                row[f"ratio_to_{peer}"] = ratios(rates, peer)
        rows.append(row)
    return rows


class Bench:
    """All decoders of one set of images."""

    def __init__(self, task: dict[str, Any], images: NDArray[np.uint8]) -> None:
        self._jpeg, self._images = task["jpeg"], images
        self._packs = {codec: open_pack(path) for codec, path in task["packs"].items()}
        self._files = {
            codec: encode_all(LOSSY[jpeg["peer"]], images, jpeg["level"])
            for codec, jpeg in self._jpeg.items()
        }
        header = self._packs["sparse-f32"].header
        self._mean, self._std = np.array(header.mean, np.float32), np.array(header.std, np.float32)
        order = np.random.default_rng(0).permutation(len(images))
        self.peers = Peers(images, order, self._mean, self._std, task["threads"])

    def epochs(self, batch: int) -> tuple[dict[str, Epoch], dict[str, str]]:
        """Return an epoch of each decoder, checked, and why others are left out."""
        finer = f"simplejpeg at {self._jpeg['sparse-f32']['psnr_db']:.0f} dB", self._files["sparse-f32"]
        ours, missing = self.ours(batch)
        epochs = {**self.peers.epochs(batch, self._files["quantized"], finer), **ours}
        for name, epoch in epochs.items():
            if not name.endswith("pixels only"):
                self.check(name, epoch)
        return epochs, {**self.peers.absent, **missing}

    def ours(
        self, batch: int, backends: Sequence[str] = BACKENDS, *, reuse: bool = False
    ) -> tuple[dict[str, Epoch], dict[str, str]]:
        """Return an epoch of each of our decoders, and why others are left out."""
        from edgeprune_runtime import PackLoader

        epochs: dict[str, Epoch] = {}
        absent: dict[str, str] = {}
        for (codec, pack), backend in itertools.product(self._packs.items(), backends):
            whole = memory_bytes(pack.header) * len(pack)
            for kind, share in (("from chunks", WINDOW_SHARE), ("in memory", 2.0)):
                name = f"{codec}, {backend}, {kind}"
                # As the peers do it: a batch is decoded when it is asked for.
                options = {"backend": backend, "device": "cpu", "prefetch": 0, "reuse_buffers": reuse}
                options["cache_bytes"] = int(whole * share) + 1
                try:
                    loader = PackLoader(pack, batch, shuffle=True, normalize=True, **options)
                except ConfigError as error:
                    absent[name] = str(error)
                    continue
                epochs[name] = partial(images_of, loader)
        return epochs, absent

    def check(self, name: str, epoch: Epoch) -> None:
        """Raise unless an epoch holds every image once, with the right channel means and spreads.

        This tells swapped channels, wrong normalization and lost images; pixels of packs were compared
        when their PSNR was measured.
        """
        count, sums = 0, np.zeros((2, 3))
        for batch in epoch():
            images = np.asarray(batch, np.float32)
            count += len(images)
            sums += [images.sum(axis=(0, 2, 3), dtype=np.float64), np.square(images).sum(axis=(0, 2, 3))]
        mean, square = sums / (count * self._images[0, 0].size)
        expected = self._statistics
        found = np.stack([mean, np.sqrt(square - mean**2)])
        if count != len(self._images) or np.abs(found - expected).max() > 0.1:
            raise EdgePruneError(f"{name} gives {count} images of mean and spread {found.round(3).tolist()}")

    @property
    def _statistics(self) -> NDArray[np.float64]:
        """Mean and spread of each channel of the normalized images: 0 and 1, if the pack says so rightly."""
        pixels = self._images.transpose(1, 0, 2, 3).reshape(3, -1)
        mean = pixels.mean(axis=1) / 255 - self._mean
        return np.stack([mean / self._std, pixels.std(axis=1) / 255 / self._std])


def _show(row: dict[str, Any]) -> None:
    click.echo(f"{row['size']}, {row['threads']} threads, batches of {row['batch']}, {row['images']} images")
    for name, rate in row["images_per_second"].items():
        compared = " ".join(
            f"{row[ratio][name]['median']:6.2f}x {peer}"
            for ratio, peer in (("ratio_to_simplejpeg", "jpeg"), ("ratio_to_raw", "raw"))
            if ratio in row
        )
        click.echo(f"  {name:<36} {rate['median']:>9,.0f} images/s {compared}")
    for name, reason in row["absent"].items():
        click.echo(f"  {name:<36} left out: {reason}")


if __name__ == "__main__":
    serve(measure)
