"""Lock files, which the system frees when the process that holds one ends, however it does."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

__all__ = ["LOCK_FILE", "open_lock"]

LOCK_FILE = ".lock"
"""The name of the lock of a folder."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, 524}


def open_lock(path: Path) -> tuple[int, bool | None]:
    """Open a lock file, which is made if it is missing, and try to lock it; a link is not followed.

    Returns
    -------
    descriptor : int
        Whoever closes it, or ends, frees the lock.
    locked : bool or None
        False where somebody else holds the lock, None where the file system has no locks.

    Raises
    ------
    OSError
        The file cannot be opened, or is a symbolic link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return descriptor, False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return descriptor, None
        os.close(descriptor)
        raise
    return descriptor, True
