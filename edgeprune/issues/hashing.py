"""Perceptual hashes of images: the signs of their lowest frequencies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bit_counts", "perceptual_hashes"]

# Frequencies of the brightness and of each of two color differences that give a bit: 128 in all, two words.
_LUMA, _CHROMA = 88, 20
# Rows and columns of coefficients among which the lowest `_LUMA` are.
_SIDE = 13
# What is smaller than so much of the pixels' range is rounding; the bit of such a coefficient is 0.
_ROUNDING = 1e-9


def perceptual_hashes(
    pixels: NDArray[np.uint8 | np.uint16],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the hashes of some images, those of their mirror images, and which of the bits say something.

    A bit says whether a coefficient of the orthonormal DCT-II is positive. Those of the lowest frequencies
    count, in the order of JPEG's zigzag, without the mean: of the brightness, and of the differences between
    the first two channels, and between their mean and the third, where there are three. A bit says nothing,
    and is 0, where the coefficient is: of images that are small, plain or without color.

    Parameters
    ----------
    pixels : uint8 or uint16 [n, C, H, W]

    Returns
    -------
    uint64 [n, 2], three times
    """
    low = _low(pixels)
    bits, mirrored, present = [], [], []
    for plane, count in zip(_planes(low), (_LUMA, _CHROMA, _CHROMA), strict=True):
        down, across = _zigzag(count)
        values = plane[:, down, across]
        bits.append(values > _ROUNDING)
        mirrored.append(np.where(across % 2, -values, values) > _ROUNDING)
        present.append(np.abs(values) > _ROUNDING)
    return _packed(bits), _packed(mirrored), _packed(present)


def bit_counts(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return how many bits are set in each word."""
    counts: NDArray[np.uint8]
    if hasattr(np, "bitwise_count"):
        counts = np.bitwise_count(words)
        return counts
    # Before numpy 2.
    parts = _counts_of_16_bits()[np.ascontiguousarray(words).view(np.uint16)]
    counts = parts.reshape(*words.shape, 4).sum(axis=-1, dtype=np.uint8)
    return counts


@lru_cache
def _counts_of_16_bits() -> NDArray[np.uint8]:
    counts = np.zeros(1, np.uint8)
    for _ in range(16):
        counts = np.concatenate([counts, counts + np.uint8(1)])
    return counts


def _low(pixels: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float64]:
    """Return the lowest coefficients [n, C, _SIDE, _SIDE] of pixels on [0, 1], over the root of H * W."""
    count, channels, height, width = pixels.shape
    scale = np.iinfo(pixels.dtype).max * np.sqrt(height * width)
    across = pixels.reshape(-1, width).astype(np.float64) @ (_cosines(width).T / scale)
    low = np.tensordot(across.reshape(-1, height, _SIDE), _cosines(height), axes=(1, 1))
    found: NDArray[np.float64] = low.swapaxes(1, 2).reshape(count, channels, _SIDE, _SIDE)
    return found


def _planes(channels: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return brightness and two color differences of what is linear in the pixels, [n, C, ...]."""
    if channels.shape[1] != 3:
        luma = channels.mean(axis=1)
        return luma, np.zeros_like(luma), np.zeros_like(luma)
    red, green, blue = np.moveaxis(channels, 1, 0)
    return 0.299 * red + 0.587 * green + 0.114 * blue, red - green, (red + green) / 2 - blue


@lru_cache
def _cosines(length: int) -> NDArray[np.float64]:
    """Return the first rows, [_SIDE, length], of the orthonormal DCT-II; 0 from `length` on."""
    frequency, place = np.arange(_SIDE)[:, None], np.arange(length)
    rows: NDArray[np.float64] = np.sqrt(2 / length) * np.cos(
        np.pi * frequency * (2 * place + 1) / (2 * length)
    )
    rows[0] /= np.sqrt(2)
    rows[length:] = 0
    return rows


@lru_cache
def _zigzag(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of so many of the lowest frequencies, without the mean."""
    down, across = (axis.ravel() for axis in np.indices((_SIDE, _SIDE)))
    order = np.lexsort((down, down + across))[1 : count + 1]
    return down[order], across[order]


def _packed(bits: list[NDArray[np.bool_]]) -> NDArray[np.uint64]:
    """Return bits [n, ...] as words, in turn, so that the first alone tells most images apart."""
    flat: NDArray[Any] = np.concatenate(bits, axis=1)
    words = np.concatenate([flat[:, ::2], flat[:, 1::2]], axis=1)
    packed: NDArray[np.uint64] = np.ascontiguousarray(np.packbits(words, axis=1)).view(np.uint64)
    return packed
