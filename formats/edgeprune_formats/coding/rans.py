"""Range coding by asymmetric numeral systems (rANS, Duda 2013), many states side by side.

Symbols are coded in runs. The symbols of a run are dealt to the states in turn, a round of `lanes` of them
at a time, so that a decoder can take a whole round at once. A state is 32 bits and gives or takes 16 bits
at a time; all states share one sequence of 16-bit words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEW_STATES",
    "LOW",
    "MAX_LANES",
    "PRECISION",
    "SYMBOLS",
    "SYMBOLS_PER_LANE",
    "Decoder",
    "StreamError",
    "encode",
    "lookup_table",
    "normalized",
]

PRECISION = 12
"""Frequencies of a distribution add up to ``2**PRECISION``."""
SYMBOLS = 16
LOW = 1 << 16
MAX_LANES = 512
SYMBOLS_PER_LANE = 4096
"""At least, where there are several; fewer lanes than `MAX_LANES` take at most twice as many each."""
FEW_STATES = "it has too few states for its symbols"
_TOTAL = 1 << PRECISION


class StreamError(ValueError):
    """Coded bytes that no encoder wrote."""


def normalized(counts: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
    """Return frequencies uint16 [rows, 16] that add up to 4096 in each row; what occurs gets at least 1.

    Parameters
    ----------
    counts : int [rows, 16]
        How often each symbol occurs; at least one of a row does.
    """
    wide = counts.astype(np.float64)
    ideal = wide * (_TOTAL / wide.sum(axis=1, keepdims=True))
    frequencies = np.where(counts > 0, np.maximum(1, np.floor(ideal)), 0).astype(np.int64)
    for row, target in zip(frequencies, ideal, strict=True):
        excess = int(row.sum()) - _TOTAL
        while excess:
            step = 1 if excess > 0 else -1
            # Where a change by one costs least, relative to the frequency that is ideal.
            cost = np.where(row > (1 if step > 0 else 0), (target + 0.5) / np.maximum(row, 1), 0.0)
            at = int(np.argmin(np.where(cost > 0, cost, np.inf))) if step > 0 else int(np.argmax(cost))
            change = min(abs(excess), int(row[at]) - 1 if step > 0 else abs(excess), 1 + abs(excess) // 4)
            row[at] -= step * change
            excess -= step * change
    return frequencies.astype(np.uint16)


def lookup_table(frequencies: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """Return what a decoder looks up by row and slot: symbol << 24 | (frequency - 1) << 12 | slot - start.

    Parameters
    ----------
    frequencies : uint16 [rows, 16]
        Each row adds up to 4096.

    Returns
    -------
    uint32 [rows, 4096]
    """
    table = np.empty((len(frequencies), _TOTAL), np.uint32)
    for row, entry in zip(frequencies.astype(np.int64), table, strict=True):
        symbol = np.repeat(np.arange(SYMBOLS), row)
        start = np.concatenate([[0], np.cumsum(row)[:-1]])
        entry[:] = symbol << 24 | (row[symbol] - 1) << 12 | (np.arange(_TOTAL) - start[symbol])
    return table


def encode(
    runs: Sequence[tuple[NDArray[Any], NDArray[Any]]], frequencies: NDArray[np.uint16], lanes: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Return the states and the words from which `Decoder` recovers the symbols of all runs.

    Parameters
    ----------
    runs : sequence of (int [n], int [n])
        For each run the rows of `frequencies` and the symbols.
    frequencies : uint16 [rows, 16]
        Each row adds up to 4096; that of a symbol that is coded is not 0.
    lanes : int
        States side by side.
    """
    wide = frequencies.astype(np.uint64)
    starts = np.cumsum(wide, axis=1) - wide
    states = np.full(lanes, LOW, np.uint64)
    words: list[NDArray[np.uint16]] = []
    for rows, symbols in reversed(runs):
        every, start = wide[rows, symbols], starts[rows, symbols]
        for first in range((len(rows) - 1) // lanes * lanes, -1, -lanes):
            frequency = every[first : first + lanes]
            state = states[: len(frequency)]
            full = state >= frequency << np.uint64(32 - PRECISION)
            words.append(state[full].astype(np.uint16))
            state[full] >>= np.uint64(16)
            whole, rest = np.divmod(state, frequency)
            state[:] = (whole << np.uint64(PRECISION)) + rest + start[first : first + lanes]
    ordered = np.concatenate(words[::-1]) if words else np.empty(0, np.uint16)
    return states.astype(np.uint32), ordered


class Decoder:
    """Takes symbols from states and words, run after run, as they were encoded.

    Parameters
    ----------
    table : uint32 [rows, 4096]
        See `lookup_table`.
    states : uint32 [lanes]
    words : uint16 [words]
    """

    def __init__(
        self, table: NDArray[np.uint32], states: NDArray[np.uint32], words: NDArray[np.uint16]
    ) -> None:
        self._table, self._words = table.reshape(-1), words
        self._states = states.astype(np.uint32)
        self._next = 0
        # A round costs the same however few symbols it takes.
        lanes = len(states)
        self._left = 2 * SYMBOLS_PER_LANE * lanes if lanes < MAX_LANES else None

    def run(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Return the symbols uint8 [n] of the next run.

        Parameters
        ----------
        rows : int [n]
            The row of the table for each symbol.

        Raises
        ------
        StreamError
            The words end too soon, or there are too few states.
        """
        if self._left is not None:
            self._left -= len(rows)
            if self._left < 0:
                raise StreamError(FEW_STATES)
        symbols = np.empty(len(rows), np.uint8)
        bases = rows.astype(np.uint32) << np.uint32(PRECISION)
        lanes = len(self._states)
        for first in range(0, len(rows), lanes):
            base = bases[first : first + lanes]
            state = self._states[: len(base)]
            found = self._table.take(base + (state & np.uint32(_TOTAL - 1)))
            symbols[first : first + lanes] = found >> np.uint32(24)
            frequency = ((found >> np.uint32(12)) & np.uint32(0xFFF)) + np.uint32(1)
            state >>= np.uint32(PRECISION)
            state *= frequency
            state += found & np.uint32(0xFFF)
            low = np.flatnonzero(state < LOW)
            if len(low):
                words = self._words[self._next : self._next + len(low)]
                if len(words) < len(low):
                    raise StreamError("its coded words end too soon")
                state[low] = state[low] << np.uint32(16) | words
                self._next += len(low)
        return symbols

    def finish(self) -> None:
        """Raise `StreamError` unless everything was used and the states are as encoding began."""
        if self._next != len(self._words) or (self._states != LOW).any():
            raise StreamError("its coded words do not end where they should")
