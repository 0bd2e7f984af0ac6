"""Opening a pack, and verifying one: what is checked of a file before anything is read from it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DefectError, PackFormatError, Problem, error_for
from ..isolation import Identity, examine, identity_of, require_safe
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


def open_pack(path: str | os.PathLike[str], *, isolated: bool | None = None) -> Pack:
    """Open a pack, checking header, labels and structure; samples, scores, targets are checked when read.

    Parameters
    ----------
    path : path
        An EdgePack file (formats/SPEC.md).
    isolated : bool or None
        Whether a process of its own, with little memory and time, opens the file first, because forged files
        can crash HDF5. None: only if the file is not stored plainly, as packs before 1.3; that process does
        not read all images. True: always, and it verifies all of the file. False: never; the file is trusted.

    Returns
    -------
    Pack
        ``len(pack)``, ``pack.header``, ``pack.labels``, ``pack.targets``, ``pack.scores``,
        ``pack.read_chunk(i)``.

    Raises
    ------
    ConfigError
        This program cannot start another Python, which `isolated` needs.
    OSError
        There is no such file, or no permission to read it.
    PackFormatError
        It is not a pack, of an unknown version, damaged or hostile.
    """
    path = Path(path)
    identity = identity_of(path)
    contents = _inspect_file(path, identity, _safe(path, isolated))
    for problem in contents.problems:
        raise error_for(path, problem)
    return Pack(path, identity, contents)


def verify_pack(path: str | os.PathLike[str], *, isolated: bool | None = None) -> list[Problem]:
    """Check every byte of a pack that matters and list every problem; an empty list means it is sound.

    Parameters
    ----------
    path : path
    isolated : bool or None
        As in `open_pack`. With True all of this happens in a process of its own.

    Raises
    ------
    ConfigError
        This program cannot start another Python, which `isolated` needs.
    OSError
        There is no such file, or no permission to read it.
    """
    path = Path(path)
    try:
        reason = _safe(path, None if isolated is None else False)
        return examine(path, verify=True) if isolated else verify_trusted(path, reason)
    except PackFormatError as error:
        return [error.problem]


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
