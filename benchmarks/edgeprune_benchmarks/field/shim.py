"""Writes that fail, in this process, as those of a full or dying disk do.

Files that Python itself writes go through its own implementation in Python, `_pyio`, whose writes are those
of `os.write`; those under HDF5 through `edgeprune_formats.files.Sink`. What libraries in C or Rust write by
themselves a limit on the size of files reaches instead.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import os
import resource
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgeprune_formats import files

__all__ = ["Writes", "counted", "install", "limit_size"]


@dataclass
class Writes:
    """Counts writes, and lets some of them fail.

    Attributes
    ----------
    at : int or None
        The first that fails, from 1.
    number : int
        The error that it fails with.
    count : int or None
        How many fail; None for all that follow.
    short : bool
        Whether each takes half of what it is given.
    """

    at: int | None = None
    number: int = errno.ENOSPC
    count: int | None = None
    short: bool = False
    seen: int = 0

    def allow(self, size: int) -> int:
        """Return how many of so many bytes are taken.

        Raises
        ------
        OSError
            None of them.
        """
        self.seen += 1
        if (
            self.at is not None
            and self.at <= self.seen
            and (not self.count or self.seen < self.at + self.count)
        ):
            raise OSError(self.number, os.strerror(self.number))
        return -(-size // 2) if self.short else size


def install(writes: Writes) -> None:
    """Let all writes to regular files in this process, and their way to the disk, go through `writes`."""
    write, sync = os.write, os.fsync

    def shim(descriptor: int, data: Any) -> int:
        view = memoryview(data).cast("B")
        if descriptor > 2 and stat.S_ISREG(os.fstat(descriptor).st_mode):
            view = view[: writes.allow(len(view))]
        return write(descriptor, view)

    def shim_sync(descriptor: Any) -> None:
        writes.allow(0)
        sync(descriptor)

    class Failing(io.FileIO):
        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            return super().write(view[: writes.allow(len(view))])

    os.write, os.fsync = shim, cast(Any, shim_sync)
    builtins.open = io.open = importlib.import_module("_pyio").open
    # Behind the class that calls it, so that what is tested stays as it is.
    _replace(files.Sink, type("Sink", (files.Sink, Failing), {}))


def _replace(old: type, new: type) -> None:
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("edgeprune") and getattr(module, "Sink", None) is old:
            setattr(module, "Sink", new)  # noqa: B010


def limit_size(size: int) -> None:
    """Let no file in this process grow beyond some bytes, whoever writes it; EFBIG is what a writer gets."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def counted(work: Callable[[], object], path: Path) -> None:
    """Do some work, and write into a file how many writes it took."""
    writes = Writes()
    opened, written = os.open(path, os.O_WRONLY | os.O_CREAT), os.write
    install(writes)
    try:
        work()
    finally:
        written(opened, str(writes.seen).encode())
