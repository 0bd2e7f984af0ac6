"""Fetching a far file into the cache: once, resumed after a cut, and checked before it gets its name."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import Problem, RemoteError
from ..files import OVERHEAD_BYTES, atomic_file, file_sha256, read_regular
from .cache import CACHE_VARIABLE, Cache, Kept
from .connection import connect
from .locations import RemoteFile
from .progress import FetchLine
from .receive import ChangedError, ask, receive
from .transport import CutError, Reply, State, Transport, UnreachableError

__all__ = ["Check", "RemoteCopy", "UnsoundError", "fetch", "fetch_small"]

Check = Callable[[Path], list[Problem]]
"""Looks at a whole file, and returns what is wrong with it."""
# A file that changes so often while it is fetched is left alone.
_CHANGES = 3


@dataclass(frozen=True)
class RemoteCopy:
    """The local copy of a far file.

    Attributes
    ----------
    path : Path
    url : str
        Without credentials.
    sha256 : str
        Of its content, 64 hex digits.
    checked : bool
        Whether its check was made just now, not before.
    """

    path: Path
    url: str
    sha256: str
    checked: bool = False


class UnsoundError(Exception):
    """A file did not pass its check, and was not kept."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def fetch(remote: RemoteFile, check: Check | None = None) -> RemoteCopy:
    """Return a local copy of a far file, from the cache if it is there.

    With a digest in the URL the network is not asked for what is there. Without one the server is asked
    whether the file is still the same; where nobody answers, the copy that is there is taken, with a warning.

    Parameters
    ----------
    remote : RemoteFile
    check : callable, optional
        What the file must pass before it gets its name; that it passed is remembered by its digest.

    Raises
    ------
    ConfigError
        fsspec, or the package for this scheme, is not installed.
    RemoteError
        It cannot be fetched, is not what the digest says, or the cache cannot be written.
    UnsoundError
        It did not pass `check`.
    """
    cache = Cache()
    with cache.usable():
        kept = cache.kept(remote.sha256) if remote.sha256 else None
    if kept is not None and (check is None or kept.verified):
        # Also of a cache that nobody may write to.
        return RemoteCopy(kept.path, str(remote), kept.sha256)
    with FetchLine(remote.name) as line:
        alone = cache.alone(remote, lambda: line.say("another process fetches it; waiting"))
        with alone as mark, cache.usable():
            kept = cache.kept(remote.sha256) if remote.sha256 else None
            if kept is not None:
                return _checked(cache, remote, kept, check)
            with connect(remote) as transport:
                return _Fetch(cache, remote, transport, check, mark).copy()


def fetch_small(remote: RemoteFile, limit: int) -> bytes:
    """Return the content of a small far file; where nobody answers, that of the last time, with a warning.

    Raises
    ------
    ConfigError, RemoteError
        As `fetch`, or it has more than `limit` bytes.
    """
    cache, content = Cache(), b""
    kept = cache.small(remote)
    try:
        with connect(remote) as transport, transport.request(0, limit + 1) as reply:
            for piece in reply.pieces:
                content += piece
                if len(content) > limit:
                    raise RemoteError(f"{remote}: larger than {limit} B; check the URL")
    except (UnreachableError, CutError) as error:
        if not kept.is_file():
            raise
        _warn(error)
        return read_regular(kept, limit)
    with cache.usable(), atomic_file(kept) as partial:
        partial.write_bytes(content)
    return content


def _warn(error: RemoteError) -> None:
    warnings.warn(f"{error}; meanwhile the copy in the cache is taken", stacklevel=2)


def _checked(cache: Cache, remote: RemoteFile, kept: Kept, check: Check | None) -> RemoteCopy:
    """Return a file of the cache, which is checked where it was not."""
    if check is None or kept.verified:
        return RemoteCopy(kept.path, str(remote), kept.sha256)
    if problems := _problems(remote, check, kept.path):
        cache.drop(kept.sha256)
        raise UnsoundError(problems)
    cache.mark_verified(kept)
    return RemoteCopy(kept.path, str(remote), kept.sha256, checked=True)


