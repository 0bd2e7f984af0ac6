"""Commands in forks of the tests' process, which has imported torch already: a start takes seconds less.

What a fork does not try is how a process starts: tests of that start an interpreter of their own.
"""

import os
import signal
import sys
import threading
import traceback
import warnings
from subprocess import PIPE, TimeoutExpired

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from edgeprune.cli import main


def command(*arguments, **options):
    """Start ``edgeprune`` with these arguments; see `Forked`."""

    return Forked(run_command(*arguments), **options)


def run_command(*arguments):
    """Return a function that runs ``edgeprune`` with these arguments."""

    def run():
        sys.argv = ["edgeprune", *map(str, arguments)]
        main()

    return run


def torchrun(function, **options):
    """Start two processes that torchrun watches over, each of which calls the function; see `Forked`.

    A process leaves its number in the folder `pids`, under the name of its rank.
    """
    pids = options.pop("pids", None)

    def entry():
        if pids:
            (pids / os.environ["RANK"]).write_text(str(os.getpid()))
        _begin()
        function()

    def run():
        os.environ["OMP_NUM_THREADS"] = "1"
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=2,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="fork",
        )
        elastic_launch(config, entry)()

    return Forked(run, **options)


class Forked:
    """A function that runs in a fork, with the interface of `subprocess.Popen`.

    Each stream is `PIPE`, a descriptor, or None for this process's own. Signals in `ignored` are ignored,
    as after ``nohup``. SIGINT is not, though a shell has those ignore it that it starts in the background.
    """

    def __init__(self, function, *, stdout=PIPE, stderr=PIPE, ignored=()):
        ends = [os.pipe() if stream is PIPE else (None, stream) for stream in (stdout, stderr)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if not self.pid:
            _run(function, ends, ignored)
        self.returncode = None
        for stream, (_, end) in zip((stdout, stderr), ends, strict=True):
            if stream is PIPE:
                os.close(end)
        self.stdout, self.stderr = (None if end is None else open(end) for end, _ in ends)  # noqa: PTH123, SIM115

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is not None:
            self.kill()
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=120):
        """Wait for its end; kill it where that takes longer than so many seconds."""
        if self.returncode is None:
            late = []
            timer = threading.Timer(timeout, lambda: (late.append(True), self.kill()))
            timer.start()
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            timer.cancel()
            timer.join()
            if late:
                raise TimeoutExpired("a fork of the tests", timeout)
        return self.returncode

    def communicate(self, timeout=120):
        """Wait for its end; return what it said on both streams."""
        said = {}
        readers = [
            threading.Thread(target=lambda name=name: said.__setitem__(name, getattr(self, name).read()))
            for name in ("stdout", "stderr")
            if getattr(self, name)
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return said.get("stdout"), said.get("stderr")


def _run(function, ends, ignored):
    code = 1
    try:
        _set_up(ends, ignored)
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                # As an interpreter ends that cannot write its last words.
                code = code or 120
        os._exit(code)


def _begin():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The threads of a pool are not forked with it.
    torch.set_num_threads(1)


def _set_up(ends, ignored):
    _begin()
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for target, (kept, end) in enumerate(ends, 1):
        if end is not None:
            os.dup2(end, target)
        if kept is not None:
            os.close(kept)
    # The tests' own have buffers, and lead to where pytest keeps what is printed.
    sys.stdout, sys.stderr = (open(target, "w", buffering=1, closefd=False) for target in (1, 2))  # noqa: SIM115
