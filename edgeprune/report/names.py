"""Names as the page shows them: classes and files are called as strangers liked."""

from __future__ import annotations

from ..text import printable

__all__ = ["shown"]

_LONGEST = 60


def shown(name: str) -> str:
    """Return a name, cut where it is long, with escapes of characters that are unseen or turn text around."""
    text = printable(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\u2026"
