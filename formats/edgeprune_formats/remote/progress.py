"""A line on a terminal that tells how far a fetch is; elsewhere nothing is printed."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from ..errors import printable

__all__ = ["FetchLine"]

_EVERY_SECONDS = 0.2


class FetchLine:
    """Shows bytes, rate and time left, and removes the line in the end.

    Parameters
    ----------
    name : str
        Of the file, without credentials.
    have : int
        Bytes that were there before.
    """

    def __init__(self, name: str, have: int = 0) -> None:
        self._name, self._begun, self._have = printable(name), time.monotonic(), have
        self._told, self._is_drawn = self._begun, False
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> FetchLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_drawn:
            self._draw("")

    def say(self, what: str) -> None:
        """Show what is being waited for."""
        if self._is_shown:
            self._told, self._is_drawn = time.monotonic(), True
            self._draw(f"{self._name}: {what}")

    def __call__(self, done: int, size: int | None) -> None:
        """Show how many bytes are there, of `size`."""
        now = time.monotonic()
        if not self._is_shown or now - self._told < _EVERY_SECONDS:
            return
        rate = (done - self._have) / max(now - self._begun, 1e-3)
        of = "" if size is None else f" of {size / 1e6:,.1f}"
        left = ""
        if size is not None and rate > 0:
            minutes, seconds = divmod(round((size - done) / rate), 60)
            left = f", ETA {minutes}:{seconds:02d}"
        self.say(f"{done / 1e6:,.1f}{of} MB, {rate / 1e6:,.2f} MB/s{left}")

    def _draw(self, line: str) -> None:
        # The terminal may have gone.
        with contextlib.suppress(OSError):
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
