"""Running the command line, or a function, in a forked child, which need not import anything again."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Done", "edgeprune", "in_child", "preload", "script"]

# What users of the shell have; a signal that this process handles is no matter of its children.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE)
CRASHED = 70
# Bytes of output that are looked at.
SAID = 1 << 24


@dataclass(frozen=True)
class Done:
    """What a child has left.

    Attributes
    ----------
    code : int or None
        Its exit status, negative for a signal, None if it was stopped at its limit of time.
    out, err : str
        What it printed, as its encoding has it.
    seconds : float
    """

    code: int | None
    out: str
    err: str
    seconds: float


def preload() -> None:
    """Import what commands import, once for all children; torch stays at one thread, so that it may fork."""
    import h5py  # noqa: F401
    import scipy.fft  # noqa: F401
    import torch
    import torchvision  # noqa: F401
    from PIL import Image

    from edgeprune.packs import build  # noqa: F401
    from edgeprune.training import setup  # noqa: F401

    Image.init()
    torch.set_num_threads(1)


def in_child(
    work: Callable[[], object],
    folder: Path,
    *,
    limit: float = 60.0,
    encoding: str = "utf-8",
    watch: Callable[[int], object] | None = None,
    is_read: bool = True,
) -> Done:
    """Fork, run some work in a folder, and return what it printed and how it ended.

    Parameters
    ----------
    work : callable
        Ended by SystemExit, or by an exception, of which the traceback is printed.
    folder : Path
        Its current folder.
    limit : float
        Seconds; it is killed then, with all that it has started.
    encoding : str
        Of its standard output and error.
    watch : callable, optional
        Given its process number at once, e.g. to send it a signal.
    is_read : bool
        Whether its standard output is read; else it is a pipe whose reader has gone.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        child = os.fork()
        if not child:
            _become(folder, (out.fileno() if is_read else _broken_pipe(), err.fileno()), encoding)
            _work(work)
        if watch is not None:
            watch(child)
        code = _wait(child, started + limit)
        seconds = time.monotonic() - started
        said = [os.pread(file.fileno(), SAID, 0).decode(encoding, "replace") for file in (out, err)]
    return Done(code, said[0], said[1], seconds)


def _become(folder: Path, outputs: tuple[int, int], encoding: str) -> None:
    os.setsid()
    faulthandler.disable()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, descriptor in enumerate(outputs, 1):
        os.dup2(descriptor, stream)
    sys.stdout = sys.__stdout__ = _stream(1, encoding, "strict")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, encoding, "backslashreplace")  # type: ignore[misc]
    os.chdir(folder)
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


def _broken_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _stream(number: int, encoding: str, errors: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(open(number, "wb", closefd=False), encoding, errors, write_through=True)


def _work(work: Callable[[], object]) -> NoReturn:
    code: Any = CRASHED
    try:
        work()
        code = 0
    except SystemExit as ended:
        code = 0 if ended.code is None else ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _wait(child: int, end: float) -> int | None:
    """Return the exit status of a child; kill its group at the end of its time."""
    pause = 0.001
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    # It may not have come to be a group yet.
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def edgeprune(words: Sequence[object], environment: Mapping[str, str] | None = None) -> None:
    """Run the command line in this process, which it ends."""
    from edgeprune import cli

    os.environ.update(environment or {})
    sys.argv = ["edgeprune", *map(str, words)]
    cli.main()


def script(function: Callable[[], object], refusals: tuple[type[Exception], ...]) -> None:
    """Run a function as a user's short script, which prints what it is refused with."""
    try:
        function()
    except refusals as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
