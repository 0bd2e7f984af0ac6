"""JSON from files that are not trusted: what every reader reads alike, and not nested without end."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import one_line
from .limits import MAX_NESTING

__all__ = ["check_json", "parse_json"]


def parse_json(raw: bytes) -> Any:
    """Return what JSON text in UTF-8 says.

    Raises
    ------
    ValueError
        It is not UTF-8, not JSON, holds an object with one name twice, text that is not Unicode, or what
        `check_json` refuses.
    """
    try:
        # As text: of bytes it would guess UTF-16 and UTF-32 as well, and pass over a byte order mark.
        value = json.loads(raw.decode(), parse_constant=_refuse, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(_NESTED) from None
    check_json(value)
    # What JSON can spell and text cannot hold: infinite numbers, halves of surrogate pairs.
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def check_json(value: Any) -> None:
    """Raise ValueError if something lies too deep, or a number is too large for double precision."""
    layer, depth = [value], 0
    while layer:
        if any(isinstance(item, int) and not math.isfinite(_float(item)) for item in layer):
            raise ValueError("a number is too large")
        if depth == MAX_NESTING and any(isinstance(item, Mapping | list | tuple) for item in layer):
            raise ValueError(_NESTED)
        layer, depth = [inner for item in layer for inner in _within(item)], depth + 1


_NESTED = f"nested deeper than {MAX_NESTING}"


def _within(item: Any) -> Iterable[Any]:
    if isinstance(item, Mapping):
        return item.values()
    return item if isinstance(item, list | tuple) else ()


def _float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(one_line(f"{twice!r} twice in one object"))
    return found
