"""Files that appear whole or not at all: written in a private folder beside the final name, then renamed.

The private folder is new, has a random name, and holds a lock file that its writer keeps locked. So no link
that somebody has put there is followed, and whoever writes the same file next can tell, whatever the host or
the container, whether the writer still lives: a folder that nobody has locked is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import h5py

from .errors import PackWriteError
from .hdf5 import create_hdf5
from .locks import LOCK_FILE, open_lock

__all__ = [
    "Sink",
    "atomic_file",
    "atomic_hdf5",
    "check_free_space",
    "check_writable",
    "file_sha256",
    "partial_folder",
    "publish",
    "read_regular",
    "replacing",
    "shielded",
    "sweep",
    "sync",
    "write_error",
]

# Room for labels, checksums, provenance and HDF5's own records.
OVERHEAD_BYTES = 2**20
NO_PERMISSION = "no permission to write there; choose another folder"
_MAX_NAME_BYTES = 255
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, 524}
# Where nothing can be locked, what nobody has changed for so long is taken for dead.
_DEAD_SECONDS = 86_400.0


def check_writable(path: Path) -> None:
    """Raise `PackWriteError` if no pack can be written under this name, whatever its size."""
    try:
        # Of /dev/stdout and its like the link itself would be replaced, where a file is behind it.
        link = path.readlink() if path.is_symlink() else path
        is_stream = "/proc" in (*map(str, link.parents), *map(str, path.parent.resolve().parents))
        is_folder, is_other = path.is_dir(), is_stream or (path.exists() and not path.is_file())
        has_parent = path.parent.is_dir()
    except OSError as error:
        raise write_error(path, error) from error
    if is_folder:
        raise PackWriteError(f"{path}: is a folder; name a file")
    if is_other:
        raise PackWriteError(f"{path}: is a device or pipe; name a file")
    if not has_parent:
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


def _prefix(path: Path) -> str:
    """Return what the names of the private folders of a file begin with."""
    name = path.name
    if len(os.fsencode(name)) > _MAX_NAME_BYTES - len("..0123456789abcdef.partial"):
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}."


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Give a new private folder beside `path`, on the same disk, which goes away with all that it holds.

    What a process that was killed has left of the same file is removed before.

    Raises
    ------
    OSError
        It cannot be made.
    """
    sweep(path)
    folder, lock = _new_folder(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _new_folder(path: Path) -> tuple[Path, int]:
    while True:
        folder = path.with_name(f"{_prefix(path)}{secrets.token_hex(8)}.partial")
        folder.mkdir(0o700)
        try:
            lock, locked = open_lock(folder / LOCK_FILE)
        except FileNotFoundError:
            continue
        if locked is not False and (folder / LOCK_FILE).exists():
            return folder, lock
        # Another process took it for one that is left behind, in the moment before it was locked.
        os.close(lock)


def sweep(path: Path) -> None:
    """Remove the private folders of a file whose writers, on whatever host, have ended."""
    pattern = re.compile(re.escape(_prefix(path)) + r"[0-9a-f]{16}\.partial")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        names = [one.name for one in entries if pattern.fullmatch(one.name)]
        for name in names:
            _remove_dead(path.with_name(name))


def _remove_dead(folder: Path) -> None:
    with contextlib.suppress(OSError):
        changed = folder.lstat().st_mtime
        if folder.is_symlink() or not folder.is_dir():
            return
        lock, locked = open_lock(folder / LOCK_FILE)
        try:
            if locked or (locked is None and time.time() - changed > _DEAD_SECONDS):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


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
    if error.errno == errno.EEXIST:
        return PackWriteError(f"{path}: another process has made it in the meantime; choose another name")
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "errno = 28" in text:
        return PackWriteError(f"{path}: the disk is full; free some space or write elsewhere")
    if error.errno == errno.EFBIG:
        return PackWriteError(f"{path}: the file system takes no file so large; write elsewhere")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or "Permission denied" in text:
        return PackWriteError(f"{path}: {NO_PERMISSION}")
    return PackWriteError(f"{path}: cannot be written ({error.strerror or text})")


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the block ends, and let their handlers act then.

    HDF5 writes through a Python object, and drops what a handler raises while it does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, note) for number in numbers}
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


def publish(partial: Path, path: Path, *, is_new: bool, in_transaction: bool = False) -> None:
    """Give a complete file its name; it is on the disk before, and its name before this returns.

    Parameters
    ----------
    partial, path : Path
        On the same disk.
    is_new : bool
        Whether there was no `path` when the work began; one that has come since is then not replaced.
    in_transaction : bool
        The caller has waited until the disk has the content, and will wait until it has the name.

    Raises
    ------
    FileExistsError
        Another process has made `path` in the meantime.
    OSError
        The file cannot be put on the disk or renamed.
    """
    if not in_transaction:
        sync(partial)
    if is_new:
        _link(partial, path)
    else:
        os.replace(partial, path)  # noqa: PTH105 - tests make this call fail
    if not in_transaction:
        sync(path.parent)


def _link(partial: Path, path: Path) -> None:
    """Name a file, unless there is one of that name; the first name goes away with its folder."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A disk without hard links, such as FAT: as near as it gets.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(partial, path)  # noqa: PTH105


@contextlib.contextmanager
def replacing(path: Path, partial: Path) -> Iterator[None]:
    """Let the `with` block write the file `partial`, which then takes the name `path`, whole or not at all.

    An older file is replaced, but not one that another process makes during the block.

    Raises
    ------
    OSError
        As `publish`.
    """
    is_new = not os.path.lexists(path)
    yield
    publish(partial, path, is_new=is_new)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a name to write a file under, which gets its own when the block ends, whole or not at all.

    Raises
    ------
    PackWriteError
        The file cannot be written: no such folder, no permission, disk full, or another process has made it
        during the block.
    """
    check_writable(path)
    try:
        with partial_folder(path) as folder, replacing(path, folder / path.name):
            yield folder / path.name
    except OSError as error:
        raise write_error(path, error) from error


@contextlib.contextmanager
def atomic_hdf5(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file to fill, which appears under its name when the block ends, whole or not at all.

    SIGINT, SIGTERM and SIGHUP wait until then.

    Raises
    ------
    PackWriteError
        The file cannot be written: no such folder, no permission, disk full.
    """
    with atomic_file(path) as partial, shielded(), Sink(partial, "w+") as sink:
        with create_hdf5(sink) as file:
            yield file
        if sink.failure is not None:
            raise sink.failure


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a regular file; a pipe or a device is never waited for.

    Parameters
    ----------
    path : Path
    limit : int
        Bytes that it may have.

    Raises
    ------
    OSError
        It cannot be read, is not a regular file, or is larger.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} B", str(path))
        return file.read(limit)


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
