"""Opening and verifying a pack on this machine: what is checked of a file before anything is read from it."""

from __future__ import annotations

from pathlib import Path

from ..errors import DefectError, PackFormatError, Problem, error_for
from ..isolation import Identity, examine, identity_of, require_safe
from .handles import changed, open_file, room_for_files
from .inspection import Contents, inspect, must_be_plain, signature_problem
from .reader import Pack

__all__ = ["open_local", "verify_local", "verify_trusted"]


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


def open_local(path: Path, isolated: bool | None) -> Pack:
    """Open a pack; see `edgeprune_formats.open_pack`."""
    with room_for_files(path):
        identity = identity_of(path)
        contents = _inspect_file(path, identity, _safe(path, isolated))
    for problem in contents.problems:
        raise error_for(path, problem)
    return Pack(path, identity, contents)


def verify_local(path: Path, isolated: bool | None) -> list[Problem]:
    """List every problem of a pack; see `edgeprune_formats.verify_pack`."""
    try:
        with room_for_files(path):
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
