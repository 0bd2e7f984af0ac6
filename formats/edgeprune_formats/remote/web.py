"""Far files of web servers: requests of ranges that say which version of the file they are of.

The session, its event loop and the user's settings (proxies, headers) are those of fsspec. Its own file
objects do not tell the version of what each request has read, so a file that changes could be glued together.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from ..errors import RemoteError, one_line
from .locations import RemoteFile
from .transport import PIECE, CutError, MissingError, Reply, State, UnreachableError, filesystem_class

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

__all__ = ["WebTransport"]

CONNECT_SECONDS, READ_SECONDS = 30.0, 60.0
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_ENCODED = re.compile("[!-~]*")
_OUTSIDE = 416
_PASSING = (408, 425, 429, *range(500, 600))


class WebTransport:
    """Asks a web server for a file; implements `Transport`.

    Redirects are followed to http and https alone, and from https to https.
    """

    def __init__(self, remote: RemoteFile) -> None:
        # An instance of our own: whoever else uses fsspec here has other settings.
        self._fs = filesystem_class(remote)(skip_instance_cache=True)
        self._fs.client_kwargs = {"trust_env": True, **self._fs.client_kwargs}
        self._remote = remote
        self._session: ClientSession | None = None

    def __enter__(self) -> WebTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._await(self._session.close)

    def request(self, start: int = 0, stop: int | None = None) -> Reply:
        """Ask for a range; see `Transport`."""
        response = self._asked(partial(self._get, start, stop), UnreachableError)
        try:
            return self._reply(response, start)
        except BaseException:
            self._close(response)
            raise

    async def _get(self, start: int, stop: int | None) -> ClientResponse:
        from aiohttp import ClientTimeout
        from yarl import URL

        self._session = session = cast("ClientSession", await self._fs.set_session())
        settings = dict(self._fs.kwargs)
        headers = {
            **settings.pop("headers", {}),
            # Bytes as they are stored, for ranges are of these.
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{'' if stop is None else stop - 1}",
        }
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        # As it is, where it can be: a signature may be of each letter of it.
        url = URL(self._remote.url, encoded=_ENCODED.fullmatch(self._remote.url) is not None)
        return await session.get(url, **{"timeout": timeout, **settings, "headers": headers})

    def _reply(self, response: ClientResponse, start: int) -> Reply:
        headers, remote = response.headers, self._remote
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        insecure = {str(one.url.scheme) for one in (*response.history, response)} - {"https"}
        if remote.scheme == "https" and insecure:
            raise RemoteError(f"{remote}: its server sends us on to a place without TLS; name that place")
        if response.status == _OUTSIDE:
            end = int(found[2]) if found and found[2] != "*" else 0
            close = partial(self._close, response)
            return Reply(State(end, _version(headers)), min(start, end), True, True, iter(()), close)
        if response.status not in (200, 206):
            raise _refusal(remote, response.status)
        if headers.get("Content-Encoding", "identity") != "identity":
            raise RemoteError(f"{remote}: its server sends it compressed; have it send the file as it is")
        length = headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        begin = 0
        if response.status == 206:
            if not found or found[1] is None or int(found[1]) != start:
                raise RemoteError(f"{remote}: its server answers with another range than was asked for")
            begin, size = start, None if found[2] == "*" else int(found[2])
        ends = bool(length) or "chunked" in headers.get("Transfer-Encoding", "")
        return Reply(
            State(size, _version(headers)),
            begin,
            response.status == 206,
            ends,
            self._pieces(response),
            partial(self._close, response),
        )

    def _pieces(self, response: ClientResponse) -> Iterator[bytes]:
        read = partial(response.content.read, PIECE)
        while piece := self._asked(read, CutError):
            yield piece

    def _close(self, response: ClientResponse) -> None:
        async def close() -> None:
            response.close()

        self._await(close)

    def _await(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        from fsspec.asyn import sync

        return sync(self._fs.loop, begin)

    def _asked(self, begin: Callable[[], Coroutine[Any, Any, Any]], kind: type[RemoteError]) -> Any:
        import aiohttp

        try:
            return self._await(begin)
        except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError) as error:
            raise _failure(self._remote, error, kind) from None


def _version(headers: Mapping[str, str]) -> str:
    etag = headers.get("ETag", "")
    # A weak one may stay the same where bytes change.
    if etag and not etag.startswith("W/"):
        return f"ETag {etag}"
    changed = headers.get("Last-Modified", "")
    return f"Last-Modified {changed}" if _is_settled(changed, headers.get("Date", "")) else ""


def _is_settled(changed: str, now: str) -> bool:
    """Return whether a file is so old that it cannot change again within the second that is told."""
    try:
        age = parsedate_to_datetime(now) - parsedate_to_datetime(changed)
    except (TypeError, ValueError):
        return False
    return age.total_seconds() > 1


def _refusal(remote: RemoteFile, status: int) -> RemoteError:
    if status in (404, 410):
        return MissingError(f"{remote}: there is no such file ({status}); check the URL")
    if status in (401, 403, 407):
        return RemoteError(f"{remote}: its server does not let us have it ({status}); check the credentials")
    kind = CutError if status in _PASSING else RemoteError
    return kind(f"{remote}: its server answers {status}; try again later, or ask who runs it")


def _failure(remote: RemoteFile, error: Exception, kind: type[RemoteError]) -> RemoteError:
    """Return what a failed request is to a user; messages of aiohttp hold URLs, and are not repeated."""
    import aiohttp

    name, cause = type(error).__name__, getattr(error, "os_error", error)
    if isinstance(error, aiohttp.ClientSSLError):
        return RemoteError(f"{remote}: TLS fails ({one_line(_reason(error))}); check clock and certificates")
    if name == "ClientConnectorDNSError" or isinstance(cause, socket.gaierror):
        return UnreachableError(f"{remote}: no such host; check the URL and the network")
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return kind(f"{remote}: no answer in {READ_SECONDS:.0f} s; check the network")
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = os.strerror(error.os_error.errno) if error.os_error.errno else name
        return UnreachableError(f"{remote}: cannot be reached ({reason}); check host, port and network")
    if "Redirect" in name or isinstance(error, aiohttp.InvalidURL | ValueError):
        return RemoteError(f"{remote}: its server sends us on in circles, or to what is no web page")
    return CutError(f"{remote}: the connection was cut; try again")


def _reason(error: Exception) -> object:
    cause: Any = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(error).__name__
