"""Changing HDF5 metadata as a forger does: bytes first, and then the checksums that HDF5 keeps over them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edgeprune_formats import structure
from edgeprune_formats.hdf5_messages import NotPlainError

__all__ = ["blocks", "lookup3", "repair"]


def lookup3(data: bytes | bytearray) -> int:
    """Return the hash that HDF5 keeps after its metadata: `hashlittle` of Jenkins' lookup3, from 0."""
    mask = 0xFFFFFFFF

    def turned(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    x: int
    y: int
    z: int
    place = 0
    while len(data) - place > 12:
        x, y, z = struct.unpack_from("<III", data, place)
        a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
        a, c = (a - c) & mask ^ turned(c, 4), (c + b) & mask
        b, a = (b - a) & mask ^ turned(a, 6), (a + c) & mask
        c, b = (c - b) & mask ^ turned(b, 8), (b + a) & mask
        a, c = (a - c) & mask ^ turned(c, 16), (c + b) & mask
        b, a = (b - a) & mask ^ turned(a, 19), (a + c) & mask
        c, b = (c - b) & mask ^ turned(b, 4), (b + a) & mask
        place += 12
    rest = bytes(data[place:])
    if not rest:
        return c
    x, y, z = struct.unpack("<III", rest.ljust(12, b"\0"))
    a, b, c = (a + x) & mask, (b + y) & mask, (c + z) & mask
    for one, other, bits in (
        (2, 1, 14),
        (0, 2, 11),
        (1, 0, 25),
        (2, 1, 16),
        (0, 2, 4),
        (1, 0, 14),
        (2, 1, 24),
    ):
        state = [a, b, c]
        state[one] = (state[one] ^ state[other]) - turned(state[other], bits) & mask
        a, b, c = state
    return c


def blocks(path: Path) -> list[tuple[int, int]]:
    """Return where the checksummed blocks of a file's metadata lie: (start, stop), the checksum included.

    Of a file that is not plain these are the blocks up to where that shows.
    """
    found = []

    class Look(structure._Look):
        def _bytes(self, start: int, size: int) -> bytes:
            read = super()._bytes(start, size)
            found.append((start, start + size))
            return read

        def _peek(self, start: int, size: int) -> bytes:
            read = super()._peek(start, size)
            found.pop()
            return read

    with path.open("rb") as file, suppress(NotPlainError, *structure.CUT_SHORT):
        Look(file, path.stat().st_size).everything()
    return found


def repair(content: bytearray, places: Iterable[tuple[int, int]]) -> None:
    """Put the right checksum at the end of each of these blocks."""
    for start, stop in places:
        content[stop - 4 : stop] = struct.pack("<I", lookup3(content[start : stop - 4]))
