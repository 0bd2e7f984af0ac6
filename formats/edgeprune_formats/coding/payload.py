"""Coding the quantized coefficients of a chunk: distributions, and the payload's bytes.

formats/SPEC.md, section `quantized`, is the specification; names here are its names.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tiles import BANDS, Scan
from .contexts import CLASSES, SATURATION, class_of_level, fit_bases, levels_of, shifts_of
from .kernels import ESCAPE, ESCAPE_BITS, Kernels
from .rans import (
    MAX_LANES,
    SYMBOLS,
    SYMBOLS_PER_LANE,
    Decoder,
    StreamError,
    lookup_table,
    normalized,
)

__all__ = [
    "Model",
    "Payload",
    "decode_payload",
    "encode_payload",
    "parse_payload",
    "predict_dc",
    "restore_dc",
]

_SIZES = struct.Struct("<IIII")


@dataclass(frozen=True, eq=False)
class Model:
    """The distributions of a chunk.

    Attributes
    ----------
    bases : uint8 [C, F]
        For each plane and place in coding order the base of its class plus 64; 0: never coded, all zero.
    row_of : int16 [CLASSES + C * 16]
        The row of `frequencies` of each context: classes first, then bands by plane and by the band of the
        plane before; -1 where the chunk has no such context.
    frequencies : uint16 [rows, 16]
        Each row adds up to 4096.
    """

    bases: NDArray[np.uint8]
    row_of: NDArray[np.int16]
    frequencies: NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Payload:
    """The parts of a chunk's bytes: model, states, words and plain bits (uint8, low bit first)."""

    model: Model
    states: NDArray[np.uint32]
    words: NDArray[np.uint16]
    bits: NDArray[np.uint8]


def predict_dc(values: NDArray[np.int16], grid: tuple[int, int]) -> None:
    """Replace in place the coefficients of frequency 0 by differences between tiles; they wrap at 16 bits.

    Parameters
    ----------
    values : int16 [C, F, n * tiles]
        In coding order.
    grid : (int, int)
        Tiles down and across. A tile loses its left neighbor's, the first of a row that of the row above.
    """
    level = values[:, 0].reshape(len(values), -1, *grid)
    change = level.copy()
    change[..., 1:] -= level[..., :-1]
    change[..., 1:, 0] -= level[..., :-1, 0]
    values[:, 0] = change.reshape(len(values), -1)


def restore_dc(values: NDArray[np.int16], grid: tuple[int, int]) -> None:
    """Undo `predict_dc` in place on int16 [n, C, tiles, F]; sums wrap at 16 bits."""
    change = values[..., 0].reshape(*values.shape[:2], *grid).copy()
    change[..., 0] = np.cumsum(change[..., 0], axis=-1, dtype=np.int16)
    values[..., 0] = np.cumsum(change, axis=-1, dtype=np.int16).reshape(values.shape[:3])


