"""Contexts: which distribution a quantized coefficient is coded with, by what its neighbors are.

formats/SPEC.md, section `quantized`, is the specification; names here are its names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tiles import Scan

__all__ = [
    "CLASSES",
    "SATURATION",
    "bands_of",
    "context_classes",
    "context_sums",
    "fit_bases",
    "shifts_of",
]

CLASSES = 48
# Class CENTER stands for a mean magnitude of about 1, and two classes for a factor of 2.
CENTER = 20
# Stored bases are moved by this much; 0 stands for a frequency that is never coded.
BASE_OFFSET = 64
# Magnitudes count in contexts up to this.
SATURATION = 15
# round(2 log2(sum + 2)), in integers.
LEVELS = np.array([((2 * (s + 2) ** 4).bit_length() - 1) // 2 for s in range(30 * SATURATION + 1)], np.int16)


def shifts_of(classes: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Return how many low bits of a value of each class are plain; the distribution has the rest."""
    shifts: NDArray[np.integer[Any]] = np.maximum((classes - CENTER) // 2, 0)
    return shifts


def bands_of(values: NDArray[np.integer[Any]], scan: Scan) -> NDArray[np.uint8]:
    """Return the lowest band that covers what is not zero, uint8 [N], of values [F, N] in coding order."""
    band = scan.band_of_place[:, None].astype(np.uint8)
    # Frequency 0 is coded whatever the band.
    return np.asarray(np.where(values[1:] != 0, band[1:], 0).max(axis=0, initial=0).astype(np.uint8))


def context_sums(magnitudes: NDArray[np.uint8], scan: Scan) -> NDArray[np.int16]:
    """Return the weighted sums of the neighbors' magnitudes, int16 [F, N], of [F, N] in coding order."""
    sums = np.zeros(magnitudes.shape, np.int16)
    outside = len(magnitudes)
    for weight, places in zip(scan.weights.tolist(), scan.neighbors.T, strict=True):
        inside = np.flatnonzero(places < outside)
        sums[inside] += magnitudes[places[inside]] * np.int16(weight)
    return sums


def context_classes(bases: NDArray[np.integer[Any]], sums: NDArray[np.integer[Any]]) -> NDArray[np.int16]:
    """Return classes int16, of stored bases [F, 1] and context sums [F, N]."""
    level = LEVELS.take(sums)
    level += bases.astype(np.int16) - np.int16(BASE_OFFSET)
    return np.clip(level, 0, CLASSES - 1, out=level)


def fit_bases(
    magnitudes: NDArray[np.integer[Any]], sums: NDArray[np.int16], coded: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return stored bases uint8 [F] that put the mean magnitude of each frequency into the class it is of.

    Parameters
    ----------
    magnitudes : int [F, N]
    sums : int16 [F, N]
    coded : bool [F, N]
        What the bands cover.
    """
    count = np.maximum(coded.sum(axis=1), 1)
    mean = np.sum(magnitudes, axis=1, where=coded, dtype=np.float64) / count
    around = np.sum(sums, axis=1, where=coded, dtype=np.float64) / count
    with np.errstate(divide="ignore"):
        base = np.rint(2 * (np.log2(mean) - np.log2(around + 2)) + CENTER)
    return np.where(mean > 0, np.clip(base + BASE_OFFSET, 1, 255), 0).astype(np.uint8)
