"""Encoding speed: pixels to payload, against the encoders of WebP and AVIF at equal PSNR, on one core."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from edgeprune import open_source
from edgeprune.packs.encoding.quality import DEFAULT_QUALITY
from edgeprune.report.pixels import pixels_of
from edgeprune_formats import EdgePruneError, Pack, open_pack
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coding.kernels import NumpyKernels
from edgeprune_formats.coding.native import encoding_kernels

from ..codec.containers import avif_payload, webp_payload
from ..codec.matching import bracket
from ..codec.packs import ImageSet, build, read_8_bits
from ..codec.peers import Peer, decode_all, encode_all
from ..codec.quality import psnr
from ..harness.images import lossless, photographs, unpack_photographs
from ..harness.results import save, spread
from ..harness.timing import Epoch, interleave, pinned, ratios, serve
from .images import SIZES, without_images
from .stages import chunks_of, measure_stages

__all__ = ["PEERS", "measure", "prepare", "run"]

TILES = {"224x224": "16", "32x32": "full"}
ROUNDINGS = ("rdo", "deadzone")
OURS = "ours, rdo"
# Of the encoder in numpy, which takes many times as long.
FEW = {"224x224": 40, "32x32": 1000}

Pixels = NDArray[np.uint8]


def _peer(kind: str, name: str, payload: Callable[[bytes], int], **options: Any) -> Peer:
    """Return an encoder of Pillow, of its images or of arrays uint8 [H, W, 3]."""

    def encode(image: Any, level: int) -> bytes:
        file = io.BytesIO()
        opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
        opened.save(file, kind, quality=level, **options)
        return file.getvalue()

    def decode(raw: bytes) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))

    return Peer(name, encode, decode, payload, (0, 100))


PEERS = {
    "webp": _peer("WEBP", "WebP, method 4", webp_payload, method=4),
    "avif": _peer("AVIF", "AVIF, speed 6", avif_payload, speed=6, max_threads=1),
}


def run(data: Path, output: Path, *, rounds: int, count: int | None, sizes: tuple[str, ...] = SIZES) -> None:
    """Measure with one core at each size of images, and save the result.

    Raises
    ------
    ConfigError
        None of the images is there.
    """
    rows, left_out = [], without_images(data, sizes)
    for size in sizes:
        if size in left_out:
            click.echo(f"{size}: left out, {left_out[size]}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            task = {**prepare(_images(data, Path(folder), size, count), Path(folder), size), "rounds": rounds}
            row = pinned(__spec__.name, task, 1)
            row["numpy"] = _in_numpy(task)
            if size == "224x224":
                row["stages"] = pinned(__spec__.name, {**task, "stages": True}, 1)
        rows.append(row)
        _show(row)
    click.echo(save(output, "time-encode", {"rows": rows, "left_out": left_out}))


def _images(data: Path, folder: Path, size: str, count: int | None) -> ImageSet:
    if size == "32x32":
        source, name = open_source(f"npz:{lossless(data)}"), lossless(data).name
    else:
        files = unpack_photographs(data, folder / "photographs")
        source, name = open_source(f"imagefolder:{files}", size=224), photographs(data).name
    rows = np.random.default_rng(0).permutation(len(source))[:count]
    return ImageSet(name, read_8_bits(source, rows), source.labels[rows]).renumbered()


def prepare(images: ImageSet, folder: Path, size: str) -> dict[str, Any]:
    """Write the packs of some images, and find the peers' qualities of the same PSNR as that of rdo.

    Returns
    -------
    dict
        The task of a timing process. ``files`` holds PSNR over all pixels and bytes an image of each codec;
        ``levels`` the peers' qualities; ``absent`` why a peer is left out.
    """
    task: dict[str, Any] = {"size": size, "images": len(images.labels), "packs": {}, "files": {}}
    task |= {"folder": str(folder / "photographs"), "quality": DEFAULT_QUALITY, "tile": TILES[size]}
    config = {"codec": "quantized", "quality": DEFAULT_QUALITY, "tile": TILES[size]}
    for rounding in ROUNDINGS:
        path = folder / f"{size}-{rounding}.h5"
        with build(images, path, rounding=rounding, **config) as pack:
            originals = images.pixels[pack.source_index]
            facts = {
                "psnr_db": psnr(pixels_of(pack, backend="scipy"), originals),
                "file_bytes": _each(path, pack),
            }
        task["packs"][rounding] = str(path)
        task["files"][f"ours, {rounding}"] = {**facts, "setting": f"quality {DEFAULT_QUALITY:g}"}
    # In the order of the pack: its chunks are what is encoded.
    task["pixels"] = str(folder / f"{size}.npy")
    np.save(task["pixels"], originals)
    return {**task, **_matched(originals, task["files"])}


def _each(path: Path, pack: Pack) -> float:
    return path.stat().st_size / len(pack)


def _matched(images: Pixels, files: dict[str, Any]) -> dict[str, Any]:
    levels, absent = {}, {}
    for kind, peer in PEERS.items():
        if not features.check(kind):
            absent[kind] = f"this Pillow has no {kind.upper()}"
            continue
        level, facts = _at_psnr(peer, images, files[OURS]["psnr_db"])
        levels[kind] = level
        files[peer.name] = {**facts, "setting": f"quality {level}"}
    return {"levels": levels, "absent": absent}


def _at_psnr(peer: Peer, images: Pixels, target: float) -> tuple[int, dict[str, float]]:
    """Return the quality of a peer whose PSNR is nearest to `target`, and what it gives."""
    tried: dict[int, dict[str, float]] = {}

    @cache
    def quality(level: int) -> float:
        files = encode_all(peer, images, level)
        found = psnr(decode_all(peer, files, images.shape[1:]), images)
        tried[level] = {"psnr_db": found, "file_bytes": float(np.mean([len(file) for file in files]))}
        return found

    bracket(quality, target, peer.levels)
    return min(tried.items(), key=lambda item: abs(item[1]["psnr_db"] - target))


def _in_numpy(task: dict[str, Any]) -> dict[str, Any]:
    """Return how long the encoder in numpy takes for a few images, as a multiple of that in C."""
    few = {**task, "few": FEW[task["size"]], "levels": {}, "rounds": 1}
    both = [pinned(__spec__.name, few, 1, EDGEPRUNE_NATIVE=native) for native in ("1", "0")]
    in_c, in_numpy = (row["images_per_second"][OURS]["median"] for row in both)
    return {"images": both[0]["images"], "images_per_second": in_numpy, "ratio": in_c / in_numpy}


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Time our encoder and the peers' in turn; with ``stages`` instead what else an image costs."""
    images = np.load(task["pixels"])
    if task.get("stages"):
        return measure_stages(Path(task["folder"]), images, Path(task["packs"]["rdo"]), task["rounds"])
    images = images[: task.get("few")]
    epochs: dict[str, Epoch] = {}
    for rounding, path in task["packs"].items():
        epochs[f"ours, {rounding}"] = _ours(images, Path(path), rounding, whole="few" not in task)
    # Ours has its pixels in memory as well.
    shown = [Image.fromarray(image) for image in np.ascontiguousarray(images.transpose(0, 2, 3, 1))]
    for kind, level in task["levels"].items():
        epochs[PEERS[kind].name] = partial(_theirs, PEERS[kind], shown, level)
    rates = interleave(epochs, task["rounds"])
    compiled = not isinstance(encoding_kernels(), NumpyKernels)
    row = {name: task[name] for name in ("size", "quality", "tile", "files", "absent")}
    row |= {"images": len(images), "compiled": compiled}
    row["images_per_second"] = {name: spread(found) for name, found in rates.items()}
    row["ratio_of_ours"] = {
        name: {peer: ratios(rates, peer)[name] for peer in rates if not peer.startswith("ours")}
        for name in rates
        if name.startswith("ours")
    }
    return row


