"""Reading single messages of the headers of HDF5 objects, of the kinds that a plain file holds.

Layouts are those of the HDF5 File Format Specification, version 3.0. Anything else is refused.
"""

from __future__ import annotations

import itertools
import math
import struct
from enum import IntEnum

from .limits import MAX_PROVENANCE_BYTES, MAX_TEXT_BYTES

__all__ = [
    "UNDEFINED",
    "Kind",
    "Messages",
    "NotPlainError",
    "address_of",
    "check_filters",
    "element_bytes",
    "link",
    "name_of",
    "need",
    "shape_of",
]

MAX_MESSAGES = 512
UNDEFINED = b"\xff" * 8
# Half, single and double precision of IEEE 754, after the byte that holds the order of bytes.
FLOATS = {
    bytes.fromhex(text)
    for text in (
        "0f0002000000000010000a05000a0f000000",
        "1f000400000000002000170800177f000000",
        "3f000800000000004000340b0034ff030000",
    )
}


class NotPlainError(Exception):
    """A reason why a file is not plain."""


def need(condition: bool, reason: str) -> None:
    """Raise `NotPlainError` for this reason unless the condition holds."""
    if not condition:
        raise NotPlainError(reason)


class Kind(IntEnum):
    """The types of messages that are known here."""

    NIL = 0
    SPACE = 1
    LINKS = 2
    TYPE = 3
    FILL = 5
    LINK = 6
    LAYOUT = 8
    GROUP = 10
    FILTERS = 11
    ATTRIBUTE = 12
    CONTINUED = 16
    ATTRIBUTES = 21


REPEATED = (Kind.NIL, Kind.LINK, Kind.ATTRIBUTE, Kind.CONTINUED)


class Messages:
    """What the header of one object holds: the bodies of its messages, by type."""

    def __init__(self) -> None:
        self._bodies: dict[int, list[bytes]] = {}

    def kinds(self) -> set[int]:
        """Return the types that are there."""
        return set(self._bodies)

    def all(self, kind: int) -> list[bytes]:
        """Return the messages of a type."""
        return self._bodies.get(kind, [])

    def one(self, kind: int) -> bytes:
        """Return the only message of a type."""
        found = self.all(kind)
        need(len(found) == 1, "an object lacks a part")
        return found[0]

    def add(self, block: bytes) -> list[tuple[int, int]]:
        """Take the messages of a part of a header; return where it goes on, and how long."""
        on, place = [], 0
        while len(block) - place >= 4:
            kind, size, flags = struct.unpack_from("<BHB", block, place)
            body = block[place + 4 : place + 4 + size]
            place += 4 + size
            need(len(body) == size, "a message is cut short")
            need(not flags & ~5, "a message is shared")
            some = self._bodies.setdefault(kind, [])
            some.append(body)
            need(kind in REPEATED or len(some) == 1, "a message is there twice")
            need(len(some) <= MAX_MESSAGES, "an object's header has too many messages")
            if kind == Kind.CONTINUED:
                on.append(struct.unpack("<QQ", body))
        return on


def address_of(raw: bytes) -> int:
    """Return an address that must be there."""
    need(len(raw) == 8 and raw != UNDEFINED, "chunks are missing")
    return int.from_bytes(raw, "little")


def link(body: bytes) -> tuple[bytes, int]:
    """Return name and address of a hard link."""
    version, flags = body[0], body[1]
    need(version == 1 and not flags & ~0x13, "it has soft or external links, or links in order")
    place = 2
    if flags & 0x10:
        need(body[2] in (0, 1), "a name is in an unknown encoding")
        place = 3
    width = 1 << (flags & 3)
    length = int.from_bytes(body[place : place + width], "little")
    name, address = body[place + width : -8], body[-8:]
    need(len(name) == length and 0 < length <= MAX_TEXT_BYTES, "a name of another length")
    need(b"/" not in name and b"\0" not in name and name != b".", "a name that is none")
    return name, address_of(address)


def name_of(body: bytes) -> bytes:
    """Return the name of an attribute whose value is a number, an array of numbers, or text."""
    version, flags, name_size, type_size, space_size, encoding = struct.unpack_from("<BBHHHB", body)
    need(version == 3 and flags == 0 and encoding in (0, 1), "an attribute of another kind")
    ends = list(itertools.accumulate((9, name_size, type_size, space_size)))
    name, kind, space = (body[start:stop] for start, stop in itertools.pairwise(ends))
    need(0 < len(name) <= MAX_TEXT_BYTES and name.find(b"\0") == len(name) - 1, "a name that is none")
    size = math.prod(shape_of(space)) * element_bytes(kind)
    need(len(body) == ends[-1] + size, "an attribute's sizes disagree")
    return name


def shape_of(body: bytes) -> tuple[int, ...]:
    """Return the shape that a message declares, () for a scalar."""
    version, rank, flags, kind = struct.unpack_from("<BBBB", body)
    need(version == 2 and flags in (0, 1) and kind in (0, 1) and rank <= 32, "a shape of another kind")
    need((kind == 1) == (rank > 0) and len(body) == 4 + 8 * rank * (1 + flags), "a shape of another kind")
    sides = struct.unpack(f"<{rank * (1 + flags)}Q", body[4:])
    shape = sides[:rank]
    need(flags == 0 or sides[rank:] == shape, "a dataset that may grow")
    need(all(side < 2**63 for side in shape), "a shape beyond all bounds")
    return shape


def element_bytes(body: bytes) -> int:
    """Return the bytes of an element of integers, IEEE floating point or text of fixed length."""
    kind, order = body[0] & 15, body[1]
    size = int.from_bytes(body[4:8], "little")
    known = False
    if kind == 0:
        known = not order & ~9 and not any(body[2:4]) and size in (1, 2, 4, 8)
        known = known and body[8:] == struct.pack("<HH", 0, 8 * size)
    elif kind == 1:
        known = order & ~1 == 0x20 and body[2:] in FLOATS
    elif kind == 3:
        known = order & 15 <= 2 and order >> 4 <= 1 and not any(body[2:4]) and len(body) == 8
        known = known and 1 <= size <= MAX_PROVENANCE_BYTES
    need(known and 1 <= body[0] >> 4 <= 3, "a type that a pack does not have")
    return size


def check_filters(body: bytes, width: int) -> None:
    """Refuse all filters but shuffle and deflate, together and in this order."""
    need(len(body) == 22, "filters that a pack does not have")
    level = int.from_bytes(body[18:22], "little")
    shuffle = struct.pack("<HHHI", 2, body[4], 1, width)
    deflate = struct.pack("<HHHI", 1, body[14], 1, level)
    need(body == b"\x02\x02" + shuffle + deflate and level <= 9, "filters that a pack does not have")