def encode_payload(planes: Sequence[NDArray[np.integer[Any]]], scan: Scan, kernels: Kernels) -> bytes:
    """Return the bytes of a chunk.

    Parameters
    ----------
    planes : sequence of int [F, N]
        For each plane the values of all tiles of all images, in coding order, within int16, with `predict_dc`
        applied.
    scan : Scan
    kernels : Kernels
        What does the inner loops.
    """
    tiles = planes[0].shape[1]
    coder = kernels.coder(len(planes), tiles, scan)
    bases, before = [], np.zeros(tiles, np.uint8)
    for number, values in enumerate(planes):
        contexts = kernels.contexts(values, scan)
        bases.append(fit_bases(contexts.count, contexts.magnitude, contexts.around))
        coder.add_bands(CLASSES + number * BANDS, before, contexts.bands)
        coder.add_plane(values, contexts, bases[-1])
        before = contexts.bands.copy()
    counts = coder.counts(CLASSES + len(planes) * BANDS)
    used = counts.any(axis=1)
    row_of = np.where(used, np.cumsum(used) - 1, -1).astype(np.int16)
    model = Model(np.stack(bases), row_of, normalized(counts[used]))
    lanes = min(MAX_LANES, max(1, int(counts.sum()) // SYMBOLS_PER_LANE))
    return _assemble(Payload(model, *coder.coded(row_of, model.frequencies, lanes)))


def _assemble(payload: Payload) -> bytes:
    model = payload.model
    used = np.packbits(model.row_of >= 0, bitorder="little")
    head = model.bases.tobytes() + used.tobytes() + model.frequencies.astype("<u2").tobytes()
    packed = zlib.compress(head, 9)
    sizes = (len(packed), len(payload.states), len(payload.words), len(payload.bits))
    body = (payload.states.astype("<u4"), payload.words.astype("<u2"), payload.bits)
    return _SIZES.pack(*sizes) + packed + b"".join(part.tobytes() for part in body)


def parse_payload(raw: bytes | memoryview, planes: int, places: int) -> Payload:
    """Return the parts of a chunk's bytes, checked.

    Parameters
    ----------
    raw : bytes
    planes, places : int
        C and F.

    Raises
    ------
    StreamError
        Sizes that do not add up, or a model that is none.
    """
    view = memoryview(raw).cast("B")
    if len(view) < _SIZES.size:
        raise StreamError("too short for its sizes")
    packed, lanes, words, bits = _SIZES.unpack_from(view)
    ends = np.cumsum([_SIZES.size, packed, 4 * lanes, 2 * words, bits], dtype=np.int64)
    if int(ends[-1]) != len(view) or not 1 <= lanes <= MAX_LANES:
        raise StreamError("its sizes do not add up")
    parts = [view[start:stop] for start, stop in itertools.pairwise(ends)]
    return Payload(
        _parse_model(parts[0], planes, places),
        np.frombuffer(parts[1], "<u4"),
        np.frombuffer(parts[2], "<u2"),
        np.frombuffer(parts[3], np.uint8),
    )


def _parse_model(packed: memoryview, planes: int, places: int) -> Model:
    contexts = CLASSES + planes * BANDS
    fixed = planes * places + contexts // 8
    largest = fixed + contexts * SYMBOLS * 2
    try:
        head = zlib.decompressobj().decompress(packed, largest + 1)
    except zlib.error as error:
        raise StreamError(f"its model does not inflate ({error})") from None
    if len(head) < fixed:
        raise StreamError("its model is cut short")
    used = np.unpackbits(np.frombuffer(head, np.uint8, contexts // 8, planes * places), bitorder="little")
    if len(head) != fixed + int(used.sum()) * SYMBOLS * 2:
        raise StreamError("its model is not of its size")
    frequencies = np.frombuffer(head, "<u2", offset=fixed).reshape(-1, SYMBOLS)
    if (frequencies.sum(axis=1, dtype=np.int64) != 4096).any():
        raise StreamError("its frequencies do not add up")
    return Model(
        np.frombuffer(head, np.uint8, planes * places).reshape(planes, places),
        np.where(used, np.cumsum(used) - 1, -1).astype(np.int16),
        frequencies.astype(np.uint16),
    )


class _Plain:
    """Plain bits, taken in order."""

    def __init__(self, packed: NDArray[np.uint8]) -> None:
        self._bits = np.unpackbits(packed, bitorder="little")
        self._size, self._next = 8 * len(packed), 0

    def take(self, lengths: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        ends = self._next + np.cumsum(lengths)
        starts = ends - lengths
        if int(ends[-1]) > self._size:
            raise StreamError("its plain bits end too soon")
        self._next = int(ends[-1])
        found = np.zeros(len(lengths), np.int32)
        for place in range(int(lengths.max())):
            there = lengths > place
            found[there] |= self._bits[starts[there] + place].astype(np.int32) << place
        return found

    def finish(self) -> None:
        if self._size - self._next >= 8 or self._bits[self._next :].any():
            raise StreamError("its plain bits do not end where they should")


def decode_payload(
    payload: Payload, scan: Scan, tiles: int
) -> tuple[list[NDArray[np.int16]], list[NDArray[np.uint8]]]:
    """Return for each plane the values int16 [F, N] in coding order, and the bands uint8 [N].

    `predict_dc` is still applied. This is the reference; `edgeprune_formats.coding.native` has the same in C.

    Parameters
    ----------
    payload : Payload
    scan : Scan
    tiles : int
        N, the tiles of all images.

    Raises
    ------
    StreamError
        Coded bytes that no encoder wrote.
    """
    model = payload.model
    symbols = Decoder(lookup_table(model.frequencies), payload.states, payload.words)
    plain = _Plain(payload.bits)
    bands = np.zeros(tiles, np.uint8)
    planes, all_bands = [], []
    for number, bases in enumerate(model.bases):
        bands = symbols.run(_rows(model, CLASSES + number * BANDS + bands.astype(np.int64)))
        planes.append(_decode_plane(model, bases, symbols, plain, scan, bands))
        all_bands.append(bands)
    symbols.finish()
    plain.finish()
    return planes, all_bands


def _rows(model: Model, contexts: NDArray[np.integer[Any]]) -> NDArray[np.int16]:
    rows = model.row_of.take(contexts)
    if (rows < 0).any():
        raise StreamError("a context without a distribution")
    return rows


def _decode_plane(
    model: Model,
    bases: NDArray[np.uint8],
    symbols: Decoder,
    plain: _Plain,
    scan: Scan,
    bands: NDArray[np.uint8],
) -> NDArray[np.int16]:
    places, tiles = len(scan.raster), len(bands)
    values = np.zeros((places, tiles), np.int16)
    magnitudes = np.zeros((places + 1, tiles), np.uint8)
    for diagonal in range(scan.diagonals):
        inside = np.flatnonzero(bands >= scan.band_of_diagonal[diagonal])
        if not len(inside):
            break
        start, stop = scan.starts[diagonal : diagonal + 2]
        some = start + np.flatnonzero(bases[start:stop])
        if not len(some):
            continue
        sums = np.zeros((len(some), len(inside)), np.int16)
        for weight, near in zip(scan.weights.tolist(), scan.neighbors[some].T, strict=True):
            sums += magnitudes[near[:, None], inside] * np.int16(weight)
        classes = class_of_level(bases[some, None], levels_of(sums)).reshape(-1)
        found = symbols.run(_rows(model, classes))
        coded = _join(found, shifts_of(classes), plain).reshape(sums.shape)
        values[some[:, None], inside] = coded
        magnitudes[some[:, None], inside] = np.minimum(np.abs(coded.astype(np.int32)), SATURATION)
    return values


def _join(symbols: NDArray[np.uint8], shifts: NDArray[np.integer[Any]], plain: _Plain) -> NDArray[np.int16]:
    lengths = np.where(symbols == ESCAPE, ESCAPE_BITS, shifts).astype(np.int64)
    values = (symbols.astype(np.int32) - 7) << shifts
    taking = np.flatnonzero(lengths)
    if len(taking):
        bits = plain.take(lengths[taking])
        values[taking] = np.where(symbols[taking] == ESCAPE, bits, values[taking] + bits)
    return values.astype(np.int16)
