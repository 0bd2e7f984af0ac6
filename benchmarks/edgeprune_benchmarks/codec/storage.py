"""Storage: bytes, PSNR and SSIM of every codec of ours and of the peers', and bytes at equal PSNR."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import open_source
from edgeprune.presets import component_count

from ..harness.images import lossless, unpack_photographs
from ..harness.results import save
from .matching import Curve, Point, at_psnr
from .packs import ImageSet, build, measure_pack, zstd_bytes
from .peers import LOSSLESS, LOSSY

__all__ = ["SIZES", "measure", "run", "subset"]

RATIOS = (0.5, 0.7, 0.8, 0.9)
SEED = 0
# Bytes an image that the paper prints (App. D, table 5), by share of components dropped.
PAPER = {0.5: 9216, 0.7: 5532, 0.8: 3684, 0.9: 1842}
CORESET = 25_000
JPEG_LEVELS = (75, 95)  # that people use, for the rows that table 5 lacks


@dataclass(frozen=True)
class Scale:
    """What is tried at one image size.

    Attributes
    ----------
    qualities : tuple of float
        Of the curves of `quantized`, from about 26 to 40 dB.
    targets : tuple of float
        PSNR in dB at which peers are matched to it.
    tiles : tuple of str
        Tiles that are tried; the first is the one that peers are matched to.
    images : int
        How many by default.
    """

    qualities: tuple[float, ...]
    targets: tuple[float, ...]
    tiles: tuple[str, ...]
    images: int


SIZES = {
    "32x32": Scale((40, 50, 60, 70, 78, 84, 89, 93, 96), (28, 30, 32, 34, 36, 37), ("full",), 1000),
    "224x224": Scale(
        (15, 30, 45, 60, 72, 80, 86, 91, 95), (28, 30, 32, 34, 36, 38), ("16", "full", "8", "32"), 250
    ),
}


def run(data: Path, output: Path, *, sizes: Iterable[str], images: int | None) -> None:
    """Measure at each size and write ``storage-SIZE.json``."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            every = _images(data, Path(folder), size)
            some = subset(every, images or SIZES[size].images)
            results = measure(some, every, SIZES[size], Path(folder))
        click.echo(save(output, f"storage-{size}", {"size": size, **results}))


def _images(data: Path, folder: Path, size: str) -> ImageSet:
    if size == "32x32":
        return ImageSet.of(open_source(f"npz:{lossless(data)}"), "CIFAR-10, exact pixels")
    spec = f"imagefolder:{unpack_photographs(data, folder / 'photographs')}"
    return ImageSet.of(open_source(spec, size=224), "photographs")


def subset(images: ImageSet, count: int) -> ImageSet:
    """Return `count` images drawn at random from seed 0, in their order; all where there are no more."""
    if count >= len(images.labels):
        return images
    rows = np.sort(np.random.default_rng(SEED).choice(len(images.labels), count, replace=False))
    return images.take(rows.astype(np.int64)).renumbered()


def measure(some: ImageSet, every: ImageSet, scale: Scale, folder: Path) -> dict[str, Any]:
    """Return the curves of all codecs over `some` images, and ours at the targets over `every` one as well.

    Tables of a pack are shared by its images, so a pack of more images is a little smaller an image: what
    is compared with peers is the pack of the same images.
    """
    bench = _Bench(some, folder)
    rows = [*bench.reference(), *bench.sparse(), *bench.quantized(scale), *bench.masked(scale.tiles[0])]
    curves = [Curve(peer, some.pixels) for peer in LOSSY]
    for level in JPEG_LEVELS:
        curves[0](level)
    points = [bench.at(target, scale) for target in scale.targets]
    matched = [_match(target, point, curves) for target, point in zip(scale.targets, points, strict=True)]
    for curve in curves:
        rows += [_row("peer", curve.peer.name, p, curve.peer.setting(p.level)) for p in curve.points()]
    of_all = _Bench(every, folder)
    whole = [of_all.point(codec="quantized", quality=p.level, tile=scale.tiles[0]) for p in points]
    return {
        "images": len(some.labels),
        "images_in_all": len(every.labels),
        "source": some.name,
        "seed": SEED,
        "rows": rows,
        "matched": matched,
        "all_images": [asdict(point) for point in whole],
        "table5": _table5(rows) if some.pixels.shape[2] == 32 else None,
    }


def _match(target: float, ours: Point, curves: list[Curve]) -> dict[str, Any]:
    """Return our point, the peers at its PSNR, and the ratio of bytes, ours to theirs, both ways."""
    peers = {curve.peer.name: at_psnr(curve, ours.psnr_db) for curve in curves}
    found = {name: point for name, point in peers.items() if point is not None}
    row: dict[str, Any] = {"target_db": target, "ours": asdict(ours)}
    row["peers"] = {name: asdict(point) for name, point in found.items()}
    for kind in ("file_bytes", "payload_bytes"):
        ratios = {name: getattr(ours, kind) / getattr(point, kind) for name, point in found.items()}
        best = max(ratios, key=lambda name: ratios[name]) if ratios else None
        row[kind] = {"ratio": ratios, "best_peer": best, "ratio_to_best": ratios[best] if best else None}
    best = row["file_bytes"]["best_peer"]
    click.echo(
        f"{ours.psnr_db:.2f} dB: ours {ours.file_bytes:,.0f} B, "
        + (f"{row['file_bytes']['ratio_to_best']:.3f}x of {best}" if best else "no other codec reaches this")
    )
    return row


