"""What of an image file is the coded picture itself, without headers and containers.

Counted in favor of the peers: tables that a decoder could not do without, such as JPEG's, are left out too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["avif_payload", "jpeg_payload", "png_payload", "webp_payload"]


def jpeg_payload(file: bytes) -> int:
    """Return the bytes of entropy-coded data in all scans: no marker segment, no table (ITU T.81, annex B).

    Restart markers and stuffed zeros stand inside the data and are counted.
    """
    position, total = 2, 0
    while file[position + 1] != 0xD9:
        marker = file[position + 1]
        (length,) = struct.unpack_from(">H", file, position + 2)
        position += 2 + length
        if marker == 0xDA:
            end = _scan_end(file, position)
            total += end - position
            position = end
    return total


def _scan_end(file: bytes, start: int) -> int:
    """Return where the next marker stands that is neither a stuffed zero nor a restart."""
    position = start
    while True:
        position = file.index(b"\xff", position)
        if file[position + 1] != 0 and not 0xD0 <= file[position + 1] <= 0xD7:
            return position
        position += 2


def png_payload(file: bytes) -> int:
    """Return the bytes inside IDAT chunks."""
    position, total = 8, 0
    while position < len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        total += length if kind == b"IDAT" else 0
        position += 12 + length
    return total


def webp_payload(file: bytes) -> int:
    """Return the bytes of the VP8 or VP8L bitstream behind its frame header (RFC 6386, 9.1; RFC 9649, 3)."""
    position = 12
    while position < len(file):
        kind, length = struct.unpack_from("<4sI", file, position)
        if kind in (b"VP8 ", b"VP8L"):
            return int(length) - (10 if kind == b"VP8 " else 5)
        position += 8 + length + length % 2
    raise ValueError("no VP8 or VP8L chunk in this file")


def avif_payload(file: bytes) -> int:
    """Return the bytes inside the mdat boxes (ISO/IEC 14496-12)."""
    return sum(length for kind, length in _boxes(file) if kind == b"mdat")


def _boxes(file: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield kind and content length of each outermost box."""
    position = 0
    while position < len(file):
        size, kind = struct.unpack_from(">I4s", file, position)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", file, position + 8)
            header = 16
        size = size or len(file) - position
        yield kind, size - header
        position += size
