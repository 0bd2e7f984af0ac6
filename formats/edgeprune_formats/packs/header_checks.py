"""What makes a header sound, by itself and for its codec; reader and writer ask the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from ..codecs import Codec, codec_names, get_codec
from ..errors import Problem, attribute_problem
from ..header import TRANSFORM, PackHeader
from ..limits import MAX_CHANNELS, MAX_CHUNK_BYTES, MAX_CLASSES, MAX_IMAGE_VALUES, MAX_SAMPLES, MAX_SIDE
from ..tiles import TILES

__all__ = ["header_problems"]


def header_problems(header: PackHeader) -> list[Problem]:
    """Return every defect of a header, without looking at the file's data; [] if it is sound.

    Where the codec is unknown, only what does not depend on it is looked at.
    """
    codec = get_codec(header.codec) if header.codec in codec_names() else None
    problems = [*_size_problems(header)]
    if codec is not None:
        problems += [*_codec_problems(header, codec)]
    elif header.tile not in TILES:
        problems.append(attribute_problem("block", f"{header.tile!r} is not one of: {', '.join(TILES)}"))
    return [*problems, *_text_problems(header)]


def _range(name: str, value: int, low: int, high: int) -> Iterator[Problem]:
    if not low <= value <= high:
        yield attribute_problem(name, f"{value} is not between {low} and {high}", "limit")


def _size_problems(header: PackHeader) -> Iterator[Problem]:
    yield from _range("samples", header.samples, 1, MAX_SAMPLES)
    yield from _range("channels", header.channels, 1, MAX_CHANNELS)
    for name in ("height", "width"):
        yield from _range(name, getattr(header, name), 1, MAX_SIDE)
    yield from _range("chunk_samples", header.chunk_samples, 1, max(1, header.samples))
    if header.bits not in (8, 16):
        yield attribute_problem("bits", f"{header.bits} is not 8 or 16")
    yield from _range("components", header.components, 1, header.height * header.width)


def _codec_problems(header: PackHeader, codec: Codec) -> Iterator[Problem]:
    yield from codec.header_problems(header)
    if header.tile not in codec.tiles or min(header.height, header.width) < 1:
        return
    pixels = max(header.height * header.width, math.prod(header.grid) * math.prod(header.tile_shape))
    if header.channels * pixels > MAX_IMAGE_VALUES:
        message = f"an image of {header.shape} exceeds {MAX_IMAGE_VALUES} values"
        yield attribute_problem("height", message, "limit")
    size = header.chunk_samples * codec.layout.image_bytes(header)
    if size > MAX_CHUNK_BYTES:
        yield attribute_problem("chunk_samples", f"a chunk of {size} B exceeds {MAX_CHUNK_BYTES} B", "limit")


def _text_problems(header: PackHeader) -> Iterator[Problem]:
    if header.transform != TRANSFORM:
        yield attribute_problem("transform", f"{header.transform!r} is not {TRANSFORM!r}")
    for name in ("mean", "std"):
        values = getattr(header, name)
        if len(values) != header.channels or not all(math.isfinite(value) for value in values):
            yield attribute_problem(name, f"{values} is not one finite number a channel")
    if not all(value > 0 for value in header.std):
        yield attribute_problem("std", f"{header.std} is not positive")
    # None where a pack has other targets in place of classes.
    if len(header.class_names) > MAX_CLASSES:
        yield Problem("limit", "/class_names", f"{len(header.class_names)} classes")
    twice = [name for name, count in Counter(header.class_names).items() if count > 1]
    if twice:
        yield Problem("layout", "/class_names", f"{twice[0]!r} names more than one class")
