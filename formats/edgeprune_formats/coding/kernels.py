"""The inner loops of encoding `quantized`: what they are, and how they are done in numpy.

Planes are stored by frequency, ``[F, N]``: frequencies in coding order, for each the tiles of all images side
by side. `edgeprune_formats.coding.native` does the same in C and gives the same bits: floating-point
operations are single precision, in the order that is written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..header import PackHeader
from ..tiles import BANDS, Scan, color_matrix, color_shift, dct_basis, scan_order
from .contexts import CLASSES, SATURATION, bands_of, class_of_level, context_sums, levels_of, shifts_of
from .rans import SYMBOLS, encode

__all__ = [
    "ESCAPE",
    "ESCAPE_BITS",
    "MAGNITUDES",
    "Coder",
    "Contexts",
    "Kernels",
    "NumpyKernels",
    "color_transform",
]

# The symbols 0 to 14 stand for -7 to 7, this one for a value that is written out.
ESCAPE = SYMBOLS - 1
ESCAPE_BITS = 16
# Magnitudes whose rates are told apart.
MAGNITUDES = 32
# Values whose plain bits are spread at a time, to bound the memory that it takes.
BITS_AT_A_TIME = 2**16

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Contexts:
    """What a plane's integers say of their own coding.

    Attributes
    ----------
    bands : uint8 [N]
        The lowest band that covers what is not zero.
    levels : uint8 [F, N]
        ``L`` of the context sums, see formats/SPEC.md.
    count, magnitude, around : int64 [F]
        Of each frequency, where the band covers it: how often it occurs, the sum of its magnitudes, and that
        of its context sums.
    """

    bands: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    count: NDArray[np.int64]
    magnitude: NDArray[np.int64]
    around: NDArray[np.int64]


class Coder(Protocol):
    """Collects the symbols of a chunk, run after run, and codes them."""

    def add_bands(self, first: int, before: NDArray[np.uint8], bands: NDArray[np.uint8]) -> None:
        """Add the run of bands of a plane, in the contexts ``first + before``; both [N]."""

    def add_plane(self, values: Integers, contexts: Contexts, bases: NDArray[np.uint8]) -> None:
        """Add the runs of a plane's values [F, N]; bases [F]."""

    def counts(self, contexts: int) -> NDArray[np.int64]:
        """Return how often each symbol occurred, [contexts, 16]."""

    def coded(
        self, row_of: NDArray[np.int16], frequencies: NDArray[np.uint16], lanes: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint8]]:
        """Return states, words and plain bits, packed; see `edgeprune_formats.coding.rans.encode`."""


class Kernels(Protocol):
    """The inner loops. What they return may be used until the thread calls the same one again."""

    def transform(self, pixels: NDArray[np.uint8 | np.uint16], header: PackHeader) -> NDArray[np.float32]:
        """Return coefficients over the step, float32 [C, F, N], of pixels [n, C, H, W]."""

    def dead_zone(self, values: NDArray[np.float32], zone: float) -> NDArray[np.int16]:
        """Return ``floor(|value| + zone)``."""

    def contexts(self, values: Integers, scan: Scan) -> Contexts:
        """Return the contexts of a plane's integers [F, N]."""

    def tally(
        self, values: Integers, contexts: Contexts, bases: NDArray[np.uint8], scan: Scan, tiles: int
    ) -> NDArray[np.int64]:
        """Return how often each magnitude, 31 for all from there on, occurs in each class: int64 [48, 32].

        Of the first `tiles`.
        """

    def choose(
        self,
        values: NDArray[np.float32],
        contexts: Contexts,
        bases: NDArray[np.uint8],
        rates: NDArray[np.float32],
        scan: Scan,
    ) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.int64]]:
        """Return of 0 and the two integers around each magnitude that of the least squared error plus rate.

        Also what this gains in each band against zeros, float32 [16, N], and in how many tiles each band is
        the lowest that covers what is not zero, int64 [16]. Rates are float32 [48, 32]: classes, magnitudes.
        """

    def cut(
        self, chosen: NDArray[np.int16], gain: NDArray[np.float32], bits: NDArray[np.float32], scan: Scan
    ) -> None:
        """Set to zero what lies beyond the band in which ending gains most, with `bits` [16] for the band."""

    def sign(self, values: NDArray[np.float32], chosen: NDArray[np.int16]) -> None:
        """Give magnitudes the signs of `values`, in place."""

    def products(self, values: NDArray[np.float32], chosen: NDArray[np.int16]) -> NDArray[np.float64]:
        """Return the sums of products of the errors of planes c <= d, [C, C], of [C, F, N]."""

    def coder(self, planes: int, tiles: int, scan: Scan) -> Coder:
        """Return an empty coder for so many planes, and tiles in each."""