def _row(kind: str, name: str, point: Point, setting: str) -> dict[str, Any]:
    values = asdict(point)
    # JSON has no infinity: None stands for exact pixels.
    values["psnr_db"] = None if np.isinf(point.psnr_db) else point.psnr_db
    return {"kind": kind, "codec": name, "setting": setting, **values}


class _Bench:
    """Builds and measures packs of one set of images."""

    def __init__(self, images: ImageSet, folder: Path) -> None:
        self._images, self._path = images, folder / "pack.h5"
        self._curve: list[Point] = []

    def point(self, **config: Any) -> Point:
        """Return a pack's bytes and quality."""
        with build(self._images, self._path, **config) as pack:
            found = measure_pack(self._images, pack, config.get("quality") or 0.0)
        click.echo(f"{config}: {found.file_bytes:,.0f} B, {found.psnr_db:.2f} dB, SSIM {found.ssim:.4f}")
        return found

    def reference(self) -> list[dict[str, Any]]:
        """Return the lossless codecs, each checked to be so."""
        rows = []
        for peer in LOSSLESS:
            point = Curve(peer, self._images.pixels)(0)
            if not np.isinf(point.psnr_db):
                raise click.ClickException(f"{peer.name} is not lossless: {point.psnr_db:.1f} dB")
            rows.append(_row("lossless", peer.name, point, ""))
        return rows

    def sparse(self) -> list[dict[str, Any]]:
        """Return the sparse codecs at each pruning ratio, plain and through gzip."""
        rows = []
        for codec in ("sparse-f32", "sparse-f16"):
            for compression in ("none", "gzip"):
                name = codec if compression == "none" else f"{codec}, {compression}"
                for ratio in RATIOS:
                    point = self.point(codec=codec, compression=compression, freq_prune=ratio)
                    rows.append(_row("ours", name, point, f"{ratio:.0%} pruned"))
        return rows

    def quantized(self, scale: Scale) -> list[dict[str, Any]]:
        """Return the curves of each color space, tile and rounding; the first is the default."""
        first = scale.tiles[0]
        variants = [("ycbcr", first, "rdo"), ("ycbcr", first, "deadzone"), ("rgb", first, "rdo")]
        variants += [("ycbcr", other, "rdo") for other in scale.tiles[1:]]
        rows = []
        for color, tile, rounding in variants:
            name = f"quantized, {color}, {_tiles(tile)}, {rounding}"
            for quality in scale.qualities:
                config = {"color": color, "tile": tile, "rounding": rounding, "quality": quality}
                point = self.point(codec="quantized", **config)
                rows.append(_row("ours", name, point, f"Q{quality:g}"))
                if (color, tile, rounding) == variants[0]:
                    self._curve.append(point)
                    rows.append(self._zstd(point, f"Q{quality:g}"))
        return rows

    def _zstd(self, point: Point, setting: str) -> dict[str, Any]:
        """Return the bytes of the last pack's integers through zstd, a hypothetical file."""
        from edgeprune_formats import open_pack

        with open_pack(self._path) as pack:
            size = zstd_bytes(pack)
        other = Point(
            point.level, size + point.file_bytes - point.payload_bytes, size, point.psnr_db, point.ssim
        )
        return _row("reference", "the same integers, zstd-19", other, setting)

    def masked(self, tile: str) -> list[dict[str, Any]]:
        """Return `quantized` under energy masks, at one quality."""
        rows = []
        for ratio in RATIOS:
            point = self.point(codec="quantized", quality=90.0, tile=tile, freq_prune=ratio)
            rows.append(_row("ours", "quantized, energy masks", point, f"Q90, {ratio:.0%} pruned"))
        return rows

    def at(self, target: float, scale: Scale) -> Point:
        """Return the default `quantized` near a PSNR: at the quality that the curve says, then measured."""
        curve = sorted(self._curve, key=lambda point: point.psnr_db)
        psnrs: NDArray[np.float64] = np.array([point.psnr_db for point in curve])
        quality = float(np.interp(target, psnrs, [point.level for point in curve]))
        return self.point(codec="quantized", quality=round(quality, 2), tile=scale.tiles[0])


def _tiles(tile: str) -> str:
    return "whole image" if tile == "full" else f"tiles of {tile}"


def _table5(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return table 5 of the paper, bytes an image and MB for 25,000, with the rows that it lacks."""
    ours = {row["setting"]: row for row in rows if row["codec"] == "sparse-f32"}
    table = []
    for ratio, paper in PAPER.items():
        row = ours[f"{ratio:.0%} pruned"]
        payload = 18 * component_count(ratio, 32, 32)
        facts = {"name": f"sparse-f32, {ratio:.0%} pruned", "paper_bytes": paper, "bytes": payload}
        table.append({**facts, "file_bytes": row["file_bytes"], "psnr_db": row["psnr_db"]})
    peers = {("raw uint8", ""), *(("JPEG 4:2:0", f"q{level}") for level in JPEG_LEVELS)}
    for row in rows:
        if (row["codec"], row["setting"]) in peers:
            facts = {"name": f"{row['codec']} {row['setting']}".strip(), "paper_bytes": None}
            facts["bytes"] = row["payload_bytes"]
            table.append({**facts, "file_bytes": row["file_bytes"], "psnr_db": row["psnr_db"]})
    return [{**row, "coreset_mb": row["file_bytes"] * CORESET / 1e6} for row in table]