def _problems(remote: RemoteFile, check: Check, path: Path) -> list[Problem]:
    with FetchLine(remote.name) as line:
        line.say("checking all of it")
        return check(path)


class _Fetch:
    """One fetch of a file that is not in the cache by its digest."""

    def __init__(
        self, cache: Cache, remote: RemoteFile, transport: Transport, check: Check | None, mark: str
    ) -> None:
        self._cache, self._remote, self._transport = cache, remote, transport
        self._check, self._mark = check, mark

    def copy(self) -> RemoteCopy:
        """Return the copy."""
        for _ in range(_CHANGES):
            try:
                return self._once()
            except ChangedError:
                self._forget()
            except OSError:
                # A disk that is full is not kept full.
                self._forget()
                raise
        raise RemoteError(f"{self._remote}: changes again and again while it is fetched; try again later")

    def _once(self) -> RemoteCopy:
        cache, remote = self._cache, self._remote
        known = cache.known(remote) if remote.sha256 is None else None
        if known is not None and self._is_still(known[0]):
            return _checked(cache, remote, known[1], self._check)
        part, before = cache.part(remote, self._mark)
        have = part.stat().st_size if before is not None and before.version and part.exists() else 0
        # Behind the end nothing can be asked for.
        is_whole = before is not None and 0 < have == before.size
        with ask(self._transport, 0 if is_whole else have) as reply:
            state = reply.state
            if have and not state.is_same(before):
                raise ChangedError
            if not is_whole:
                self._require(reply)
                cache.begin(remote, state, self._mark)
                receive(remote, self._transport, reply, part)
        return self._finish(part, state, was_resumed=have > 0)

    def _is_still(self, known: State) -> bool:
        """Tell whether the far file is one of the cache; where nobody answers it is taken for it.

        A byte is asked for: of all of it a server may send megabytes before it notices that nobody reads.
        """
        try:
            with ask(self._transport, 0, 1) as reply:
                return reply.state.is_same(known)
        except (UnreachableError, CutError) as error:
            _warn(error)
            return True

    def _require(self, reply: Reply) -> None:
        """Raise `RemoteError` where the disk has no room, or where a cut could not be noticed."""
        size, remote = reply.state.size, self._remote
        if size is None and not reply.ends and remote.sha256 is None:
            raise RemoteError(
                f"{remote}: its server does not tell how long it is, so a cut would go unnoticed; put its "
                "digest behind the URL, #sha256=..."
            )
        need = (size or 0) - reply.start + OVERHEAD_BYTES
        free = shutil.disk_usage(self._cache.folder).free
        if need > free:
            raise RemoteError(
                f"{remote}: needs {need / 1e6:,.1f} MB in {self._cache.folder}, whose disk has "
                f"{free / 1e6:,.1f} MB free; free some, or set {CACHE_VARIABLE} to another folder"
            )

    def _finish(self, part: Path, state: State, *, was_resumed: bool) -> RemoteCopy:
        """Check what was fetched, and keep it. What was put together of two fetches gets a second chance."""
        cache, remote, digest = self._cache, self._remote, file_sha256(part)
        if remote.sha256 not in (None, digest):
            self._refuse(was_resumed)
            raise RemoteError(
                f"{remote}: its content has the SHA-256 {digest}, and {remote.sha256} was asked for; do not "
                "use it, or correct the digest"
            )
        there = cache.kept(digest)
        is_verified = there is not None and there.verified
        check = None if is_verified else self._check
        if check is not None and (problems := _problems(remote, check, part)):
            self._refuse(was_resumed)
            raise UnsoundError(problems)
        kept = cache.keep(remote, part, state, digest, is_verified or check is not None)
        self._forget()
        return RemoteCopy(kept.path, str(remote), digest, checked=check is not None)

    def _refuse(self, was_resumed: bool) -> None:
        if was_resumed:
            raise ChangedError
        self._forget()

    def _forget(self) -> None:
        self._cache.forget_part(self._remote, self._mark)
