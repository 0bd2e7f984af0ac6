"""One module for each command of the command line; what a command needs it imports when it runs."""

from __future__ import annotations

__all__ = ["FORMER_NAMES"]


def _present_name(name: str) -> str:
    return "tile" if name == "block" else name


FORMER_NAMES = {"token_normalize_func": _present_name}
"""Settings of a command that takes options under their former names, too, which its help does not show."""