def color_transform(header: PackHeader) -> tuple[NDArray[np.float32], NDArray[np.float32], np.float32]:
    """Return matrix [C, C] and shift [C] from pixels 0..2^bits - 1 to planes, and 1 over the step."""
    matrix = np.linalg.inv(color_matrix(header.color_space, header.channels)) / (2**header.bits - 1)
    shift = color_shift(header.color_space, header.channels)
    return matrix.astype(np.float32), shift.astype(np.float32), np.float32(1 / header.step)


class NumpyKernels:
    """The reference."""

    def transform(self, pixels: NDArray[np.uint8 | np.uint16], header: PackHeader) -> NDArray[np.float32]:
        """See `Kernels.transform`."""
        (height, width), grid, scan = header.tile_shape, header.grid, scan_order(*header.tile_shape)
        matrix, shift, scale = color_transform(header)
        missing = [(0, grid[axis] * header.tile_shape[axis] - pixels.shape[2 + axis]) for axis in (0, 1)]
        padded = np.pad(pixels, ((0, 0), (0, 0), *missing), mode="edge")
        shape = (len(pixels), header.channels, grid[0], height, grid[1], width)
        tiles = padded.reshape(shape).transpose(1, 3, 5, 0, 2, 4)
        channels = tiles.reshape(header.channels, height, width, -1).astype(np.float32)
        planes = np.empty((header.channels, height * width, channels.shape[3]), np.float32)
        for number, (plane, offset) in enumerate(zip(planes, shift, strict=True)):
            if header.channels == 3:
                (of_red, of_green, of_blue), (red, green, blue) = matrix[number], channels
                mixed = of_red * red + of_green * green + of_blue * blue - offset
            else:
                mixed = matrix[number, number] * channels[number] - offset
            down = _dct(mixed, dct_basis(height).astype(np.float32))
            both = _dct(down.swapaxes(0, 1), dct_basis(width).astype(np.float32)).swapaxes(0, 1)
            plane[...] = both.reshape(plane.shape)[scan.raster] * scale
        return planes

    def dead_zone(self, values: NDArray[np.float32], zone: float) -> NDArray[np.int16]:
        """See `Kernels.dead_zone`."""
        chosen: NDArray[np.int16] = np.floor(np.abs(values) + np.float32(zone)).astype(np.int16)
        return chosen

    def contexts(self, values: Integers, scan: Scan) -> Contexts:
        """See `Kernels.contexts`."""
        magnitudes, bands = np.abs(values.astype(np.int32)), bands_of(values, scan)
        sums = context_sums(np.minimum(magnitudes, SATURATION).astype(np.uint8), scan)
        covered = scan.band_of_place[:, None] <= bands
        return Contexts(
            bands,
            levels_of(sums),
            covered.sum(axis=1),
            np.sum(magnitudes, axis=1, where=covered, dtype=np.int64),
            np.sum(sums, axis=1, where=covered, dtype=np.int64),
        )

    def tally(
        self, values: Integers, contexts: Contexts, bases: NDArray[np.uint8], scan: Scan, tiles: int
    ) -> NDArray[np.int64]:
        """See `Kernels.tally`."""
        covered = scan.band_of_place[:, None] <= contexts.bands[:tiles]
        classes = class_of_level(bases[:, None], contexts.levels[:, :tiles])[covered].astype(np.int64)
        magnitudes = np.minimum(np.abs(values[:, :tiles][covered].astype(np.int32)), MAGNITUDES - 1)
        found = np.bincount(classes * MAGNITUDES + magnitudes, minlength=CLASSES * MAGNITUDES)
        return found.reshape(CLASSES, MAGNITUDES)

    def choose(
        self,
        values: NDArray[np.float32],
        contexts: Contexts,
        bases: NDArray[np.uint8],
        rates: NDArray[np.float32],
        scan: Scan,
    ) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.int64]]:
        """See `Kernels.choose`."""
        size = np.abs(values)
        classes = class_of_level(bases[:, None], contexts.levels)
        low, nothing = np.floor(size).astype(np.int32), size * size
        best, chosen = nothing + rates[classes, 0], np.zeros(size.shape, np.int16)
        for level in (low, low + 1):
            error = size - level.astype(np.float32)
            cost = error * error + rates[classes, np.minimum(level, MAGNITUDES - 1)]
            better = cost < best
            best[better], chosen[better] = cost[better], level[better]
        gain = np.zeros((BANDS, size.shape[1]), np.float32)
        for band, row in zip(scan.band_of_place.tolist(), nothing - best, strict=True):
            gain[band] += row
        return chosen, gain, np.bincount(bands_of(chosen, scan), minlength=BANDS)

    def cut(
        self, chosen: NDArray[np.int16], gain: NDArray[np.float32], bits: NDArray[np.float32], scan: Scan
    ) -> None:
        """See `Kernels.cut`."""
        total, most = np.zeros(gain.shape[1], np.float32), np.full(gain.shape[1], bits[0])
        ends = np.zeros(gain.shape[1], np.int32)
        for band in range(1, BANDS):
            total += gain[band]
            cost = total + bits[band]
            ends[cost > most] = band
            most = np.maximum(cost, most)
        chosen[scan.band_of_place[:, None] > ends] = 0

    def sign(self, values: NDArray[np.float32], chosen: NDArray[np.int16]) -> None:
        """See `Kernels.sign`."""
        np.negative(chosen, out=chosen, where=values < 0)

    def products(self, values: NDArray[np.float32], chosen: NDArray[np.int16]) -> NDArray[np.float64]:
        """See `Kernels.products`."""
        errors = (chosen - values.astype(np.float64)).reshape(len(values), -1)
        return np.triu(errors @ errors.T)

    def coder(self, planes: int, tiles: int, scan: Scan) -> Coder:
        """See `Kernels.coder`."""
        return _NumpyCoder(scan)


