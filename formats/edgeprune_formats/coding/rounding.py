"""From real to integer coefficients: with a dead zone, or where rate and distortion are least together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tiles import BANDS, Scan
from .contexts import CLASSES, SATURATION, bands_of, context_classes, context_sums, fit_bases

__all__ = ["ROUNDINGS", "rounded"]

ROUNDINGS = ("rdo", "deadzone")
# What a bit may cost in squared quantization steps: between the two best of 0.05, 0.08, 0.12 and 0.17 on 2048
# training images of CIFAR-10 at 28 to 38 dB.
LAMBDA = 0.15
DEAD_ZONE = 0.4
_LEVELS = 32
_PASSES = 2


def rounded(
    values: NDArray[np.float32], rounding: str, scan: Scan, weights: NDArray[np.float64]
) -> NDArray[np.int32]:
    """Return integers of the shape of `values`.

    Parameters
    ----------
    values : float32 [n, C, tiles, F]
        Coefficients over the quantization step, in coding order.
    rounding : str
        ``"deadzone"`` rounds up from 0.6 on; ``"rdo"`` minimizes squared error + lambda * bits for each
        coefficient and for where each tile's coefficients end, by the chunk's own distributions.
    scan : Scan
    weights : float [C]
        What the squared error of a plane counts in that of the pixels.
    """
    size = np.abs(values)
    first = np.floor(size + np.float32(DEAD_ZONE)).astype(np.int32)
    if rounding == "rdo":
        importance = weights / weights.mean()
        for plane, weight in enumerate(importance.tolist()):
            shape = size[:, plane].shape
            by_place = np.ascontiguousarray(size[:, plane].reshape(-1, shape[-1]).T)
            start = np.ascontiguousarray(first[:, plane].reshape(-1, shape[-1]).T)
            for _ in range(_PASSES):
                start = _cheapest(by_place, start, scan, LAMBDA / weight)
            first[:, plane] = start.T.reshape(shape)
    result: NDArray[np.int32] = np.where(values < 0, -first, first)
    result[..., 0] = np.rint(values[..., 0])
    return result


def _cheapest(
    size: NDArray[np.float32], chosen: NDArray[np.int32], scan: Scan, price: float
) -> NDArray[np.int32]:
    """Return better magnitudes int32 [F, N] for sizes [F, N], with rates from those chosen before."""
    sums = context_sums(np.minimum(chosen, SATURATION).astype(np.uint8), scan)
    coded = scan.band_of_place[:, None] <= bands_of(chosen, scan)
    bases = fit_bases(chosen, sums, coded)
    classes = context_classes(np.maximum(bases, 1)[:, None], sums)
    rate = _rates(chosen, classes, coded) * np.float32(price)
    low = np.floor(size).astype(np.int32)
    best = size**2 + rate[classes, 0]
    result = np.zeros_like(chosen)
    for offset in (0, 1):
        level = low + offset
        cost = (size - level) ** 2 + rate[classes, np.minimum(level, _LEVELS - 1)]
        better = cost < best
        best[better], result[better] = cost[better], level[better]
    return _ended(size, result, best, scan, price)


def _rates(
    chosen: NDArray[np.int32], classes: NDArray[np.int16], coded: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the bits of each magnitude, its sign included, by class: float32 [CLASSES, 32]."""
    at = classes[coded].astype(np.int64) * _LEVELS + np.minimum(chosen[coded], _LEVELS - 1)
    counts = np.bincount(at, minlength=CLASSES * _LEVELS).reshape(CLASSES, _LEVELS) + 0.05
    bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    bits[:, 1:] += 1
    rates: NDArray[np.float32] = bits.astype(np.float32)
    return rates


def _ended(
    size: NDArray[np.float32], chosen: NDArray[np.int32], cost: NDArray[Any], scan: Scan, price: float
) -> NDArray[np.int32]:
    """Set to zero what lies beyond the band in which ending costs least."""
    band = scan.band_of_place
    gain = np.zeros((BANDS, size.shape[1]), np.float32)
    for number in range(1, BANDS):
        inside = np.flatnonzero(band == number)
        if len(inside):
            gain[number] = (size[inside] ** 2 - cost[inside]).sum(axis=0)
    shares = np.bincount(bands_of(chosen, scan), minlength=BANDS) + 0.5
    total = np.cumsum(gain, axis=0) + price * np.log2(shares / shares.sum())[:, None]
    end = np.argmax(total, axis=0)
    kept: NDArray[np.int32] = np.where(band[:, None] <= end, chosen, 0)
    return kept
