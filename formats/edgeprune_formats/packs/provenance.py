"""What a provenance may be: a JSON object that every reader reads alike, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..strict_json import parse_json

__all__ = ["parse_provenance", "promises_scores", "recorded"]


def parse_provenance(raw: bytes) -> dict[str, Any]:
    """Return the object that `raw` spells; raises ValueError, with the reason, for anything else."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError("it is of another kind")
    return value


def promises_scores(provenance: Mapping[str, Any]) -> bool:
    """Return whether images were chosen by a score, which the pack then holds for each."""
    return "keep_end" in recorded(provenance, "coreset")


def recorded(provenance: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object that a provenance has under a name, such as ``"source"``; empty where it has none."""
    value = provenance.get(name)
    return value if isinstance(value, Mapping) else {}
