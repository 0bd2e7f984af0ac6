"""Text on its way to a terminal."""

from __future__ import annotations

import contextlib
import io
import sys

import click

from edgeprune_formats.errors import printable
from edgeprune_runtime.text import bytes_text, count_text

__all__ = ["bytes_text", "count_text", "escape_streams", "live", "printable", "say", "say_if_read"]


def escape_streams() -> None:
    """Let standard output and error escape what their encoding lacks, in place of raising an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: object = "", *, err: bool = False) -> None:
    """Print one line on standard output, or on standard error, as `printable` has it."""
    # Of a stream that it is not given click replaces the encoding, if that is ASCII, by UTF-8.
    click.echo(printable(str(text)), file=sys.stderr if err else sys.stdout)


def say_if_read(text: object, *, err: bool = False) -> None:
    """Do as `say`, if anybody still reads: long work goes on when its pipe or its terminal has gone."""
    with contextlib.suppress(OSError):
        say(text, err=err)


def live(line: str = "") -> None:
    """Put a line on the terminal in place of the live one before it, if anybody still reads."""
    with contextlib.suppress(OSError):
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)
