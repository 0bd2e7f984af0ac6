"""The most disk and memory that a process takes, and those that it starts, looked at while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..harness.process import printed_by

__all__ = ["Watched", "watch"]

SECONDS = 0.2
# What is no disk.
_IN_MEMORY = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero")  # noqa: S108


@dataclass
class Watched:
    """What a process printed, and the peaks that were seen.

    Attributes
    ----------
    printed : Any
        The JSON of its last line.
    temporary_bytes : int
        On disk in the folder of the pack, without the pack itself, be it under its name or still being
        written; with files that have no name any more.
    disk_bytes : int
        The same with the pack.
    tasks_mib : float
        The peaks of the process and of the Ray tasks that ran at the same time, added up.
    all_mib : float
        The memory of the process and of all that it started.
    """

    printed: Any = None
    temporary_bytes: int = 0
    disk_bytes: int = 0
    tasks_mib: float = 0.0
    all_mib: float = 0.0
    _tasks: set[int] = field(default_factory=set)

    def look(self, root: int, pack: Path, *, family: bool) -> None:
        """Take the present figures into the peaks; `family`: also of the processes that `root` started."""
        processes = [root, *(_descendants(root) if family else ())]
        own, others = _on_disk(pack)
        others += _without_a_name(processes)
        self.temporary_bytes = max(self.temporary_bytes, others)
        self.disk_bytes = max(self.disk_bytes, own + others)
        if family:
            self._tasks |= {one for one in processes if _command(one).startswith(b"ray::_build_share")}
            peaks = [_memory(one, "VmHWM") for one in processes if one == root or one in self._tasks]
            self.tasks_mib = max(self.tasks_mib, sum(peaks))
            self.all_mib = max(self.all_mib, sum(_memory(one, "VmRSS") for one in processes))


def watch(name: str, words: list[str], pack: Path, *, family: bool = False, **variables: str) -> Watched:
    """Run this Python with some arguments, and look every 0.2 s at what it takes.

    Parameters
    ----------
    name : str
        What is measured, for the message of an error.
    words : list of str
        ``-c`` or ``-m`` and what follows it. The process prints JSON in its last line.
    pack : Path
        What it writes, in a folder of its own.
    family : bool
        Look at the processes that it starts as well.
    variables : str
        Of the environment, beside those of this process.

    Raises
    ------
    EdgePruneError
        The process failed; its last line of errors.
    """
    found = Watched()
    with subprocess.Popen(  # noqa: S603
        [sys.executable, *words],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, err = _outputs(process, found, pack, family)
        except BaseException:
            process.terminate()
            raise
    found.printed = printed_by(name, process.returncode, out, err)
    return found


def _outputs(process: subprocess.Popen[str], found: Watched, pack: Path, family: bool) -> tuple[str, str]:
    while True:
        found.look(process.pid, pack, family=family)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=SECONDS)


def _on_disk(pack: Path) -> tuple[int, int]:
    """Return the bytes of a pack, or of what becomes it, and those of everything else in its folder."""
    own = others = 0
    for folder, _, names in os.walk(pack.parent):
        place = Path(folder)
        is_private = place.parent == pack.parent and place.name.endswith(".partial")
        for name in names:
            with suppress(FileNotFoundError):
                size = _allotted(place / name)
                if name == pack.name and (place == pack.parent or is_private):
                    # For a moment it has both names.
                    own = max(own, size)
                else:
                    others += size
    return own, others


def _without_a_name(processes: list[int]) -> int:
    """Return the bytes of files on disk that these processes hold open and that nobody else can find."""
    found: dict[tuple[int, int], int] = {}
    for process in processes:
        for descriptor in _listed(f"/proc/{process}/fd"):
            with suppress(OSError):
                target = str(Path(descriptor).readlink())
                if target.endswith(" (deleted)") and not target.startswith(_IN_MEMORY):
                    # Of the open file: the name that the link gives leads nowhere.
                    status = Path(descriptor).stat()
                    found[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return sum(found.values())


def _allotted(path: Path) -> int:
    """Return the bytes that the disk gives to a file; one with holes is longer."""
    return 512 * path.lstat().st_blocks


def _listed(folder: str) -> list[str]:
    with suppress(OSError):
        return [f"{folder}/{name}" for name in os.listdir(folder)]  # noqa: PTH208
    return []


def _descendants(root: int) -> Iterator[int]:
    parents: dict[int, list[int]] = {}
    for folder in _listed("/proc"):
        number = folder.rpartition("/")[2]
        if number.isdecimal():
            with suppress(OSError):
                # The name of the program, in brackets, may hold anything.
                rest = Path(folder, "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(rest[1]), []).append(int(number))
    waiting = list(parents.get(root, ()))
    while waiting:
        process = waiting.pop()
        waiting += parents.get(process, ())
        yield process


def _command(process: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def _memory(process: int, name: str) -> float:
    """Return a figure of a process's memory in MiB; 0 of one that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0
