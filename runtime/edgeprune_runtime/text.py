"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["bytes_text", "count_text"]


def bytes_text(size: int) -> str:
    """Return a number of bytes in B, kB (1000 bytes), MB or GB, with three digits or more."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}" if size < 100 * scale else f"{size / scale:,.0f} {unit}"
    return f"{size} B"


def count_text(count: int, noun: str) -> str:
    """Return ``"1 chunk"`` or ``"1,200 chunks"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
