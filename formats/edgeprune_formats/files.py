"""Files that appear whole or not at all: a partial file beside the final name, and what can go wrong."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import itertools
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import h5py

from .errors import PackWriteError

__all__ = [
    "Sink",
    "atomic_file",
    "atomic_hdf5",
    "check_free_space",
    "check_writable",
    "file_sha256",
    "partial_path",
    "replacing",
    "shielded",
    "sweep",
    "sync",
    "write_error",
]

# Room for labels, checksums, provenance and HDF5's own records.
OVERHEAD_BYTES = 2**20
NO_PERMISSION = "no permission to write there; choose another folder"
# Tells the partial files of several writers of one process apart.
_COUNT = itertools.count()


def check_writable(path: Path) -> None:
    """Raise `PackWriteError` if no pack can be written under this name, whatever its size."""
    if path.is_dir():
        raise PackWriteError(f"{path}: is a folder; name a file")
    if path.exists() and not path.is_file():
        raise PackWriteError(f"{path}: is a device or pipe; name a file")
    if not path.parent.is_dir():
        raise PackWriteError(f"{path}: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PackWriteError(f"{path}: {NO_PERMISSION}")


def check_free_space(path: Path, size: int) -> None:
    """Raise `PackWriteError` if the disk has no room for `size` bytes of coefficients."""
    need = size + OVERHEAD_BYTES
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise PackWriteError(
            f"{path}: needs about {need / 1e6:.1f} MB and the disk has {free / 1e6:.1f} MB free; "
            "free some, write elsewhere, or prune more"
        )


def partial_path(path: Path) -> Path:
    """Return the name under which a pack is written until it is complete; no other writer has it."""
    owner = f"{socket.gethostname()}-{os.getpid()}-{next(_COUNT)}"
    return path.with_name(f".{path.name}.{owner}.partial")


def sweep(path: Path) -> None:
    """Remove what writers of the same pack left on this host when they were killed."""
    host = socket.gethostname()
    for stale in path.parent.glob(f".{glob.escape(path.name)}.{host}-*.partial"):
        try:
            os.kill(int(stale.name.removesuffix(".partial").rsplit("-", 2)[-2]), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            with contextlib.suppress(OSError):
                stale.unlink()
        except PermissionError:
            continue


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> PackWriteError:
    """Return the error that tells a user why `path` cannot be written."""
    text = str(error)
    if error.errno == errno.ENOSPC or "No space left" in text or "errno = 28" in text:
        return PackWriteError(f"{path}: the disk is full; free some space or write elsewhere")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in text:
        return PackWriteError(f"{path}: {NO_PERMISSION}")
    return PackWriteError(f"{path}: {text}")


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends, and let their handlers act then.

    HDF5 writes through a Python object, and drops what a handler raises while it does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None stands for a handler that was not set from Python and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for received_number, frame in received:
            handler = previous[signal.Signals(received_number)]
            if callable(handler):
                handler(received_number, frame)
            elif handler != signal.SIG_IGN:
                os.kill(os.getpid(), received_number)


class Sink(io.FileIO):
    """The file under HDF5, which pretends to hold what a full disk could not take.

    HDF5 cannot close a file whose metadata it cannot flush, and crashes the process at exit instead; so a
    write that fails is remembered here, and never reported to HDF5.

    Attributes
    ----------
    failure : OSError or None
        The first write that failed; the file is worthless from then on.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or note why not."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.failure is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.failure = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Read into all of `buffer`, zeros where nothing was ever written."""
        view = memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        view[count:] = bytes(len(view) - count)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or note why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


@contextlib.contextmanager
def replacing(path: Path, partial: Path) -> Iterator[None]:
    """Let the `with` block write the file `partial`, which then takes the name `path`, whole or not at all.

    The file is on the disk before it is renamed, and the name before this returns. If anything fails,
    `partial` is removed.

    Raises
    ------
    OSError
        The file cannot be put on the disk or renamed.
    """
    try:
        yield
        sync(partial)
        os.replace(partial, path)  # noqa: PTH105 - tests make this call fail
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a name to write a file under, which gets its own when the block ends, whole or not at all.

    Raises
    ------
    PackWriteError
        The file cannot be written: no such folder, no permission, disk full.
    """
    sweep(path)
    check_writable(path)
    partial = partial_path(path)
    try:
        with replacing(path, partial):
            yield partial
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def atomic_hdf5(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file to fill, which appears under its name when the block ends, whole or not at all.

    SIGINT and SIGTERM wait until then.

    Raises
    ------
    PackWriteError
        The file cannot be written: no such folder, no permission, disk full.
    """
    with atomic_file(path) as partial, shielded(), Sink(partial, "w+") as sink:
        with h5py.File(sink, "w", libver=("v110", "v110")) as file:
            yield file
        if sink.failure is not None:
            raise sink.failure


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits, read in pieces.

    Raises
    ------
    OSError
        It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
