"""The open HDF5 files of a pack: each thread of each process has its own."""

from __future__ import annotations

import os
import threading
import weakref

import h5py

from .chunks import StoredField

__all__ = ["Handles", "OpenFile"]


class OpenFile:
    """An open file, and what has been opened within."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.fields: dict[str, StoredField] = {}


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
        """Return the file that this thread has open, or None."""
        if self._process != os.getpid():
            # Inherited through a fork: the parent's handles are dropped here, never read from.
            self._forget()
        return getattr(self._local, "opened", None)

    def put(self, opened: OpenFile) -> OpenFile:
        """Keep and return the file that this thread has opened."""
        self._local.opened = opened
        self._open[threading.get_ident()] = opened
        return opened

    def close(self) -> None:
        """Close the files of all threads of this process."""
        if self._process == os.getpid():
            for opened in list(self._open.values()):
                opened.fields.clear()
                opened.file.close()
        self._forget()
