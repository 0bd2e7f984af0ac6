"""Opening a pack, and verifying one: on this machine, or a far one."""

from __future__ import annotations

from pathlib import Path

from ..errors import Problem
from ..remote.locations import PackPath, RemoteFile, as_remote
from .local import open_local, verify_local
from .reader import Pack

__all__ = ["open_pack", "verify_pack"]


def open_pack(path: PackPath, *, isolated: bool | None = None) -> Pack:
    """Open a pack, checking header, labels and structure; samples, scores, targets are checked when read.

    Parameters
    ----------
    path : path, or URL as str
        An EdgePack file (formats/SPEC.md). A far one, such as ``https://...``, ``s3://...`` or ``hf://...``,
        is fetched once to a cache folder (`edgeprune_formats.remote`); ``#sha256=DIGEST`` behind the URL is
        held against its content.
    isolated : bool or None
        Whether a process of its own, with little memory and time, opens the file first, because forged files
        can crash HDF5. None: only if the file is not stored plainly, as packs before 1.3; that process does
        not read all images. True: always, and it verifies all of the file. False: never; the file is trusted.
        Of a far pack None means that such a process verifies all of it once, after it was fetched.

    Returns
    -------
    Pack
        ``len(pack)``, ``pack.header``, ``pack.labels``, ``pack.targets``, ``pack.scores``,
        ``pack.read_chunk(i)``.

    Raises
    ------
    ConfigError
        This program cannot start another Python, which `isolated` needs; or a URL that cannot be one, or
        needs a package that is not installed.
    OSError
        There is no such file, or no permission to read it.
    PackFormatError
        It is not a pack, of an unknown version, damaged or hostile.
    RemoteError
        It cannot be fetched, or its digest is another.
    """
    remote = as_remote(path)
    if remote is not None:
        from .remote import open_fetched

        return open_fetched(remote, isolated)
    return open_local(_local(path), isolated)


def verify_pack(path: PackPath, *, isolated: bool | None = None) -> list[Problem]:
    """Check every byte of a pack that matters and list every problem; an empty list means it is sound.

    Parameters
    ----------
    path : path, or URL as str
        As in `open_pack`. A far pack that is not sound is not kept in the cache.
    isolated : bool or None
        As in `open_pack`. With True all of this happens in a process of its own; of a far pack with None too.

    Raises
    ------
    ConfigError, OSError, RemoteError
        As `open_pack`.
    """
    remote = as_remote(path)
    if remote is not None:
        from .remote import verify_fetched

        return verify_fetched(remote, isolated)
    return verify_local(_local(path), isolated)


def _local(path: PackPath) -> Path:
    assert not isinstance(path, RemoteFile)
    return Path(path)
