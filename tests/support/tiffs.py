"""TIFF files of several bands, which Pillow does not write."""

import struct
import zlib

import numpy as np

SHORT, LONG = 3, 4


def tiff(
    pixels, *, order="<", deflate=False, predictor=False, apart=False, tile=None, photometric=1, extra=()
):
    """The bytes of a file of pixels, uint8 or uint16 [H, W, C]: in strips of three rows, or in tiles."""
    height, width, samples = pixels.shape
    pixels = pixels.astype(pixels.dtype.newbyteorder(order))
    parts = []
    for planes in np.split(pixels, samples, axis=2) if apart else [pixels]:
        for top in range(0, height, tile or 3):
            for left in range(0, width, tile or width):
                part = planes[top : top + (tile or 3), left : left + (tile or width)]
                if tile:
                    missing = [(0, tile - side) for side in part.shape[:2]]
                    part = np.pad(part, (*missing, (0, 0)))
                if predictor:
                    part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
                raw = part.astype(pixels.dtype).tobytes()
                parts.append(zlib.compress(raw) if deflate else raw)
    places = 8 + np.cumsum([0, *map(len, parts)])
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8 * pixels.itemsize] * samples),
        259: (SHORT, [8 if deflate else 1]),
        262: (SHORT, [photometric]),
        277: (SHORT, [samples]),
        284: (SHORT, [2 if apart else 1]),
        317: (SHORT, [2 if predictor else 1]),
        324 if tile else 273: (LONG, places[:-1].tolist()),
        325 if tile else 279: (LONG, [len(part) for part in parts]),
    }
    tags |= {322: (LONG, [tile]), 323: (LONG, [tile])} if tile else {278: (LONG, [3])}
    tags |= {338: (SHORT, list(extra))} if extra else {}
    return _file(order, parts, tags)


def _file(order, parts, tags):
    content = b"".join(parts)
    content += bytes(len(content) % 2)
    start = 8 + len(content)
    behind, directory, values = start + 2 + 12 * len(tags) + 4, struct.pack(f"{order}H", len(tags)), b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == SHORT else 'L'}", *numbers)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place, values = struct.pack(f"{order}L", behind + len(values)), values + packed
        directory += struct.pack(f"{order}HHL", tag, kind, len(numbers)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    return head + content + directory + bytes(4) + values
