"""Decoding speed: from memory to normalised batches, ours and the peers', interleaved in one process."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, EdgePruneError, open_pack

from ._peers import LOSSY, encode_all
from ._pinned import Way, interleave, limits, pinned, ratios, serve
from ._record import save, spread
from ._time_images import SIZES, prepare

__all__ = ["measure", "run"]

BATCHES = (1, 32, 256)
BACKENDS = ("native", "torch", "scipy")
# Of the pack's coefficients, so that most chunks are read and decoded again in each epoch.
WINDOW_SHARE = 0.25


def run(data: Path, output: Path, *, rounds: int, count: int | None, sizes: tuple[str, ...] = SIZES) -> None:
    """Measure with one and two threads, each in a process pinned to as many cores, and save the result."""
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            task = prepare(data, Path(folder), size, count)
            for threads in (1, 2):
                for row in pinned(__spec__.name, {**task, "rounds": rounds, "batches": BATCHES}, threads):
                    rows.append(row)
                    _show(row)
    click.echo(save(output, "time-decode", {"rows": rows}))


def measure(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Check every way of decoding at each batch size, then time them in turn; one row a batch size."""
    images = np.load(task["pixels"])
    facts = {name: task[name] for name in ("size", "threads", "quality")}
    facts |= {"images": len(images), "limits": limits()}
    facts["jpeg"] = task["jpeg"]
    bench = _Bench(task, images)
    rows = []
    for batch in task["batches"]:
        ways, absent = bench.ways(batch)
        rates = interleave(ways, task["rounds"])
        row = {**facts, "batch": batch, "absent": absent}
        row["images_per_second"] = {name: spread(found) for name, found in rates.items()}
        for peer in ("simplejpeg", "raw"):
            row[f"ratio_to_{peer}"] = ratios(rates, peer)
        rows.append(row)
    return rows


