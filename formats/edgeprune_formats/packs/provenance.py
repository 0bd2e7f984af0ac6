"""What a provenance may be: a JSON object that every reader reads alike, within bounds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..limits import MAX_NESTING

__all__ = ["check_provenance", "parse_provenance", "promises_scores"]


def parse_provenance(raw: bytes) -> dict[str, Any]:
    """Return the object that `raw` spells; raises ValueError, with the reason, for anything else."""
    try:
        value = json.loads(raw, parse_constant=_refuse, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(_NESTED) from None
    if not isinstance(value, dict):
        raise ValueError("it is of another kind")
    check_provenance(value)
    # What JSON can spell and text cannot hold: infinite numbers, halves of surrogate pairs.
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def check_provenance(value: Mapping[str, Any]) -> None:
    """Raise ValueError if something lies too deep, or a number is too large for double precision."""
    layer: list[Any] = [value]
    for _ in range(MAX_NESTING):
        layer = [inner for item in layer for inner in _within(item)]
        for item in layer:
            if isinstance(item, int) and not math.isfinite(_float(item)):
                raise ValueError("a number is too large")
    if any(isinstance(item, Mapping | list | tuple) for item in layer):
        raise ValueError(_NESTED)


def promises_scores(provenance: Mapping[str, Any]) -> bool:
    """Return whether images were chosen by a score, which the pack then holds for each."""
    coreset = provenance.get("coreset")
    return isinstance(coreset, Mapping) and "keep_end" in coreset


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
    raise ValueError(f"{constant} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found
