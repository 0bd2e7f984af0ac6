"""Letting another process open a file first, so that a file that kills its reader kills only that one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from .codecs import codec_modules
from .errors import ConfigError, DefectError, Problem
from .structure import mostly_holes, why_not_plain

__all__ = ["Identity", "examine", "identity_of", "require_safe"]

Identity = tuple[int, int, int, int]
# Files that a process has opened and lived; while they stay as they are, they are not examined again.
_SURVIVED: set[tuple[Path, Identity]] = set()

# Processor seconds, and how many more a byte of the file adds; WAITING times as many may pass by the clock.
SECONDS, VERIFY_SECONDS = 20, 60
SECONDS_PER_BYTE, VERIFY_SECONDS_PER_BYTE = 1e-8, 1e-5
WAITING = 5
# Bytes of address space beside this many times the file.
MEMORY, VERIFY_MEMORY, MEMORY_PER_BYTE = 2**31, 2**33, 16
# Nothing of the present folder or the environment decides what is imported there: relative entries of the
# path, which an interactive Python has, mean the folder in which it was when it imported this.
try:
    _FOLDER = os.getcwd()  # noqa: PTH109
except OSError:  # it was removed
    _FOLDER = ""
CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
CHILD += "from edgeprune_formats.packs.isolated import main; main(sys.argv[2:])"
_DO_NOT = "do not use it; get it again from whoever made it"


def identity_of(path: Path) -> Identity:
    """Return what changes when a file does: its size first, time of change, and where it lies."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def require_safe(path: Path, isolated: bool | None) -> str | None:
    """Make sure that HDF5 can open a file in this process, and return why it is not plain; None if it is.

    Parameters
    ----------
    path : Path
    isolated : bool or None
        None: a process of its own opens the file first, unless it is plain; True: it reads and verifies all
        of it; False: the file is trusted, and called plain.

    Raises
    ------
    ConfigError
        This program cannot start another Python.
    DefectError
        The file is not safe, or with `isolated` not sound.
    OSError
        It cannot be read.
    """
    if mostly_holes(path):
        raise DefectError("limit", "/", "most of the file was never written; copy or build it again")
    if isolated is False:
        return None
    reason, known = why_not_plain(path), (path.absolute(), identity_of(path))
    if isolated or (reason is not None and known not in _SURVIVED):
        for problem in examine(path, verify=bool(isolated)):
            raise DefectError(problem.kind, problem.location, problem.message)
        _SURVIVED.add(known)
    return reason


def examine(path: Path, *, verify: bool = False) -> list[Problem]:
    """Let a process of its own open a file, look at every object and, with `verify`, verify it as a pack.

    That process has little memory and time, by the size of the file, and leaves no core file.

    Parameters
    ----------
    path : Path
    verify : bool
        Read and check everything, as `edgeprune_formats.verify_pack`.

    Returns
    -------
    list of Problem
        That the process died of the file or took too long or too much; with `verify` what it found. []: none.

    Raises
    ------
    ConfigError
        This program cannot start another Python.
    """
    size = path.stat().st_size
    seconds = int((VERIFY_SECONDS if verify else SECONDS) + size * _per_byte(verify))
    memory = (VERIFY_MEMORY if verify else MEMORY) + MEMORY_PER_BYTE * size
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that runs this
            _command(path, "verify" if verify else "open", seconds, memory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WAITING * seconds,
            # Each thread of a linear algebra library would reserve address space.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [_unsafe(f"took longer than {WAITING * seconds} s")]
    if done.returncode == -signal.SIGXCPU:
        return [_unsafe(f"took longer than {seconds} s")]
    if done.returncode < 0:
        return [_unsafe(f"ended by signal {-done.returncode}")]
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return [_unsafe("ended without an answer")]
    if found is None:
        return [_unsafe(f"needed more than {memory / 1e9:.0f} GB of memory")]
    return [Problem(*problem) for problem in found]


def _per_byte(verify: bool) -> float:
    return VERIFY_SECONDS_PER_BYTE if verify else SECONDS_PER_BYTE


def _command(path: Path, mode: str, seconds: int, memory: int) -> list[str]:
    if not sys.executable:
        raise ConfigError(f"{path}: no Python to look at it in a process of its own; pass `isolated=False`")
    limits = [mode, str(seconds), str(memory), *codec_modules()]
    found = (os.path.join(_FOLDER, entry) for entry in sys.path)  # noqa: PTH118 - "" is the folder itself
    places = [place for place in found if os.path.isabs(place)]  # noqa: PTH117
    return [sys.executable, "-I", "-c", CHILD, json.dumps(places), str(path.absolute()), *limits]


def _unsafe(what: str) -> Problem:
    return Problem(
        "layout", "/", f"HDF5 cannot read this file safely: the process that tried {what}; {_DO_NOT}"
    )
