"""A folder where one situation happens, and what counts as right or as refused clearly there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .child import Done, edgeprune, in_child, script
from .stock import take

__all__ = ["Place", "WrongError"]

REFUSALS = (1, 2)
LEFTOVERS = (".partial", ".tmp", ".work")


class WrongError(Exception):
    """Neither right nor refused clearly; says what happened instead."""


@dataclass
class Place:
    """One situation's folder.

    Attributes
    ----------
    folder : Path
        Empty at first.
    stock : Path
        What several situations need is made once there; see `edgeprune_benchmarks.field.stock`.
    """

    folder: Path
    stock: Path
    before: frozenset[Path] = frozenset()

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def take(self, name: str) -> Path:
        """Return a fresh copy, in this folder, of something in stock."""
        kept = take(self.stock, name)
        copy = shutil.copytree if kept.is_dir() else shutil.copyfile
        return Path(copy(kept, self.folder / name))

    def run(self, *words: object, environment: dict[str, str] | None = None, **options: Any) -> Done:
        """Run a command of ``edgeprune`` in this folder, as `in_child` does."""
        return self._child(partial(edgeprune, words, environment), options)

    def script(self, function: Callable[[], object], *refusals: type[Exception], **options: Any) -> Done:
        """Run a user's script, which is refused by exceptions of these types."""
        return self._child(partial(script, function, refusals), options)

    def _child(self, work: Callable[[], object], options: dict[str, Any]) -> Done:
        self.before = self._files()
        return in_child(work, self.folder, **options)

    def _files(self) -> frozenset[Path]:
        found = (Path(top) / name for top, folders, files in os.walk(self.folder) for name in folders + files)
        return frozenset(path.relative_to(self.folder) for path in found)

    @property
    def new(self) -> list[Path]:
        """What the last command has left that was not there before it."""
        return sorted(self._files() - self.before)

    def right(self, done: Done, expected: object = True, *, lines: int | None = 0) -> str:
        """Return ``"right"`` for success, with `expected` true, so many lines on stderr, and no leftovers.

        Raises
        ------
        WrongError
            Anything else.
        """
        _require_end(done, (0,))
        left = [str(path) for path in self.new if path.name.endswith(LEFTOVERS)]
        if left:
            raise WrongError(f"left {', '.join(left)}")
        if lines is not None and len(done.err.splitlines()) != lines:
            raise WrongError(f"said: {done.err.strip()[:200]}")
        if not expected:
            raise WrongError(f"not the expected result: {(done.out + done.err).strip()[-200:]}")
        return "right"

    def refused(self, done: Done, *named: str, keeps: tuple[str, ...] = (), lists: bool = False) -> str:
        """Return ``"refused"`` for one line that holds all of some words, and nothing new but `keeps`.

        With `lists` there may be more lines, each a problem of its own.

        Raises
        ------
        WrongError
            Anything else.
        """
        _require_end(done, REFUSALS)
        lines = done.err.strip().splitlines()
        if len(lines) != 1 and not (lists and lines):
            raise WrongError(f"{len(lines)} lines on stderr: {' / '.join(lines[-3:])[:200]}")
        missing = [word for word in named if word not in lines[0]]
        if missing:
            raise WrongError(f"does not say {', '.join(missing)}: {lines[0]}")
        left = [str(path) for path in self.new if path.parts[0] not in keeps]
        if left:
            raise WrongError(f"left {', '.join(left)}")
        return "refused"


def _require_end(done: Done, codes: tuple[int, ...]) -> None:
    if done.code is None:
        raise WrongError(f"did not end within {done.seconds:.0f} s")
    if "Traceback (most recent call last)" in done.err:
        raise WrongError(f"traceback: {done.err.strip().splitlines()[-1][:200]}")
    if done.code < 0:
        raise WrongError(f"killed by signal {-done.code}")
    if done.code not in codes:
        raise WrongError(f"exit status {done.code}: {done.err.strip()[-200:]}")
