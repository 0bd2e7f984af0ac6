"""Looking at an HDF5 file before HDF5 does: is it plain enough that the library can open it safely?

Crashes and endless loops in libhdf5 come from forged metadata whose checksums were repaired, most of them
from fractal heaps and B-trees. A plain file has none: few objects, whose headers hold everything, in the
small part of HDF5 that formats/SPEC.md allows. All of it is read from bytes, single messages of headers by
`hdf5_messages`; layouts are those of the HDF5 File Format Specification, version 3.0. Its checksums are left
to HDF5.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Protocol

import numpy as np

from .hdf5_messages import (
    UNDEFINED,
    Kind,
    Messages,
    NotPlainError,
    address_of,
    check_filters,
    element_bytes,
    link,
    name_of,
    need,
    shape_of,
)

__all__ = ["mostly_holes", "why_not_plain", "why_stored_otherwise"]

MAX_OBJECTS, MAX_BLOCKS, MAX_DEPTH = 64, 256, 2
# Holes that a file may have: a copy can leave out blocks of zeros.
MAX_HOLES, MAX_HOLE_BYTES, HOLE_SHARE = 2**16, 2**26, 16
NO_HEAP = b"\0\0" + 2 * UNDEFINED
ANYWHERE = {Kind.NIL, Kind.ATTRIBUTE, Kind.CONTINUED, Kind.ATTRIBUTES}
GROUPS = ANYWHERE | {Kind.LINKS, Kind.LINK, Kind.GROUP}
DATASETS = ANYWHERE | {Kind.SPACE, Kind.TYPE, Kind.FILL, Kind.LAYOUT, Kind.FILTERS}

CUT_SHORT = (struct.error, IndexError, OverflowError)
"""What reading a structure that is cut short raises."""


class Seekable(Protocol):
    """What is looked at: a binary file that is open for reading."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""
        ...

    def read(self, size: int = -1, /) -> bytes | None:
        """Return so many bytes, or fewer at the end."""
        ...


