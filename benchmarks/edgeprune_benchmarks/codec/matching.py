"""A codec's bytes at a given PSNR: bisecting its quality, then interpolating between neighbors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import EdgePruneError

from .peers import Peer, decode_all, encode_all
from .quality import psnr, ssim

__all__ = ["Curve", "Point", "at_psnr", "bracket"]


@dataclass(frozen=True)
class Point:
    """A codec at one setting, per image.

    Attributes
    ----------
    level : float
        The setting; between two integers where the point is interpolated.
    file_bytes, payload_bytes : float
        With the container and without.
    psnr_db, ssim : float
        See `edgeprune_benchmarks.codec.quality`.
    """

    level: float
    file_bytes: float
    payload_bytes: float
    psnr_db: float
    ssim: float


class Curve:
    """What a peer makes of some images, level by level; each level is encoded at most once.

    Parameters
    ----------
    peer : Peer
    images : uint8 [N, 3, H, W]
    """

    def __init__(self, peer: Peer, images: NDArray[np.uint8]) -> None:
        self.peer, self._images = peer, images
        self._points: dict[int, Point] = {}

    def __call__(self, level: int) -> Point:
        """Return the point of an integer level."""
        if level not in self._points:
            self._points[level] = self._measure(level)
        return self._points[level]

    def points(self) -> list[Point]:
        """Return all points that were measured, by level."""
        return [self._points[level] for level in sorted(self._points)]

    def _measure(self, level: int) -> Point:
        files = encode_all(self.peer, self._images, level)
        decoded = decode_all(self.peer, files, self._images.shape[1:])
        return Point(
            level,
            float(np.mean([len(file) for file in files])),
            float(np.mean([self.peer.payload(file) for file in files])),
            psnr(decoded, self._images),
            ssim(decoded, self._images),
        )


def bracket(
    quality: Callable[[int], float], target: float, levels: tuple[int, int]
) -> tuple[int, int] | None:
    """Return neighboring levels of which one is below `target` and the next at or above it.

    Parameters
    ----------
    quality : callable
        PSNR of an integer level, rising but for small dips.
    target : float
    levels : (int, int)
        Lowest and highest level to try.

    Returns
    -------
    (int, int) or None
        Of several such pairs one; the lowest level twice where that reaches the target exactly, and None
        where `target` is out of reach.
    """
    low, high = levels
    if quality(low) >= target:
        return (low, low) if quality(low) == target else None
    if quality(high) < target:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if quality(middle) < target:
            low = middle
        else:
            high = middle
    return low, high


def at_psnr(curve: Curve, target: float) -> Point | None:
    """Return a peer at a PSNR, linear in PSNR between the neighboring integer levels; None out of reach."""
    found = bracket(lambda level: curve(level).psnr_db, target, curve.peer.levels)
    if found is None:
        return None
    below, above = (curve(level) for level in found)
    if below is above:
        return below
    if not below.psnr_db < target <= above.psnr_db:
        raise EdgePruneError(f"{curve.peer.name} gave two results at one level")
    share = (target - below.psnr_db) / (above.psnr_db - below.psnr_db)
    mixed = {
        name: (1 - share) * getattr(below, name) + share * getattr(above, name)
        for name in ("level", "file_bytes", "payload_bytes", "ssim")
    }
    return Point(psnr_db=target, **mixed)
