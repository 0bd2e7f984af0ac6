"""The open HDF5 files of a pack: each thread of each process has its own.

Of all packs together a thread has a bounded number open; the one used longest ago is closed for another.
"""

from __future__ import annotations

import os
import resource
import threading
import weakref
from collections import OrderedDict

import h5py

from .chunks import StoredField

__all__ = ["Handles", "OpenFile"]

_MOST_FILES = 64


class OpenFile:
    """An open file, and what has been opened within."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.fields: dict[str, StoredField] = {}

    def close(self) -> None:
        """Close the file."""
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
        # A thread's file goes with the thread.
        self._open: weakref.WeakValueDictionary[int, OpenFile] = weakref.WeakValueDictionary()

    def get(self) -> OpenFile | None:
        """Return the file that this thread has open, or None; it counts as used."""
        if self._process != os.getpid():
            # Inherited through a fork: the parent's handles are dropped here, never read from.
            self._forget()
        opened: OpenFile | None = getattr(self._local, "opened", None)
        if opened is None or not opened.file:
            return None
        _recent.use(opened)
        return opened

    def put(self, opened: OpenFile) -> OpenFile:
        """Keep and return the file that this thread has opened."""
        self._local.opened = opened
        self._open[threading.get_ident()] = opened
        _recent.use(opened)
        return opened

    def close(self) -> None:
        """Close the files of all threads of this process."""
        if self._process == os.getpid():
            for opened in list(self._open.values()):
                opened.close()
        self._forget()
