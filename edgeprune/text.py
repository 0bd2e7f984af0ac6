"""Text on its way to a terminal."""

from __future__ import annotations

import contextlib

import click

__all__ = ["bytes_text", "count_text", "printable", "say"]


def say(line: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a line, if anybody still reads: long work goes on when its pipe or its terminal has gone."""
    with contextlib.suppress(OSError):
        click.echo(line, err=err, nl=nl)


def printable(text: str) -> str:
    """Return `text` on one line with everything that could drive a terminal replaced by its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def bytes_text(size: int) -> str:
    """Return a number of bytes in B, kB (1000 bytes), MB or GB, with three digits or more."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}" if size < 100 * scale else f"{size / scale:,.0f} {unit}"
    return f"{size} B"


def count_text(count: int, noun: str) -> str:
    """Return ``"1 chunk"`` or ``"1,200 chunks"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
