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
    "class_of_level",
    "context_sums",
    "fit_bases",
    "levels_of",
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
LEVELS = np.array([((2 * (s + 2) ** 4).bit_length() - 1) // 2 for s in range(30 * SATURATION + 1)], np.uint8)


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


def levels_of(sums: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Return ``L`` of context sums."""
    return LEVELS.take(sums)


def class_of_level(bases: NDArray[np.integer[Any]], levels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return classes int16, of stored bases [F, 1] and levels [F, N]."""
    classes: NDArray[np.int16] = levels + (bases.astype(np.int16) - np.int16(BASE_OFFSET))
    return np.clip(classes, 0, CLASSES - 1, out=classes)


def fit_bases(
    count: NDArray[np.int64], magnitude: NDArray[np.int64], around: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return stored bases uint8 [F] that put the mean magnitude of each frequency into the class it is of.

    Parameters
    ----------
    count, magnitude, around : int64 [F]
        See `edgeprune_formats.coding.kernels.Contexts`.
    """
    number = np.maximum(count, 1)
    mean, sums = magnitude / number, around / number
    with np.errstate(divide="ignore"):
        base = np.rint(2 * (np.log2(mean) - np.log2(sums + 2)) + CENTER)
    return np.where(mean > 0, np.clip(base + BASE_OFFSET, 1, 255), 0).astype(np.uint8)
