"""What every way of asking for a far file has in common: replies, and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from ..errors import ConfigError, RemoteError
from .locations import PACKAGES, RemoteFile

__all__ = [
    "PIECE",
    "CutError",
    "MissingError",
    "Reply",
    "State",
    "Transport",
    "UnreachableError",
    "filesystem_class",
]

PIECE = 2**18
"""Bytes that are read at once."""


class UnreachableError(RemoteError):
    """Nobody answers: no such host, no connection, no time."""


class MissingError(RemoteError):
    """The server has no such file."""


class CutError(RemoteError):
    """The answer ended before its end, or the server has trouble that may pass."""


@dataclass(frozen=True)
class State:
    """What tells whether a far file is still the same.

    Attributes
    ----------
    size : int or None
        Bytes; None where the server does not say.
    version : str
        A strong ETag, a time of change, or what else changes with the content; "" where there is nothing.
    """

    size: int | None
    version: str

    def is_same(self, other: State | None) -> bool:
        """Tell whether the content is known to be the same: without a version it is not."""
        return bool(self.version) and self == other


@dataclass(frozen=True)
class Reply:
    """The answer to a request; a context manager, which closes it.

    Attributes
    ----------
    state : State
        Of the whole file.
    start : int
        Where in the file the pieces begin: 0 where the server does not know ranges.
    is_range : bool
        Whether the server knows ranges.
    ends : bool
        Whether a cut would be noticed: not of an old server that just closes the connection.
    pieces : iterator of bytes
        Raises `RemoteError`.
    """

    state: State
    start: int
    is_range: bool
    ends: bool
    pieces: Iterator[bytes]
    close: Callable[[], object] = lambda: None

    def __enter__(self) -> Reply:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transport(AbstractContextManager["Transport"], Protocol):
    """Asks for a far file."""

    def request(self, start: int = 0, stop: int | None = None) -> Reply:
        """Ask for the bytes from `start` to before `stop`, or to the end.

        Raises
        ------
        RemoteError
            `UnreachableError` and `CutError` may pass.
        """
        ...


def filesystem_class(remote: RemoteFile) -> Any:
    """Return fsspec's class for a scheme; raises `ConfigError` as `connect`."""
    try:
        import fsspec
    except ImportError:
        raise ConfigError(f"{remote}: far files need fsspec; pip install 'edgeprune[remote]'") from None
    try:
        return fsspec.get_filesystem_class(remote.scheme)
    except (ImportError, ValueError):
        package = PACKAGES[remote.scheme]
        install = "'edgeprune[remote]'" if package in ("aiohttp", "fsspec") else package
        raise ConfigError(f"{remote}: {remote.scheme}:// needs {package}; pip install {install}") from None
