"""From real to integer coefficients: the nearest, with a dead zone, or of least rate and distortion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..tiles import Scan
from .contexts import fit_bases
from .kernels import Kernels

__all__ = ["ROUNDINGS", "rounded"]

ROUNDINGS = ("rdo", "deadzone", "nearest")
# What a bit may cost in squared quantization steps. PSNR for the bytes is best at 0.15, but networks learn
# more at 0.05, which keeps more of the faint detail: decision 0032.
LAMBDA = 0.05
# What is added to a magnitude before it is cut to an integer.
_ADDED = {"rdo": 0.4, "deadzone": 0.4, "nearest": 0.5}
_PASSES = 2
# That rates are taken from, where there are so many.
_LEAST_TILES = 2048


def rounded(
    values: NDArray[np.float32], rounding: str, scan: Scan, weights: NDArray[np.float64], kernels: Kernels
) -> NDArray[np.int16]:
    """Return integers of the shape of `values`.

    Parameters
    ----------
    values : float32 [C, F, N]
        Coefficients over the quantization step, by frequency in coding order, and tile.
    rounding : str
        ``"nearest"`` rounds up from 0.5 on, ``"deadzone"`` from 0.6 on; ``"rdo"`` minimizes squared error +
        lambda * bits for each coefficient and for where each tile's coefficients end, by the chunk's own
        distributions.
    scan : Scan
    weights : float [C]
        What the squared error of a plane counts in that of the pixels.
    kernels : Kernels
        What does the inner loops.
    """
    result = np.empty(values.shape, np.int16)
    prices = LAMBDA / (weights / weights.mean())
    for plane, integers, price in zip(values, result, prices.tolist(), strict=True):
        chosen = kernels.dead_zone(plane, _ADDED[rounding])
        for _ in range(_PASSES if rounding == "rdo" else 0):
            chosen = _cheapest(plane, chosen, scan, price, kernels)
        kernels.sign(plane, chosen)
        chosen[0] = np.rint(plane[0])
        integers[...] = chosen
    return result


def _cheapest(
    values: NDArray[np.float32], chosen: NDArray[np.int16], scan: Scan, price: float, kernels: Kernels
) -> NDArray[np.int16]:
    """Return better magnitudes [F, N] for values [F, N], with rates from those chosen before."""
    contexts = kernels.contexts(chosen, scan)
    # Where a base is 0 there are zeros only, which are not coded.
    bases = np.maximum(fit_bases(contexts.count, contexts.magnitude, contexts.around), 1)
    # Images are in random order, so that some tell what all are like.
    some = min(chosen.shape[1], max(_LEAST_TILES, chosen.shape[1] // 4))
    rates = _rates(kernels.tally(chosen, contexts, bases, scan, some)) * np.float32(price)
    chosen, gain, ends = kernels.choose(values, contexts, bases, rates, scan)
    shares = ends + 0.5
    bits = (price * np.log2(shares / shares.sum())).astype(np.float32)
    kernels.cut(chosen, gain, bits, scan)
    return chosen


def _rates(tally: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the bits of each magnitude, its sign included, by class: float32 [48, 32]."""
    counts = tally + 0.05
    bits = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    bits[:, 1:] += 1
    rates: NDArray[np.float32] = bits.astype(np.float32)
    return rates
