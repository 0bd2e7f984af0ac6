"""Decoding speed: from memory to batches for training, ours and the peers', interleaved in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune_formats import EdgePruneError, PackHeader

from ._record import save, spread
from .images import lossless, unpack_photographs

__all__ = ["run"]

BATCH = 256
JPEG_QUALITY = 95

DecodeFiles = Callable[[NDArray[np.int64]], list[NDArray[np.uint8]]]


def run(data: Path, output: Path, rounds: int) -> None:
    """Measure with one and two threads, each in a process pinned to as many cores, and save the result."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for setting, source in _sources(data, Path(folder)).items():
            pack, pixels = Path(folder) / f"{setting}.h5", Path(folder) / f"{setting}.npy"
            size = 224 if setting == "224x224" else None
            report = build_pack(source, pack, BuildConfig(freq_prune=0.5, size=size))
            opened = open_source(source, size=size)
            np.save(pixels, opened.read(np.arange(len(opened))))
            for threads in (1, 2):
                found = _pinned(pack, pixels, threads, rounds)
                results.append({"setting": setting, "pack_psnr_db": report.psnr, **found})
                _show(results[-1])
    click.echo(save(output, "decode", {"rows": results}))


def _sources(data: Path, folder: Path) -> dict[str, str]:
    photographs = unpack_photographs(data, folder / "photographs")
    return {"32x32": f"npz:{lossless(data)}", "224x224": f"imagefolder:{photographs}"}


def _pinned(pack: Path, pixels: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Run `measure` in a process of its own that has `threads` cores and as many threads in each library."""
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", __spec__.name, str(pack), str(pixels), str(threads), str(rounds)]
    done = subprocess.run(  # noqa: S603
        command, env={**os.environ, **counts}, capture_output=True, text=True
    )
    if done.returncode:
        raise EdgePruneError(f"the measuring process failed: {done.stderr.strip().splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(pack: Path, pixels: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Check that every way of decoding gives the images, then time them in turn, round after round.

    Returns
    -------
    dict
        Images/s of each way, and the ratio of each to simplejpeg and to raw pixels, round by round.
    """
    os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[:threads]))
    images = np.load(pixels)
    ways, jpeg = _ways(pack, images, threads)
    for way in ways.values():
        way()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            rates[name].append(len(images) / (time.perf_counter() - started))
    return {
        "threads": threads,
        "images": len(images),
        "jpeg": jpeg,
        "limits": _limits(),
        "images_per_second": {name: spread(found) for name, found in rates.items()},
        **{
            f"ratio_to_{peer}": {
                name: spread([a / b for a, b in zip(found, rates[peer], strict=True)])
                for name, found in rates.items()
            }
            for peer in ("simplejpeg", "raw")
        },
    }


def _ways(
    pack: Path, images: NDArray[np.uint8], threads: int
) -> tuple[dict[str, Callable[[], None]], dict[str, float]]:
    """Return each way of decoding all images once, in random order, and what the JPEG files are like."""
    import torch

    from edgeprune_runtime import PackLoader

    torch.set_num_threads(threads)
    loaders = {
        backend: PackLoader(pack, BATCH, shuffle=True, backend=backend, device="cpu", normalize=True)
        for backend in ("torch", "scipy")
    }
    peers, decode_files, size = _peers(images, loaders["torch"].pack.header, threads)
    psnr = _check(loaders, images, decode_files)

    def ours(backend: str) -> Callable[[], None]:
        def epoch() -> None:
            for _ in loaders[backend]:
                pass

        return epoch

    ways = {**peers, **{f"sparse-f32, {backend}": ours(backend) for backend in loaders}}
    return ways, {"quality": JPEG_QUALITY, "psnr_db": psnr, "bytes": size}


