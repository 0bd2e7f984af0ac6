"""Reading parts of a far file: blocks are asked for when they are read, and the last ones are kept."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any

from ..errors import RemoteError
from .connection import connect
from .locations import RemoteFile
from .transport import Reply, State, Transport

__all__ = ["NoRangesError", "RangeFile", "Ranges"]

BLOCK = 2**16
# 16 MiB.
_MOST_BLOCKS = 256


class NoRangesError(Exception):
    """The server sends whole files alone, or does not tell their size."""


class Ranges:
    """The bytes of a far file, for several threads.

    Parameters
    ----------
    remote : RemoteFile

    Attributes
    ----------
    size : int
        Bytes of the whole file.
    bytes_read, requests : int
        What was asked for so far.

    Raises
    ------
    NoRangesError
    ConfigError, RemoteError
        As `edgeprune_formats.remote.fetch.fetch`.
    """

    def __init__(self, remote: RemoteFile) -> None:
        self._remote, self._lock = remote, threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._state: State | None = None
        self.size = self.bytes_read = self.requests = 0
        self._transport: Transport = connect(remote)
        try:
            self._fetch(0, 1)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._transport.__exit__(None, None, None)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to before `stop`, as far as the file goes; raises `RemoteError`."""
        stop = min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // BLOCK, -(-stop // BLOCK)
        with self._lock:
            found = {number: self._blocks.get(number) for number in range(first, last)}
            missing = [number for number, block in found.items() if block is None]
            if missing:
                found |= self._fetch(missing[0], missing[-1] + 1)
            for number in found:
                if number in self._blocks:
                    self._blocks.move_to_end(number)
        whole = b"".join(block for block in found.values() if block is not None)
        return whole[start - first * BLOCK : stop - first * BLOCK]

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        """Ask for blocks `first` to before `last` in one request."""
        start = first * BLOCK
        with self._transport.request(start, last * BLOCK) as reply:
            self._require_same(reply, start)
            content = b""
            stop = min(last * BLOCK, self.size)
            for piece in reply.pieces:
                content += piece
                if len(content) >= stop - start:
                    break
        self.requests += 1
        self.bytes_read += len(content)
        if len(content) != stop - start:
            raise RemoteError(f"{self._remote}: the answer was cut; try again")
        blocks = {n: content[(n - first) * BLOCK : (n - first + 1) * BLOCK] for n in range(first, last)}
        for number, block in list(blocks.items())[-_MOST_BLOCKS:]:
            self._blocks[number] = block
        while len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)
        return blocks

    def _require_same(self, reply: Reply, start: int) -> None:
        if self._state is None:
            if not reply.is_range or reply.state.size is None:
                raise NoRangesError
            self._state, self.size = reply.state, reply.state.size
        if reply.state != self._state or reply.start != start:
            raise RemoteError(f"{self._remote}: has changed while it was read; try again")


class RangeFile(io.RawIOBase):
    """A far file for HDF5, which drops what is raised while it reads; so that is noted here.

    Attributes
    ----------
    failure : BaseException or None
        What ended the first read that failed; all after it fail as well.
    """

    def __init__(self, ranges: Ranges) -> None:
        self._ranges, self._place = ranges, 0
        self.failure: BaseException | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; `io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._ranges.size}[whence]
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes; raises OSError after a failure."""
        view = memoryview(buffer).cast("B")
        if self.failure is not None:
            raise OSError("an earlier read has failed")
        try:
            content = self._ranges.read(self._place, self._place + len(view))
        except BaseException as error:
            self.failure = error
            raise OSError("the far file cannot be read") from error
        view[: len(content)] = content
        self._place += len(content)
        return len(content)
