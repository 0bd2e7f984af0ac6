"""Changing bytes at random: the changes that break readers, and those of JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["changed_bytes", "changed_json", "changed_value"]

EDGES: tuple[int, ...] = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1),
    *(2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1),
)
TEXTS = ("", "0", "-1", "nan", "\0", "\n", "\ud800", "a" * 5000, "..", "/", "\x1b[2J", "١٢", "1" * 400, "é|")
VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 2**31, 2**53, 2**63, 10**400)
VALUES += (*TEXTS, [], {}, [[]], [None], {"": 0})
HOW_MANY = (1, 1, 1, 2, 3, 4)


def changed_bytes(data: bytes, source: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes after one to four changes.

    Parameters
    ----------
    data : bytes
    source : random.Random
    others : sequence of bytes
        What pieces are taken of, beside the data itself.
    """
    content = bytearray(data)
    for _ in range(source.choice(HOW_MANY)):
        source.choice(CHANGES)(content, source, others or (data,))
    return bytes(content)


def _flip(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    if content:
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)


def _edge(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    width = source.choice((1, 1, 2, 4, 8))
    if len(content) >= width:
        at = source.randrange(len(content) - width + 1)
        order: Any = source.choice(("little", "little", "big"))
        content[at : at + width] = (source.choice(EDGES) % 256**width).to_bytes(width, order)


def _add(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    """Add a small number to a little-endian integer."""
    width = source.choice((1, 2, 4, 8))
    if len(content) >= width:
        at = source.randrange(len(content) - width + 1)
        value = int.from_bytes(content[at : at + width], "little") + source.randint(-16, 16)
        content[at : at + width] = (value % 256**width).to_bytes(width, "little")


def _smear(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    at, size = source.randrange(len(content) + 1), source.choice((2, 4, 8, 32))
    fill = source.choice((b"\0", b"\xff", None))
    size = min(size, len(content) - at)
    content[at : at + size] = fill * size if fill else source.randbytes(size)


def _splice(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    """Put a piece of this or another input over some bytes."""
    other = source.choice(others)
    size = source.randint(1, 64)
    start, at = source.randrange(len(other) + 1), source.randrange(len(content) + 1)
    piece = other[start : start + size]
    content[at : at + len(piece)] = piece


def _insert(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    at, start = source.randrange(len(content) + 1), source.randrange(len(content) + 1)
    content[at:at] = content[start : start + source.randint(1, 32)] or source.randbytes(4)


def _remove(content: bytearray, source: random.Random, others: Sequence[bytes]) -> None:
    at = source.randrange(len(content) + 1)
    del content[at : at + source.choice((1, 1, 2, 4, 32, len(content)))]


CHANGES: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _edge, _edge, _edge, _add, _add),
    *(_smear, _splice, _insert, _remove),
)


def changed_json(data: bytes, source: random.Random) -> bytes:
    """Return JSON text after one to four changes of its values, or, now and then, of its bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return changed_bytes(data, source)
    if source.random() < 0.1:
        return changed_bytes(data, source)
    for _ in range(source.choice(HOW_MANY)):
        value = changed_value(value, source)
    return json.dumps(value).encode()


def changed_value(value: Any, source: random.Random) -> Any:
    """Return a value of JSON with one change somewhere inside."""
    if isinstance(value, dict) and value and source.random() < 0.9:
        return _changed_object(value, source)
    if isinstance(value, list) and value and source.random() < 0.9:
        made = list(value)
        at = source.randrange(len(made))
        made[at : at + 1] = source.choice(([], [made[at]] * 2, [changed_value(made[at], source)]))
        return made
    if isinstance(value, int) and source.random() < 0.1:
        return value % 2**53 + 0.0
    if isinstance(value, int | float) and source.random() < 0.4:
        return source.choice((-value, value + 1, value - 1, value * 2, str(value), [value]))
    if source.random() < 0.03:
        # Nested too deep, or just not.
        return json.loads("[" * (depth := source.choice((60, 64, 900))) + "]" * depth)
    return source.choice((*VALUES, source.choice(EDGES), -source.choice(EDGES)))


def _changed_object(value: dict[str, Any], source: random.Random) -> dict[str, Any]:
    made, name = dict(value), source.choice(list(value))
    what = source.random()
    if what < 0.1:
        del made[name]
    elif what < 0.2:
        made[source.choice((*TEXTS, name + "s"))] = made[name]
    elif what < 0.3:
        made[name] = made[source.choice(list(value))]
    else:
        made[name] = changed_value(made[name], source)
    return made
