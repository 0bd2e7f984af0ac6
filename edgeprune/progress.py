"""Progress of long work on standard error, with rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

__all__ = ["progress_bars"]


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

    try:
        yield tell
    finally:
        for bar in bars.values():
            bar.close()