def _peers(
    images: NDArray[np.uint8], header: PackHeader, threads: int
) -> tuple[dict[str, Callable[[], None]], DecodeFiles, float]:
    import simplejpeg
    import torch

    order = np.random.default_rng(0).permutation(len(images))
    shown = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in images]
    files = [simplejpeg.encode_jpeg(i, quality=JPEG_QUALITY, colorsubsampling="444") for i in shown]
    pool = ThreadPoolExecutor(threads)
    scale = torch.tensor(1 / (255 * np.array(header.std)), dtype=torch.float32).view(1, -1, 1, 1)
    shift = torch.tensor(-np.array(header.mean) / header.std, dtype=torch.float32).view(1, -1, 1, 1)
    stored = torch.from_numpy(images)

    def decode_files(rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [simplejpeg.decode_jpeg(files[row]) for row in rows.tolist()]

    def jpeg_decode() -> None:
        list(pool.map(decode_files, np.array_split(order, threads)))

    def jpeg_batches() -> None:
        for start in range(0, len(order), BATCH):
            parts = pool.map(decode_files, np.array_split(order[start : start + BATCH], threads))
            batch = torch.from_numpy(np.stack([image for part in parts for image in part]))
            batch.permute(0, 3, 1, 2).float().mul_(scale).add_(shift).contiguous()

    def raw() -> None:
        for start in range(0, len(order), BATCH):
            stored[torch.from_numpy(order[start : start + BATCH])].float().mul_(scale).add_(shift)

    ways = {"simplejpeg": jpeg_decode, "simplejpeg, to batches": jpeg_batches, "raw": raw}
    return ways, decode_files, float(np.mean([len(file) for file in files]))


def _check(loaders: dict[str, Any], images: NDArray[np.uint8], decode_files: DecodeFiles) -> float:
    """Raise unless both backends give the same, right images; return the PSNR of the JPEG files."""
    from edgeprune_runtime import PackLoader

    pack = loaders["torch"].pack
    batches = [
        next(iter(PackLoader(pack, BATCH, backend=backend, device="cpu"))) for backend in ("torch", "scipy")
    ]
    first, second = (np.asarray(images_of) for images_of, _ in batches)
    rows = pack.source_index[: len(first)]
    error = np.mean((first - images[rows] / 255.0) ** 2)
    if np.abs(first - second).max() > 1e-5 or error > 1e-3:
        raise EdgePruneError(f"decoded images are wrong: mean squared error {error:.2g}")
    decoded = np.stack(decode_files(np.arange(len(images)))).transpose(0, 3, 1, 2)
    return float(10 * np.log10(255**2 / np.mean((decoded - images.astype(np.float64)) ** 2)))


def _limits() -> dict[str, float]:
    """Measure what the machine can do at best: bytes copied and float32 products, per second."""
    import torch

    source, target = torch.ones(2**26), torch.empty(2**26)
    matrix = torch.ones(1024, 1024)
    copied, multiplied = [], []
    for _ in range(5):
        started = time.perf_counter()
        target.copy_(source)
        copied.append(2 * 4 * len(source) / (time.perf_counter() - started))
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        multiplied.append(2 * 1024**3 / (time.perf_counter() - started))
    return {"copy_gb_s": max(copied) / 1e9, "sgemm_gflop_s": max(multiplied) / 1e9}


def _show(row: dict[str, Any]) -> None:
    click.echo(f"{row['setting']}, {row['threads']} threads, {row['images']} images")
    for name, rate in row["images_per_second"].items():
        ratios = [row[f"ratio_to_{peer}"][name]["median"] for peer in ("simplejpeg", "raw")]
        click.echo(
            f"  {name:<24} {rate['median']:>9,.0f} images/s {ratios[0]:6.2f}x jpeg {ratios[1]:6.2f}x raw"
        )


if __name__ == "__main__":
    pack_path, pixel_path, thread_count, round_count = sys.argv[1:]
    print(json.dumps(measure(Path(pack_path), Path(pixel_path), int(thread_count), int(round_count))))
