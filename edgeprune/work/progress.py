"""Progress of long work on standard error, with rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from tqdm import tqdm

__all__ = ["EpochLines", "progress_bars"]


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function ``tell(stage, done, total)`` that draws a bar for each stage, counting images.

    In a log that is no terminal a bar is a line every ten seconds.
    """
    bars: dict[str, tqdm[Any]] = {}

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            interval = 0.1 if sys.stderr.isatty() else 10
            bars[stage] = tqdm(
                total=total,
                desc=stage,
                unit=" images",
                mininterval=interval,
                disable=quiet,
                dynamic_ncols=True,
            )
        bars[stage].update(done - bars[stage].n)
        if done >= total:
            # So that what is printed next starts on a line of its own.
            bars[stage].close()

    try:
        yield tell
    finally:
        for bar in bars.values():
            bar.close()


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
        """Print what `edgeprune.work.resumable.LongRun` reports."""
        if self._quiet:
            return
        minutes, seconds = divmod(round(event["eta_seconds"]), 60)
        line = (
            f"{event['stage']}, epoch {event['epoch']}/{event['epochs']}  "
            f"{event['images_per_second']:,.0f} images/s  ETA {minutes}:{seconds:02d}"
        )
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)
        if event["event"] == "epoch":
            click.echo(line + "".join(f"  {name} {text}" for name, text in _figures(event)), err=True)
        elif self._live:
            click.echo(line, err=True, nl=False)


def _figures(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("loss", "entropy"):
        if event.get(name) is not None:
            yield name, f"{event[name]:.4f}"
    for name in ("accuracy", "overlap"):
        if event.get(name) is not None:
            yield name, f"{event[name]:.2%}"