def why_not_plain(path: Path) -> str | None:
    """Return why HDF5 should not open a file in this process, or None if it is plain.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open("rb") as file:
        return why_stored_otherwise(file, os.fstat(file.fileno()).st_size)


def why_stored_otherwise(file: Seekable, size: int) -> str | None:
    """Return why an open file of so many bytes is not plain, or None; as `why_not_plain`."""
    try:
        _Look(file, size).everything()
    except NotPlainError as reason:
        return str(reason)
    except CUT_SHORT:
        return "a structure of it is cut short"
    return None


def mostly_holes(path: Path) -> bool:
    """Return whether more of a file was left unwritten than blocks of zeros explain: it expands when read.

    Raises
    ------
    OSError
        It cannot be read.
    """
    status = path.stat()
    allowed = MAX_HOLE_BYTES + status.st_size // HOLE_SHARE
    # Blocks of 512 bytes, by POSIX. File systems that compress have fewer of them, without holes.
    if status.st_size - 512 * status.st_blocks <= allowed or not hasattr(os, "SEEK_HOLE"):
        return False
    place = holes = 0
    with path.open("rb", buffering=0) as file:
        for _ in range(MAX_HOLES):
            start = os.lseek(file.fileno(), place, os.SEEK_HOLE)
            try:
                place = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:
                # No data after this hole, or the end of the file.
                return holes + status.st_size - start > allowed
            holes += place - start
    return True


class _Look:
    """One file that is looked at.

    Parameters
    ----------
    file : binary file
        Open for reading.
    size : int
        Bytes in it.
    """

    def __init__(self, file: Seekable, size: int) -> None:
        self._file = file
        self._end = size
        # Where metadata and data begin and stop; nothing may lie within anything else.
        self._places: list[tuple[int, int]] = []
        self._chunk_places: list[np.ndarray[tuple[int, int], np.dtype[np.int64]]] = []
        self._objects = 0

    def everything(self) -> None:
        """Look at the superblock, all objects and where they keep their data."""
        head = self._bytes(0, 48)
        need(head[:8] == b"\x89HDF\r\n\x1a\n" and head[8] in (2, 3), "its superblock is of an old kind")
        # The flag says that somebody has it open for writing, such as this process.
        known = head[9:11] == b"\x08\x08" and head[11] in (0, 1)
        need(known, "its superblock has other sizes, or flags")
        need(head[12:28] == bytes(8) + UNDEFINED, "its superblock has a base or an extension")
        end, root = struct.unpack("<QQ", head[28:44])
        need(end <= self._end, "it is cut short")
        self._end = end
        self._object(root, 0)
        places = np.concatenate([np.array(self._places, np.int64), *self._chunk_places])
        places = places[np.argsort(places[:, 0], kind="stable")]
        need(bool((places[1:, 0] >= places[:-1, 1]).all()), "parts of it overlap")

    def _bytes(self, start: int, size: int) -> bytes:
        found = self._peek(start, size)
        self._claim(start, size)
        return found

    def _peek(self, start: int, size: int) -> bytes:
        """Return bytes that are to be claimed as part of a larger piece."""
        need(start >= 0 and size >= 0 and start + size <= self._end, "a part lies outside the file")
        self._file.seek(start)
        found = self._file.read(size) or b""
        need(len(found) == size, "it is cut short")
        return found

    def _claim(self, start: int, size: int) -> None:
        inside = (start > 0 or size == 48) and start + size <= self._end
        need(inside, "a part lies outside the file")
        self._places.append((start, start + size))

    def _object(self, address: int, depth: int) -> None:
        self._objects += 1
        need(self._objects <= MAX_OBJECTS, "it has too many objects")
        found = self._messages(address)
        kinds = found.kinds()
        for body in found.all(Kind.ATTRIBUTES):
            need(body == NO_HEAP, "it keeps attributes in a heap")
        names = [name_of(body) for body in found.all(Kind.ATTRIBUTE)]
        need(len(set(names)) == len(names), "two attributes have one name")
        if Kind.LINKS in kinds:
            need(kinds <= GROUPS, "a group has parts of another kind")
            self._group(found, depth)
        else:
            need(kinds <= DATASETS, "an object has parts that a pack does not have")
            self._dataset(found)

    def _messages(self, address: int) -> Messages:
        head = self._peek(address, 6)
        flags = head[5]
        need(head[:5] == b"OHDR\x02" and not flags & 0xCC, "an object's header is of another kind")
        width = 1 << (flags & 3)
        before = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        size = int.from_bytes(self._peek(address + before, width), "little")
        body = self._bytes(address, before + width + size + 4)
        if flags & 0x10:
            most, least = struct.unpack_from("<HH", body, before - 4)
            need(least <= most, "an object's header contradicts itself")
        found, blocks = Messages(), [body[before + width : -4]]
        for number, block in enumerate(blocks):
            need(number < MAX_BLOCKS, "an object's header has too many parts")
            for start, length in found.add(block):
                part = self._bytes(start, length)
                need(length >= 8 and part[:4] == b"OCHK", "an object's header goes on nowhere")
                blocks.append(part[4:-4])
        return found

    def _group(self, found: Messages, depth: int) -> None:
        need(found.one(Kind.LINKS) == NO_HEAP, "it keeps links in a heap")
        need(found.one(Kind.GROUP) == b"\0\0", "a group has other settings")
        need(depth < MAX_DEPTH, "groups lie within groups too deep")
        links = [link(body) for body in found.all(Kind.LINK)]
        need(len({name for name, _ in links}) == len(links), "two objects have one name")
        for _, address in links:
            self._object(address, depth + 1)

    def _dataset(self, found: Messages) -> None:
        shape, width = shape_of(found.one(Kind.SPACE)), element_bytes(found.one(Kind.TYPE))
        fill = found.one(Kind.FILL)
        need(len(fill) == 2 and fill[0] == 3 and not fill[1] & 0x20, "a dataset has a fill value")
        filters = found.all(Kind.FILTERS)
        if filters:
            check_filters(found.one(Kind.FILTERS), width)
        layout = found.one(Kind.LAYOUT)
        version, kind = layout[0], layout[1]
        if kind == 2 and version == 4:
            self._chunks(layout, shape, width, bool(filters))
            return
        need(version in (3, 4) and kind in (0, 1) and not filters, "a dataset is stored in another way")
        size = math.prod(shape) * width
        if kind == 0:
            need(len(layout) == 4 + size and int.from_bytes(layout[2:4], "little") == size, "sizes disagree")
            return
        address, stored = struct.unpack("<8sQ", layout[2:])
        need(stored == size, "sizes disagree")
        if size:
            need(address != UNDEFINED, "a dataset has no data")
            start = int.from_bytes(address, "little")
            need(start + size <= self._end, "a dataset lies outside the file")
            self._claim(start, size)

    def _chunks(self, layout: bytes, shape: tuple[int, ...], width: int, filtered: bool) -> None:
        flags, rank, each = layout[2:5]
        need(flags in (0, 2) and rank == len(shape) + 1 and 1 <= each <= 8, "chunks of another kind")
        sides = [int.from_bytes(layout[5 + each * i : 5 + each * (i + 1)], "little") for i in range(rank)]
        need(sides[-1] == width and min(sides) > 0 and min(shape, default=0) > 0, "chunks of another size")
        size = math.prod(sides)
        count = math.prod(-(-whole // side) for whole, side in zip(shape, sides, strict=False))
        need(size < 2**32 and count * 8 <= self._end, "it declares more chunks than it can hold")
        kind, rest = layout[5 + each * rank], layout[6 + each * rank :]
        need((flags == 2) == (kind == 1 and filtered), "chunks of another kind")
        if kind == 1:
            need(count == 1, "it counts its chunks wrongly")
            size, mask = struct.unpack("<QI", rest[:-8]) if filtered else (size, 0)
            need(mask == 0, "a chunk skips its filters")
            start = address_of(rest[-8:])
            need(start + size <= self._end, "a chunk lies outside the file")
            self._claim(start, size)
        elif kind == 2:
            need(not filtered and len(rest) == 8, "chunks of another kind")
            start = address_of(rest)
            need(start + count * size <= self._end, "a chunk lies outside the file")
            self._claim(start, count * size)
        else:
            need(kind == 3 and len(rest) == 9, "it finds its chunks by a tree")
            self._fixed_array(address_of(rest[1:]), rest[0], count, size, filtered)

    def _fixed_array(self, address: int, page_bits: int, count: int, size: int, filtered: bool) -> None:
        head = self._bytes(address, 28)
        digits = min(8, 1 + (size.bit_length() + 7) // 8) if filtered else 0
        entry = 8 + digits + (4 if filtered else 0)
        need(head[:7] == b"FAHD\0" + bytes([filtered, entry]), "its array of chunks is of another kind")
        need(head[7] == page_bits and 1 <= page_bits <= 32, "its array of chunks contradicts itself")
        need(int.from_bytes(head[8:16], "little") == count, "it counts its chunks wrongly")
        entries = self._entries(address_of(head[16:24]), head[5], address, count, entry, 1 << page_bits)
        starts = entries[:, :8].copy().view("<u8")[:, 0]
        sizes = np.full(count, size, np.uint64)
        if filtered:
            wide = np.zeros((count, 8), np.uint8)
            wide[:, :digits] = entries[:, 8:-4]
            sizes = wide.view("<u8")[:, 0]
            need(not entries[:, -4:].any(), "a chunk skips its filters")
        need(bool((starts < self._end).all() and (sizes <= self._end).all()), "a chunk lies outside the file")
        places = np.stack([starts, starts + sizes], axis=1).astype(np.int64)
        inside = (places[:, 0] > 0) & (places[:, 1] <= self._end)
        need(bool(inside.all()), "a part lies outside the file")
        self._chunk_places.append(places)

    def _entries(
        self, address: int, client: int, head: int, count: int, entry: int, page: int
    ) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        """Return the entries of a fixed array, uint8 [count, entry]."""
        pages = -(-count // page) if count > page else 0
        bitmap = -(-pages // 8)
        size = 18 + bitmap + count * entry + 4 * pages
        block = self._bytes(address, size)
        need(block[:14] == b"FADB\0" + bytes([client]) + head.to_bytes(8, "little"), "an array has no data")
        if not pages:
            return np.frombuffer(block, np.uint8, count * entry, 14).reshape(count, entry)
        there = np.unpackbits(np.frombuffer(block, np.uint8, bitmap, 14))
        need(bool(there[:pages].all()), "chunks are missing")
        body = block[18 + bitmap :]
        step = page * entry + 4
        parts = [body[start : start + step][:-4] for start in range(0, len(body), step)]
        return np.frombuffer(b"".join(parts), np.uint8).reshape(count, entry)