def _dct(values: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the orthonormal DCT-II along the first axis, by sums and differences of what lies symmetric."""
    found = np.empty(values.shape, np.float32)
    sums, every = values, 1
    while len(sums) % 2 == 0:
        half = len(sums) // 2
        first, last = sums[:half], sums[: half - 1 : -1]
        differences, sums = first - last, first + last
        for frequency in range(every, len(values), 2 * every):
            found[frequency] = _weighted(basis[frequency], differences)
        every *= 2
    for frequency in range(0, len(values), every):
        found[frequency] = _weighted(basis[frequency], sums)
    return found


def _weighted(weights: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    total: NDArray[np.float32] = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=False):
        total += weight * value
    return total


class _NumpyCoder:
    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._runs: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._bits: list[NDArray[np.uint8]] = []

    def add_bands(self, first: int, before: NDArray[np.uint8], bands: NDArray[np.uint8]) -> None:
        self._runs.append((before.astype(np.int16) + first, bands))

    def add_plane(self, values: Integers, contexts: Contexts, bases: NDArray[np.uint8]) -> None:
        scan = self._scan
        coded = scan.band_of_place[:, None] <= contexts.bands
        coded &= bases[:, None] > 0
        classes = class_of_level(bases[:, None], contexts.levels)
        for start, stop in zip(scan.starts[:-1], scan.starts[1:], strict=True):
            inside = coded[start:stop]
            some = classes[start:stop][inside]
            symbols, plain, length = _split(values[start:stop][inside], some)
            self._runs.append((some, symbols))
            self._bits.append(_bits(plain, length))

    def counts(self, contexts: int) -> NDArray[np.int64]:
        counts = np.zeros((contexts, SYMBOLS), np.int64)
        for rows, symbols in self._runs:
            np.add.at(counts, (rows, symbols), 1)
        return counts

    def coded(
        self, row_of: NDArray[np.int16], frequencies: NDArray[np.uint16], lanes: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint8]]:
        rows = [(row_of[contexts], symbols) for contexts, symbols in self._runs]
        states, words = encode(rows, frequencies, lanes)
        return states, words, np.packbits(np.concatenate(self._bits), bitorder="little")


def _split(
    values: Integers, classes: Integers
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """Return symbols, plain values and numbers of plain bits."""
    shift = shifts_of(classes).astype(np.int32)
    wide = values.astype(np.int32)
    high = wide >> shift
    escaped = np.abs(high) > 7
    symbols = np.where(escaped, ESCAPE, high + 7).astype(np.uint8)
    plain = np.where(escaped, wide & 0xFFFF, wide & ((1 << shift) - 1))
    return symbols, plain, np.where(escaped, ESCAPE_BITS, shift)


def _bits(plain: NDArray[np.int32], lengths: Integers) -> NDArray[np.uint8]:
    """Return the plain bits of some values one after another, a byte each, low bit first."""
    used = np.flatnonzero(lengths)
    place = np.arange(ESCAPE_BITS, dtype=np.int32)
    pieces = [np.empty(0, np.uint8)]
    for start in range(0, len(used), BITS_AT_A_TIME):
        some = used[start : start + BITS_AT_A_TIME, None]
        pieces.append(((plain[some] >> place) & 1).astype(np.uint8)[place < lengths[some]])
    return np.concatenate(pieces)