class _Bench:
    """All ways of decoding one set of images."""

    def __init__(self, task: dict[str, Any], images: NDArray[np.uint8]) -> None:
        self._task, self._images, self._threads = task, images, task["threads"]
        self._packs = {codec: open_pack(path) for codec, path in task["packs"].items()}
        self._order = np.random.default_rng(0).permutation(len(images))
        self._files = {
            codec: encode_all(LOSSY[jpeg["peer"]], images, jpeg["level"])
            for codec, jpeg in task["jpeg"].items()
        }
        self._pool = ThreadPoolExecutor(self._threads)
        header = self._packs["sparse-f32"].header
        self._mean = np.array(header.mean, np.float32).reshape(-1, 1, 1)
        self._std = np.array(header.std, np.float32).reshape(-1, 1, 1)

    def ways(self, batch: int) -> tuple[dict[str, Way], dict[str, str]]:
        """Return the ways, each checked, and why others are left out."""
        peers, absent = self._peers(batch)
        ours, missing = self._ours(batch)
        ways = {**peers, **ours}
        for name, way in ways.items():
            if not name.endswith("pixels only"):
                self._check(name, way)
        return ways, {**absent, **missing}

    def _peers(self, batch: int) -> tuple[dict[str, Way], dict[str, str]]:
        import simplejpeg

        files = self._files["quantized"]
        ways: dict[str, Way] = {"raw": partial(self._raw, batch)}
        ways["simplejpeg"] = partial(self._jpeg, files, simplejpeg.decode_jpeg, batch)
        ways["simplejpeg, pixels only"] = partial(self._pixels, files, simplejpeg.decode_jpeg, batch)
        fine = f"simplejpeg at {self._task['jpeg']['sparse-f32']['psnr_db']:.0f} dB"
        ways[fine] = partial(self._jpeg, self._files["sparse-f32"], simplejpeg.decode_jpeg, batch)
        ways["Pillow"] = partial(self._jpeg, files, _pillow, batch)
        try:
            from torchvision.io import decode_jpeg  # noqa: F401
        except ImportError:
            return ways, {"torchvision.io": "not installed"}
        ways["torchvision.io"] = partial(self._jpeg, files, _torchvision, batch)
        return ways, {}

    def _ours(self, batch: int) -> tuple[dict[str, Way], dict[str, str]]:
        from edgeprune_runtime import PackLoader

        ways: dict[str, Way] = {}
        absent: dict[str, str] = {}
        for (codec, pack), backend in itertools.product(self._packs.items(), BACKENDS):
            whole = pack.header.memory_bytes * len(pack)
            for kind, share in (("from chunks", WINDOW_SHARE), ("in memory", 2.0)):
                name = f"{codec}, {backend}, {kind}"
                # As the peers do it: a batch is decoded when it is asked for.
                options = {"backend": backend, "device": "cpu", "prefetch": 0}
                options["cache_bytes"] = int(whole * share) + 1
                try:
                    loader = PackLoader(pack, batch, shuffle=True, normalize=True, **options)
                except ConfigError as error:
                    absent[name] = str(error)
                    continue
                ways[name] = partial(_images_of, loader)
        return ways, absent

    def _raw(self, batch: int) -> Iterator[Any]:
        import torch

        stored = torch.from_numpy(self._images)
        scale, shift = (torch.from_numpy(part) for part in (1 / (255 * self._std), -self._mean / self._std))
        for start in range(0, len(self._order), batch):
            rows = torch.from_numpy(self._order[start : start + batch])
            yield stored[rows].float().mul_(scale).add_(shift)

    def _pixels(self, files: list[bytes], decode: Any, batch: int) -> Iterator[list[Any]]:
        def some(rows: NDArray[np.int64]) -> list[Any]:
            return [decode(files[row]) for row in rows.tolist()]

        for start in range(0, len(self._order), batch):
            rows = self._order[start : start + batch]
            if self._threads == 1 or len(rows) == 1:
                yield some(rows)
            else:
                parts = self._pool.map(some, np.array_split(rows, self._threads))
                yield [image for part in parts for image in part]

    def _jpeg(self, files: list[bytes], decode: Any, batch: int) -> Iterator[Any]:
        import torch

        scale, shift = (torch.from_numpy(part) for part in (1 / (255 * self._std), -self._mean / self._std))
        for images in self._pixels(files, decode, batch):
            stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
            yield stacked.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).add_(shift)

    def _check(self, name: str, way: Way) -> None:
        """Raise unless an epoch holds every image once, with the right channel means and spreads.

        This tells swapped channels, wrong normalisation and lost images; pixels of packs were compared
        when their PSNR was measured.
        """
        count, sums = 0, np.zeros((2, 3))
        for batch in way():
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
        """Mean and spread of each channel of the normalised images: 0 and 1, if the pack says so rightly."""
        pixels = self._images.transpose(1, 0, 2, 3).reshape(3, -1)
        mean = pixels.mean(axis=1) / 255 - self._mean.ravel()
        return np.stack([mean / self._std.ravel(), pixels.std(axis=1) / 255 / self._std.ravel()])


def _images_of(loader: Any) -> Iterator[Any]:
    for images, _ in loader:
        yield images


def _pillow(file: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(file)))


def _torchvision(file: bytes) -> NDArray[np.uint8]:
    import torch
    from torchvision.io import decode_jpeg

    # A copy, because torch refuses to look at bytes that cannot be written.
    decoded = decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8))
    pixels: NDArray[np.uint8] = decoded.permute(1, 2, 0).numpy()
    return pixels


def _show(row: dict[str, Any]) -> None:
    click.echo(f"{row['size']}, {row['threads']} threads, batches of {row['batch']}, {row['images']} images")
    for name, rate in row["images_per_second"].items():
        jpeg, raw = (row[f"ratio_to_{peer}"][name]["median"] for peer in ("simplejpeg", "raw"))
        click.echo(f"  {name:<36} {rate['median']:>9,.0f} images/s {jpeg:6.2f}x jpeg {raw:6.2f}x raw")


if __name__ == "__main__":
    serve(measure)