def _ours(images: Pixels, path: Path, rounding: str, *, whole: bool) -> Epoch:
    """Return an epoch of encoding; it gives the pack's own payloads, or what is timed is another thing."""
    with open_pack(path) as pack:
        header = replace(pack.header, samples=len(images))
        parts = list(chunks_of(images, header.chunk_samples))
        if whole:
            found, _ = get_codec(header.codec).encode_pixels(header, parts[0], rounding=rounding)
            if not np.array_equal(found["payload"], pack.read_payload(0)["payload"]):
                raise EdgePruneError(f"{path}: encoding its first images again gives another payload")

    def epoch() -> Iterator[Pixels]:
        codec = get_codec(header.codec)
        for part in parts:
            codec.encode_pixels(header, part, rounding=rounding)
            yield part

    return epoch


def _theirs(peer: Peer, images: list[Any], level: int) -> Iterator[list[bytes]]:
    for image in images:
        yield [peer.encode(image, level)]


def _show(row: dict[str, Any]) -> None:
    click.echo(f"{row['size']}, {row['images']:,} images")
    for name, rate in row["images_per_second"].items():
        facts = row["files"][name]
        times = row["ratio_of_ours"][OURS].get(name)
        compared = f", ours is {times['median']:.2f}x as fast" if times else ""
        click.echo(
            f"  {name:<16} {rate['median']:>9,.1f} images/s, {facts['psnr_db']:.2f} dB, "
            f"{facts['file_bytes']:,.0f} B{compared}"
        )
    for reason in row["absent"].values():
        click.echo(f"  left out: {reason}")
    click.echo(f"  numpy instead of C takes {row['numpy']['ratio']:.1f}x as long")
    for name, stage in row.get("stages", {}).items():
        click.echo(f"  {name:<24} {stage['median']:7.3f} ms an image")


if __name__ == "__main__":
    serve(measure)
