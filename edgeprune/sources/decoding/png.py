"""PNG files whose pixels are sound, and something beside them is not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["without_extras"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"tRNS", b"eXIf")
_ORIENTATION_TEXT = b"Raw profile type exif\0"


def without_extras(stream: BinaryIO) -> bytes | None:
    """Return a PNG without the chunks that its pixels do not need, None where there are no such chunks.

    Pillow refuses an image for a wrong checksum of an ancillary chunk, and for text or an ICC profile of
    more than a megabyte, though the PNG specification (section 13.2) lets a decoder pass over them.
    Transparency and orientation are kept, where their checksums are right.
    """
    if stream.read(len(_SIGNATURE)) != _SIGNATURE:
        return None
    content = stream.read()
    kept = [chunk for chunk in _chunks(content) if _is_needed(chunk)]
    left = b"".join(kept)
    return None if len(left) == len(content) else _SIGNATURE + left


def _chunks(content: bytes) -> Iterator[bytes]:
    """Give the chunks whole, with length and checksum; what is cut off at the end as it is."""
    at = 0
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4].rjust(4, b"\0"))
        yield content[at : at + 12 + length]
        at += 12 + length


def _is_needed(chunk: bytes) -> bool:
    kind, data = chunk[4:8], chunk[8:-4]
    # A small first letter marks what is not needed to show the image.
    if len(chunk) < 12 or not kind[0] & 32:
        return True
    is_text = kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(_ORIENTATION_TEXT)
    return (kind in _NEEDED or is_text) and chunk[-4:] == struct.pack(">I", zlib.crc32(kind + data))
