"""Receiving a far file into a part of it on the disk, whatever the connection does."""

from __future__ import annotations

import time
from pathlib import Path

from .locations import RemoteFile
from .progress import FetchLine
from .transport import CutError, Reply, State, Transport, UnreachableError

__all__ = ["ChangedError", "ask", "receive"]

# Before each further try, in seconds; once more bytes than ever are there, they begin anew.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)


class ChangedError(Exception):
    """The far file is another than the part that is here."""


def ask(transport: Transport, start: int = 0, stop: int | None = None) -> Reply:
    """Ask for a file from a byte on, maybe up to another, several times where trouble may pass.

    Raises
    ------
    RemoteError
    """
    for pause in PAUSES:
        try:
            return transport.request(start, stop)
        except CutError:
            time.sleep(pause)
    return transport.request(start, stop)


def receive(remote: RemoteFile, transport: Transport, first: Reply, part: Path) -> None:
    """Write what comes behind the part that is here, and ask for the rest after a cut.

    Without a version and a digest nobody could tell whether the rest belongs to the part: then all is asked
    for again.

    Raises
    ------
    ChangedError
        The far file has changed.
    RemoteError
        The connection is cut again and again.
    OSError
        The part cannot be written.
    """
    state, best, tries = first.state, first.start, 0
    reply: Reply | None = first
    with FetchLine(remote.name, first.start) as line, part.open("r+b" if first.start else "wb", 0) as file:
        done = first.start
        while True:
            try:
                if reply is None:
                    start = done if state.version or remote.sha256 else 0
                    reply = _same(transport.request(start), state)
                with reply:
                    done = file.seek(reply.start)
                    file.truncate()
                    for piece in reply.pieces:
                        file.write(piece)
                        done += len(piece)
                        line(done, state.size)
                if state.size is not None and done > state.size:
                    raise ChangedError
                if state.size is None or done == state.size:
                    return
                raise CutError(f"{remote}: ended after {done:,} of {state.size:,} B; try again")
            except (CutError, UnreachableError) as error:
                reply, tries = None, 0 if done > best else tries + 1
                best = max(best, done)
                if tries > len(PAUSES):
                    raise CutError(*error.args) from None
                line.say("the connection was cut; trying again")
                time.sleep(PAUSES[max(tries - 1, 0)] if PAUSES else 0)


def _same(reply: Reply, state: State) -> Reply:
    if reply.state != state:
        reply.close()
        raise ChangedError
    return reply
