"""What a provenance may be: a JSON object that every reader reads alike, within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..strict_json import parse_json

__all__ = ["parse_provenance", "promises_scores"]


def parse_provenance(raw: bytes) -> dict[str, Any]:
    """Return the object that `raw` spells; raises ValueError, with the reason, for anything else."""
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ValueError("it is of another kind")
    return value


def promises_scores(provenance: Mapping[str, Any]) -> bool:
    """Return whether images were chosen by a score, which the pack then holds for each."""
    coreset = provenance.get("coreset")
    return isinstance(coreset, Mapping) and "keep_end" in coreset
