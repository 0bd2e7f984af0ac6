"""Far files of all else that fsspec knows, such as S3: read in pieces, with a look before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..errors import RemoteError, one_line
from .locations import RemoteFile
from .transport import CutError, MissingError, Reply, State, filesystem_class

__all__ = ["FilesystemTransport"]

# A request for each piece.
PIECE = 2**22
# What fsspec's packages call what changes with the content, the best first.
_VERSIONS = (
    *("VersionId", "version_id", "generation", "ETag", "etag", "blob_id", "md5Hash", "md5", "checksum"),
    *("LastModified", "last_modified", "updated", "mtime", "modified", "modify", "modificationTime"),
    "created",
)


class FilesystemTransport:
    """Asks a filesystem of fsspec for a file; implements `Transport`."""

    def __init__(self, remote: RemoteFile) -> None:
        kind = filesystem_class(remote)
        self._remote = remote
        with self._told():
            self._fs = kind(**kind._get_kwargs_from_urls(remote.url))
            self._path = kind._strip_protocol(remote.url)

    def __enter__(self) -> FilesystemTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the filesystem to fsspec, which keeps it."""

    def request(self, start: int = 0, stop: int | None = None) -> Reply:
        """Ask for a range; see `Transport`."""
        state = self._look()
        if state.size is None:
            raise RemoteError(f"{self._remote}: its size is not known; fetch it by another way")
        begin = min(start, state.size)
        end = state.size if stop is None else min(stop, state.size)
        return Reply(state, begin, True, True, self._pieces(begin, end, state, to_end=stop is None))

    def _pieces(self, begin: int, end: int, state: State, *, to_end: bool) -> Iterator[bytes]:
        for place in range(begin, end, PIECE):
            stop = min(place + PIECE, end)
            with self._told():
                piece: bytes = self._fs.cat_file(self._path, start=place, end=stop)
            if len(piece) != stop - place:
                raise CutError(f"{self._remote}: the answer was cut; try again")
            yield piece
        if to_end and self._look() != state:
            raise CutError(f"{self._remote}: has changed while it was fetched; try again")

    def _look(self) -> State:
        with self._told():
            self._fs.invalidate_cache()
            facts = self._fs.info(self._path)
        if facts.get("type", "file") != "file":
            raise RemoteError(f"{self._remote}: is a folder; name a file")
        size = facts.get("size")
        return State(None if size is None else int(size), _version(facts))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Make a `RemoteError` of what a package raises, which may be anything."""
        remote = self._remote
        try:
            yield
        except FileNotFoundError:
            raise MissingError(f"{remote}: there is no such file; check the URL") from None
        except PermissionError:
            raise RemoteError(f"{remote}: we may not have it; check the credentials") from None
        except (OSError, asyncio.TimeoutError) as error:
            raise CutError(f"{remote}: {_reason(remote, error)}; check the network") from None
        except Exception as error:
            raise RemoteError(f"{remote}: {_reason(remote, error)}") from None


def _version(facts: Mapping[str, Any]) -> str:
    return next((f"{name} {facts[name]}" for name in _VERSIONS if facts.get(name)), "")


def _reason(remote: RemoteFile, error: Exception) -> str:
    return one_line(remote.hide(error)) or type(error).__name__
