"""Opening a pack, and verifying one: what is checked of a file before anything is read from it."""

from __future__ import annotations

from pathlib import Path

from ..errors import DefectError, PackFormatError, Problem, error_for
from ..isolation import Identity, examine, identity_of, require_safe
from ..remote.locations import PackPath, RemoteFile, as_remote
from .handles import changed, open_file
from .inspection import Contents, inspect, must_be_plain, signature_problem
from .reader import Pack

__all__ = ["open_pack", "verify_pack", "verify_trusted"]


def _safe(path: Path, isolated: bool | None) -> str | None:
    """As `require_safe`; raises `PackFormatError` of a file that is no pack, or not safe."""
    problem = signature_problem(path)
    if problem is not None:
        raise error_for(path, problem)
    try:
        return require_safe(path, isolated)
    except DefectError as defect:
        raise error_for(path, defect.problem) from None


def _inspect_file(path: Path, identity: Identity, reason: str | None) -> Contents:
    """Return what a file holds, among whose problems is why it is not plain, where it must be."""
    file = open_file(path)
    contents = inspect(file, identity[0])
    contents.attempt(file.close, "/")
    if reason is not None and contents.header is not None and must_be_plain(contents.header):
        message = f"not stored as EdgePack 1.3 and later must be: {reason}; get it again from whoever made it"
        contents.problems.append(Problem("layout", "/", message))
    if identity_of(path) != identity:
        raise changed(path)
    return contents


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
    path = _local(path)
    identity = identity_of(path)
    contents = _inspect_file(path, identity, _safe(path, isolated))
    for problem in contents.problems:
        raise error_for(path, problem)
    return Pack(path, identity, contents)


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
    path = _local(path)
    try:
        reason = _safe(path, None if isolated is None else False)
        return examine(path, verify=True) if isolated else verify_trusted(path, reason)
    except PackFormatError as error:
        return [error.problem]


def _local(path: PackPath) -> Path:
    assert not isinstance(path, RemoteFile)
    return Path(path)


def verify_trusted(path: Path, reason: str | None) -> list[Problem]:
    """List every problem of a file that HDF5 can open here; `reason` is why it is not plain."""
    identity = identity_of(path)
    try:
        contents = _inspect_file(path, identity, reason)
    except PackFormatError as error:
        return [error.problem]
    if contents.header is None:
        return contents.problems
    with Pack(path, identity, contents) as pack:
        return pack._verify(contents.problems)
