"""JSON from files that are not trusted: no more than the standard allows, and not nested without end."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

__all__ = ["MAX_NESTING", "parse_json"]

MAX_NESTING = 64
"""Objects and arrays inside each other, at most."""


def parse_json(raw: bytes) -> Any:
    """Return what JSON text in UTF-8 says.

    Raises
    ------
    ValueError
        It is not JSON, holds a number that is not finite or an object with one name twice, text that is not
        Unicode, or is nested deeper than `MAX_NESTING`.
    """
    try:
        value = json.loads(raw, parse_constant=_refuse, object_pairs_hook=_object)
        # Numbers beyond a float's range, and halves of surrogate pairs.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_nesting(value)
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice!r} twice in one object")
    return found


def _check_nesting(value: Any) -> None:
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > MAX_NESTING:
            raise ValueError(f"nested deeper than {MAX_NESTING}")
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
