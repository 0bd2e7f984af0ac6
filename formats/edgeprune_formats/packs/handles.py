"""The open HDF5 files of a pack: each thread of each process has its own.

Of all packs together a thread has a bounded number open; the one used longest ago is closed for another.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from ..errors import PackChecksumError, PackLayoutError, Problem, one_line
from ..hdf5 import open_hdf5
from .chunks import StoredField

__all__ = ["Handles", "OpenFile", "changed", "open_file", "room_for_files"]

_MOST_FILES = 64
_NO_ROOM = (errno.EMFILE, errno.ENFILE)


def open_file(path: Path) -> h5py.File:
    """Open the HDF5 file of a pack.

    Raises
    ------
    PackChecksumError
        HDF5 cannot open it.
    OSError
        The process, or the system, has no room for another open file.
    """
    with room_for_files(path):
        try:
            return open_hdf5(path)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            text = one_line(error)
    reason = "the file is cut short" if "truncated" in text else f"HDF5 cannot open it ({text})"
    raise PackChecksumError(path, Problem("checksum", "/", f"{reason}; copy or build the pack again"))


@contextlib.contextmanager
def room_for_files(path: Path) -> Iterator[None]:
    """Say what to do where the process, or the system, has no room for another open file."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        reason = "too many open files; close some, or raise the limit with ulimit -n"
        raise OSError(error.errno, reason, str(path)) from None


def changed(path: Path) -> PackLayoutError:
    """Return the error of a file that is no longer the one that was opened."""
    message = "the file has changed since it was opened; open the pack again"
    return PackLayoutError(path, Problem("layout", "/", message))


class OpenFile:
    """An open file, and what has been opened within.

    Attributes
    ----------
    lock : threading.RLock
        Held by the thread that reads, and by one that closes.
    closed : bool
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.fields: dict[str, StoredField] = {}
        self.lock = threading.RLock()
        self.closed = False

    def close(self) -> None:
        """Close it once its thread has read what it is reading; raises what HDF5 maps damage to."""
        with self.lock:
            self.closed = True
            self.fields.clear()
            self.file.close()


def _most_files() -> int:
    """Return how many files a thread may have open, so that all take a quarter of what the process may."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    each = _MOST_FILES if allowed == resource.RLIM_INFINITY else allowed // (4 * (os.cpu_count() or 1))
    return max(2, min(each, _MOST_FILES))


class _Recent(threading.local):
    """The files that a thread has open, of all packs, the one used longest ago first."""

    def __init__(self) -> None:
        self._most = _most_files()
        self.process = os.getpid()
        self.files: OrderedDict[int, weakref.ref[OpenFile]] = OrderedDict()

    def use(self, opened: OpenFile) -> None:
        """Note that a file is used, and close those used longest ago where there are too many."""
        if self.process != os.getpid():
            # Inherited through a fork: the parent's files are not closed here.
            self.__init__()  # type: ignore[misc]
        self.files[id(opened)] = weakref.ref(opened)
        self.files.move_to_end(id(opened))
        while len(self.files) > self._most:
            oldest = self.files.popitem(last=False)[1]()
            if oldest is not None:
                oldest.close()


_recent = _Recent()


class Handles:
    """The open HDF5 files of one pack, one for each thread of the present process."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._local = threading.local()
        self._lock = threading.Lock()
        # A thread's file goes with the thread.
        self._open: weakref.WeakSet[OpenFile] = weakref.WeakSet()

    @contextlib.contextmanager
    def reading(self, open_file: Callable[[], h5py.File]) -> Iterator[OpenFile]:
        """Give the file that this thread has open, or opens now; nobody closes it within the block."""
        while True:
            opened = self._get() or self._put(OpenFile(open_file()))
            with opened.lock:
                # Another thread may have closed it just before.
                if not opened.closed:
                    _recent.use(opened)
                    yield opened
                    return
            self._local.opened = None

    def _get(self) -> OpenFile | None:
        if self._process != os.getpid():
            # Inherited through a fork: the parent's handles are dropped here, never read from.
            self._forget()
        return getattr(self._local, "opened", None)

    def _put(self, opened: OpenFile) -> OpenFile:
        self._local.opened = opened
        with self._lock:
            self._open.add(opened)
        return opened

    def close(self) -> None:
        """Close the files of all threads of this process; raises what HDF5 maps damage to."""
        if self._process != os.getpid():
            self._forget()
        with self._lock:
            files = list(self._open)
            self._open.clear()
        failures = []
        for opened in files:
            try:
                opened.close()
            except Exception as error:
                failures.append(error)
        for failure in failures:
            raise failure
