"""Progress of long work on standard error, with rate and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from tqdm import tqdm

from ..text import live, say_if_read

__all__ = ["EpochLines", "progress_bars"]


_LOG_SECONDS = 30.0
"""A log gets a line of a stage this often, and one at its end."""


@contextmanager
def progress_bars(
    quiet: bool = False, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function ``tell(stage, done, total)`` that shows how far a stage is, counting images.

    On a terminal each stage is a bar. A log gets a line every 30 seconds and one at the end of each stage.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    clock : callable
        Gives seconds.
    """
    if quiet:
        yield lambda stage, done, total: None
    elif not sys.stderr.isatty():
        yield _LogLines(clock)
    else:
        bars: dict[str, tqdm[Any]] = {}
        try:
            yield partial(_draw, bars)
        finally:
            for bar in bars.values():
                bar.close()


def _draw(bars: dict[str, tqdm[Any]], stage: str, done: int, total: int) -> None:
    if stage not in bars or done < bars[stage].n:  # the same stage again, as of another trial
        for bar in bars.values():
            bar.close()
        bars[stage] = tqdm(total=total, desc=stage, unit=" images", dynamic_ncols=True)
    with suppress(OSError):  # As `say` does, where the terminal has gone.
        bars[stage].update(done - bars[stage].n)
        if done >= total:
            # So that what is printed next starts on a line of its own.
            bars[stage].close()


class _LogLines:
    """Prints lines with count, rate and time left."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._stage = clock, ""
        self._done = 0
        self._started = self._told = self._last = clock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = self._clock()
        if stage != self._stage or done < self._done:
            # It began when the one before it ended: the first word of it may also be the last.
            self._stage, self._started, self._told = stage, self._last, self._last
        self._last, self._done = now, done
        if done < total and now - self._told < _LOG_SECONDS:
            return
        self._told = now
        rate = done / max(now - self._started, 1e-3)
        share = f"{done:,} of {total:,} images"
        left = f", ETA {_minutes((total - done) / rate)}" if 0 < done < total else ""
        say_if_read(f"{stage}: {share}, {rate:,.0f} images/s{left}", err=True)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class EpochLines:
    """Prints a line for each epoch of a long run and, on a terminal, a live line in between.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()

    def __call__(self, event: dict[str, Any]) -> None:
        """Print what `edgeprune.work.resumable.ResumableRun` reports."""
        if self._quiet:
            return
        line = (
            f"{event['stage']}, epoch {event['epoch']}/{event['epochs']}  "
            f"{event['images_per_second']:,.0f} images/s  ETA {_minutes(event['eta_seconds'])}"
        )
        if event["event"] == "epoch":
            if self._live:
                live()
            say_if_read(line + "".join(f"  {name} {text}" for name, text in _figures(event)), err=True)
        elif self._live:
            live(line)


def _figures(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("loss", "entropy"):
        if event.get(name) is not None:
            yield name, f"{event[name]:.4f}"
    for name in ("accuracy", "overlap"):
        if event.get(name) is not None:
            yield name, f"{event[name]:.2%}"
