"""Random changes of sound inputs, in a process of its own that may die or hang."""

from __future__ import annotations

import faulthandler
import mmap
import os
import random
import resource
import select
import signal
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .outcomes import KINDS, REFUSED, RIGHT, WRONG, Outcome
from .targets import target_class
from .targets.base import Target

__all__ = ["Tally", "fuzz", "replay"]

HANGS = 60.0
"""Seconds after which an input counts as one that never ends."""
MEMORY = 3 * 2**30
"""Bytes that a process may take beside what it has when it begins."""
LARGEST = 2**22
# How often an input is one of before that was right, changed once more.
POOL, OF_POOL = 200, 0.5


@dataclass
class Tally:
    """What became of the inputs of one target."""

    right: int = 0
    refused: int = 0
    wrong: int = 0
    seconds: float = 0.0
    findings: list[tuple[bytes, str]] = field(default_factory=list)
    features: int | None = None

    @property
    def tried(self) -> int:
        """How many there were."""
        return self.right + self.refused + self.wrong

    def count(self, data: bytes, outcome: Outcome) -> None:
        """Note an outcome; what is wrong is kept, once for each reason."""
        setattr(self, outcome.kind, getattr(self, outcome.kind) + 1)
        if outcome.kind == WRONG and outcome.reason not in {reason for _, reason in self.findings}:
            self.findings.append((data, outcome.reason))


def fuzz(name: str, seed: int, *, seconds: float | None = None, inputs: int | None = None) -> Tally:
    """Try changed inputs on a target, for some time or so many.

    Where an input ends the process, or never ends, a new process goes on with the next.
    """
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _shared() as current:
        while True:
            left = None if seconds is None else seconds - (time.monotonic() - began)
            if (left is not None and left <= 0) or (inputs is not None and tally.tried >= inputs):
                break
            more = None if inputs is None else inputs - tally.tried
            part = Path(tempfile.mkdtemp(dir=folder))
            _one_process(name, f"{seed} {tally.tried}", part, current, tally, left, more)
    tally.seconds = time.monotonic() - began
    return tally


def replay(name: str, data: bytes) -> Outcome:
    """Return what becomes of one input, in a process of its own."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, _shared() as current:
        _one_process(name, data, Path(folder), current, tally, None, 1)
    if tally.findings:
        return Outcome(WRONG, tally.findings[0][1])
    return Outcome(RIGHT if tally.right else REFUSED)


@contextmanager
def _shared() -> Iterator[mmap.mmap]:
    """Memory that parent and child share, so that the input that ended a process is not lost."""
    with mmap.mmap(-1, LARGEST + 8) as shared:
        yield shared


def _put(current: mmap.mmap, data: bytes) -> None:
    current[8 : 8 + len(data)] = data
    current[:8] = struct.pack("<Q", len(data))


def _get(current: mmap.mmap) -> bytes:
    size = struct.unpack("<Q", current[:8])[0]
    return current[8 : 8 + size]


def _one_process(
    name: str,
    work: str | bytes,
    folder: Path,
    current: mmap.mmap,
    tally: Tally,
    seconds: float | None,
    inputs: int | None,
) -> None:
    """Run a child until it is through or dead; `work` is a seed, or the one input."""
    # Imported here, so that no child imports it again.
    target_class(name)
    _put(current, b"")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Since 3.12 Python warns where libraries hold threads, which wait and do nothing here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(reading)
        _child(name, work, folder, current, writing, seconds, inputs)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        hung = _listen(pipe.fileno(), child, current, tally)
    status = os.waitpid(child, 0)[1]
    if hung or status:
        why = f"took longer than {HANGS:.0f} s" if hung else _how_it_ended(status)
        tally.count(_get(current), Outcome(WRONG, f"the process {why}"))


def _how_it_ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}"


def _listen(pipe: int, child: int, current: mmap.mmap, tally: Tally) -> bool:
    """Note outcomes until the child closes the pipe; True if it had to be killed."""
    buffer = b""
    while True:
        if not select.select([pipe], [], [], HANGS)[0]:
            os.kill(child, signal.SIGKILL)
            return True
        some = os.read(pipe, 65536)
        if not some:
            return False
        buffer += some
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            number, _, rest = line.partition(b" ")
            kind = KINDS[int(number)]
            data, _, reason = rest.partition(b" ")
            tally.count(bytes.fromhex(data.decode()), Outcome(kind, reason.decode()))


def _child(
    name: str,
    work: str | bytes,
    folder: Path,
    current: mmap.mmap,
    pipe: int,
    seconds: float | None,
    inputs: int | None,
) -> None:
    """Prepare the target and try inputs; never returns."""
    status = 1
    try:
        # Death is told by the parent, in one line.
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        target = target_class(name)(folder)
        _limit_memory()
        for data in _inputs(target, work, seconds, inputs):
            _put(current, data)
            outcome = target(data)
            found = f" {data.hex()} {' '.join(outcome.reason.split())}" if outcome.kind == WRONG else ""
            os.write(pipe, f"{KINDS.index(outcome.kind)}{found}\n".encode(errors="backslashreplace"))
        status = 0
    finally:
        os._exit(status)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        bound = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (bound, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _inputs(target: Target, work: str | bytes, seconds: float | None, inputs: int | None) -> Iterator[bytes]:
    if isinstance(work, bytes):
        yield work
        return
    source, pool, number = random.Random(work), list(target.seeds), 0
    yield from target.seeds[:inputs]
    end = None if seconds is None else time.monotonic() + seconds
    number = len(target.seeds)
    while (end is None or time.monotonic() < end) and (inputs is None or number < inputs):
        before = source.choice(pool if source.random() < OF_POOL else target.seeds)
        data = target.changed(before, source)[:LARGEST]
        yield data
        number += 1
        # A change that did no harm may be half of one that does.
        if len(pool) < POOL:
            pool.append(data)
        else:
            pool[source.randrange(len(target.seeds), POOL)] = data
