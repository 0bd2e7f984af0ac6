"""As many images as fit a number of bytes: in one pack of ours, or as files of another codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune.report.pixels import pixels_of
from edgeprune_formats import ConfigError

from .matching import Curve, bracket
from .packs import ImageSet, build, measure_pack
from .peers import LOSSLESS, LOSSY, Peer, decode_all, encode_all

__all__ = [
    *("BARE", "CODECS", "COPIES", "PROBED", "RAW", "Fitted", "Fitter", "PackFitter", "PeerFitter"),
    *("describe", "make_fitter", "nested_order", "reencoded"),
]

# The images that settings are chosen on.
PROBED = 300
_PEERS = {peer.name: peer for peer in (*LOSSY, LOSSLESS[0])}
RAW = LOSSLESS[0].name
COPIES = "JPEG 4:2:0", 75
"""The codec and the quality of the copies that `reencoded` makes."""
BARE = ", no container"
"""What the name of a peer ends in whose headers and containers are not counted."""
_FILES = ("JPEG 4:2:0", "JPEG 4:4:4", "WebP", "AVIF 4:2:0", "JPEG XL e7")
_OURS = {
    "quantized": {},
    "quantized, nearest": {"rounding": "nearest"},
    "quantized, tile 8": {"tile": "8"},
}
"""What our rows have instead of the defaults of a pack."""
# A file of JPEG XL is nothing but its codestream.
CODECS = (*_OURS, *_FILES, *(name + BARE for name in _FILES[:-1]), RAW)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a budget buys.

    Attributes
    ----------
    images : ImageSet
        The decoded images, as a device would train from them.
    bytes : int
        What they take, at most the budget.
    """

    images: ImageSet
    bytes: int


class Fitter(Protocol):
    """One codec at one quality, for images in a given order."""

    setting: str
    psnr_db: float | None

    def fit(self, images: ImageSet, budget: int) -> Fitted:
        """Return the first of the images, as many as fit `budget` bytes."""

    def bytes_an_image(self, images: ImageSet) -> float:
        """Return the mean bytes of some images."""


