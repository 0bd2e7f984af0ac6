"""Far packs: fetched and verified once, or looked into through ranges."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py

from ..errors import Problem, error_for
from ..hdf5 import unreadable
from ..isolation import examine
from ..remote.cache import Cache
from ..remote.fetch import UnsoundError, fetch
from ..remote.locations import RemoteFile
from ..remote.ranges import NoRangesError, RangeFile, Ranges
from ..structure import why_stored_otherwise
from .handles import OpenFile
from .inspection import BEGINNING, Contents, beginning_problem, inspect
from .local import open_local, verify_local
from .reader import Pack

__all__ = ["RangedPack", "look_into", "open_fetched", "verify_fetched"]


def open_fetched(remote: RemoteFile, isolated: bool | None = None) -> Pack:
    """Fetch a far pack, if it is not in the cache, and open it; see `edgeprune_formats.open_pack`."""
    check = partial(examine, verify=True) if isolated is None else None
    try:
        copy = fetch(remote, check)
    except UnsoundError as error:
        raise error_for(str(remote), error.problems[0]) from None
    pack = open_local(copy.path, isolated)
    pack.fetched = copy
    return pack


def verify_fetched(remote: RemoteFile, isolated: bool | None) -> list[Problem]:
    """Fetch a far pack and list its problems; see `edgeprune_formats.verify_pack`."""
    is_isolated = isolated is not False
    try:
        copy = fetch(remote, partial(examine, verify=True) if is_isolated else None)
    except UnsoundError as error:
        return error.problems
    return [] if copy.checked else verify_local(copy.path, is_isolated)


class RangedPack(Pack):
    """A far pack of which only what is read is asked for; use `look_into` to make one.

    It can neither be pickled nor used after a fork.
    """

    def __init__(self, remote: RemoteFile, ranges: Ranges, contents: Contents) -> None:
        super().__init__(Path(remote.name), (ranges.size, 0, 0, 0), contents)
        self.ranges = ranges
        self._files: list[RangeFile] = []

    def close(self) -> None:
        """Close the file and end the connection."""
        super().close()
        self.ranges.close()

    def _open_again(self) -> h5py.File:
        self._files.append(RangeFile(self.ranges))
        return h5py.File(self._files[-1], "r")

    @contextmanager
    def _reading(self) -> Iterator[OpenFile]:
        try:
            with _failures_of(self._files), super()._reading() as opened:
                yield opened
        finally:
            if any(file.failure for file in self._files):
                # All further reads fail as well, and Python must not end with the file open.
                self._handles.close()


@contextmanager
def _failures_of(files: list[RangeFile]) -> Iterator[None]:
    """Raise in the end what ended a read: HDF5 tells only that it could not read."""
    handled = sys.exc_info()[1]
    try:
        yield
    except Exception as error:
        _clear_frames(error, handled)
        raise
    finally:
        for file in files:
            if file.failure is not None:
                raise file.failure


def _clear_frames(error: BaseException | None, handled: BaseException | None) -> None:
    """Let go of what HDF5 has open in the frames of an exception: Python would crash if it ended with that.

    Exceptions that led to it are cleared as well, up to the one that was being handled before.
    """
    while error is not None and error is not handled:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def look_into(remote: RemoteFile, tell: Callable[[str], object]) -> Pack:
    """Open a far pack to read little of it: in ranges, or from the cache where its digest is there.

    It is fetched whole where its server does not know ranges, or where it is not stored as EdgePack 1.3 and
    later must be, so that another process has to look at it first.

    Parameters
    ----------
    remote : RemoteFile
    tell : callable
        Is given a line that says why all of it is fetched.

    Raises
    ------
    ConfigError, RemoteError, PackFormatError
        As `edgeprune_formats.open_pack`.
    """
    if remote.sha256 and Cache().kept(remote.sha256):
        return open_fetched(remote)
    try:
        ranges = Ranges(remote)
    except NoRangesError:
        tell(f"{remote}: its server sends no ranges, so all of it is fetched")
        return open_fetched(remote)
    try:
        pack = _look(remote, ranges)
    except BaseException:
        ranges.close()
        raise
    if pack is not None:
        return pack
    ranges.close()
    tell(f"{remote}: not stored as EdgePack 1.3 and later are, so all of it is fetched and verified first")
    return open_fetched(remote)


def _look(remote: RemoteFile, ranges: Ranges) -> RangedPack | None:
    """Return the pack; None where HDF5 should not open it in this process."""
    problem = beginning_problem(ranges.read(0, BEGINNING))
    if problem is not None:
        raise error_for(str(remote), problem)
    file = RangeFile(ranges)
    with _failures_of([file]):
        reason = why_stored_otherwise(file, ranges.size)
    if reason is not None:
        return None
    contents, handled = Contents(), sys.exc_info()[1]
    with _failures_of([file]):
        try:
            with h5py.File(file, "r") as opened:
                contents = inspect(opened, ranges.size)
        # HDF5 reports damage by whatever exception its binding maps it to.
        except Exception as error:
            _clear_frames(error, handled)
            contents.problems.append(Problem("checksum", "/", unreadable(error)))
    for problem in contents.problems:
        raise error_for(str(remote), problem)
    return RangedPack(remote, ranges, contents)