def nested_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return all rows in a random order of which every beginning has the classes in equal numbers.

    Classes that run out leave the rest to the others.
    """
    random = np.random.default_rng(seed)
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.nonzero(labels == label)[0]
        place[random.permutation(rows)] = np.arange(len(rows))
    return np.lexsort((random.random(len(labels)), place)).astype(np.int64)


def make_fitter(codec: str, target: float | None, probe: ImageSet, folder: Path) -> Fitter:
    """Return a codec at the quality whose PSNR is nearest to `target` on some images.

    Raises
    ------
    ConfigError
        Unknown codec, or a PSNR that it cannot reach.
    """
    if codec in _OURS:
        assert target is not None
        options = _OURS[codec]
        return PackFitter(folder, *_pack_quality(probe, target, folder, options), options)
    name = codec.removesuffix(BARE)
    if name not in _PEERS:
        raise ConfigError(f"unknown codec {codec!r}; choose from {', '.join(CODECS)}")
    peer = _PEERS[name]
    if target is None:
        return PeerFitter(peer, 0, None)
    curve = Curve(peer, probe.pixels)
    found = bracket(lambda level: curve(level).psnr_db, target, peer.levels)
    if found is None:
        raise ConfigError(f"{codec} cannot reach {target} dB")
    near = min((curve(level) for level in found), key=lambda point: abs(point.psnr_db - target))
    return PeerFitter(peer, int(near.level), near.psnr_db, is_bare=codec != name)


def _pack_quality(
    probe: ImageSet, target: float, folder: Path, options: Mapping[str, str]
) -> tuple[float, float]:
    """Return our quality for a PSNR, to a tenth, and the PSNR that it gives."""
    path = folder / "probe.h5"
    seen: dict[int, float] = {}

    def quality(tenths: int) -> float:
        if tenths not in seen:
            with build(probe, path, codec="quantized", quality=tenths / 10, **options) as pack:
                seen[tenths] = measure_pack(probe, pack, 0.0).psnr_db
        return seen[tenths]

    found = bracket(quality, target, (10, 1000))
    if found is None:
        raise ConfigError(f"quantized cannot reach {target} dB")
    near = min(found, key=lambda tenths: abs(quality(tenths) - target))
    return near / 10, quality(near)


@dataclass
class PackFitter:
    """One pack: its whole file counts, labels, index and provenance included."""

    folder: Path
    quality: float
    psnr_db: float | None
    options: Mapping[str, str]
    setting: str = field(init=False)

    def __post_init__(self) -> None:
        self.setting = f"Q{self.quality:g}"

    def fit(self, images: ImageSet, budget: int) -> Fitted:
        """Return what the largest pack holds that was found to fit, within half a percent of the budget.

        Raises
        ------
        ConfigError
            Not even a few images fit.
        """
        path, everything = self.folder / "pack.h5", len(images.labels)
        count, best = min(everything, max(budget // 400, 10)), 0
        for _ in range(10):
            size = self._size(images, count, path)
            if size <= budget:
                best = max(best, count)
                if count == everything or size > 0.995 * budget:
                    break
            # A pack is not quite proportional to its images, so aim a little below.
            following = min(everything, int(count * 0.998 * budget / size))
            if following <= best:
                break
            count = following
        if best == 0:
            raise ConfigError(f"no pack of {images.name} fits in {budget} bytes")
        some = images.take(np.arange(best))
        with build(some, path, codec="quantized", quality=self.quality, **self.options) as pack:
            decoded = ImageSet(images.name, pixels_of(pack, backend="scipy"), pack.labels.astype(np.int64))
            return Fitted(decoded, path.stat().st_size)

    def bytes_an_image(self, images: ImageSet) -> float:
        """Return what an image takes in a pack of all, whatever a pack has once."""
        count = len(images.labels)
        whole, half = (self._size(images, some, self.folder / "size.h5") for some in (count, count // 2))
        return (whole - half) / (count - count // 2)

    def _size(self, images: ImageSet, count: int, path: Path) -> int:
        some = images.take(np.arange(count))
        build(some, path, codec="quantized", quality=self.quality, **self.options).close()
        return path.stat().st_size


@dataclass
class PeerFitter:
    """Files of one codec: all their bytes count, but nothing for labels, names and the file system.

    With `is_bare` not even headers and containers count, see `edgeprune_benchmarks.codec.containers`.
    """

    peer: Peer
    level: int
    psnr_db: float | None
    is_bare: bool = False
    setting: str = field(init=False)

    def __post_init__(self) -> None:
        self.setting = self.peer.setting(self.level) if self.psnr_db is not None else ""

    def fit(self, images: ImageSet, budget: int) -> Fitted:
        """Return the images of the longest beginning whose files fit."""
        files: list[bytes] = []
        spent, encode = 0, partial(encode_all, self.peer, level=self.level)
        for start in range(0, len(images.labels), 500):
            part = encode(images.pixels[start : start + 500])
            ends = spent + np.cumsum([self._bytes(file) for file in part])
            fits = int(np.searchsorted(ends, budget, side="right"))
            files += part[:fits]
            spent = int(ends[fits - 1]) if fits else spent
            if fits < len(part):
                break
        if not files:
            raise ConfigError(f"no file of {self.peer.name} fits in {budget} bytes")
        decoded = decode_all(self.peer, files, images.pixels.shape[1:])
        return Fitted(ImageSet(images.name, decoded, images.labels[: len(files)]), spent)

    def bytes_an_image(self, images: ImageSet) -> float:
        """Return the mean bytes of the images."""
        return float(
            np.mean([self._bytes(file) for file in encode_all(self.peer, images.pixels, self.level)])
        )

    def _bytes(self, file: bytes) -> int:
        return self.peer.payload(file) if self.is_bare else len(file)


def describe(fitter: Fitter) -> dict[str, Any]:
    """Return what a result says of a codec's quality."""
    return {"setting": fitter.setting, "psnr_db": fitter.psnr_db}


def reencoded(images: ImageSet) -> ImageSet:
    """Return what is left of images that were files of `COPIES` before."""
    name, quality = COPIES
    peer = _PEERS[name]
    files = encode_all(peer, images.pixels, quality)
    return replace(images, pixels=decode_all(peer, files, images.pixels.shape[1:]))
