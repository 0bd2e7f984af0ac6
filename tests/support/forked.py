"""Commands in forks of a process that has imported torch already: a start takes seconds less.

What a fork does not try is how a process starts: tests of that start an interpreter of their own. The process
is itself a fork of the tests', taken before any of them runs: the engine of autograd, once it has threads
for devices, works in no fork. It knows the modules of the tests, so what it runs may be any function of
theirs that can be pickled.
"""

import os
import pickle
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from edgeprune.cli import main

_SERVER = None
_POPEN = Popen  # Tests put `popen` in its place.
_LENGTH = 8


def command(*arguments, **options):
    """Start ``edgeprune`` with these arguments; see `Forked`."""
    return Forked(partial(run_command, *arguments), **options)


def run_command(*arguments):
    sys.argv = ["edgeprune", *map(str, arguments)]
    main()


def python(*words):
    """Run what this interpreter runs for ``-m MODULE ARGUMENTS`` or ``-c CODE ARGUMENTS``."""
    kind, what, *arguments = map(str, words)
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})


def torchrun(function, *, pids=None, **options):
    """Start two processes that torchrun's agent watches over, each of which calls the function; see `Forked`.

    Each leaves its number in the folder `pids`, under the name of its rank.
    """
    return Forked(partial(_watch, function, pids), **options)


def _watch(function, pids):
    # As torchrun has it.
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
    elastic_launch(config, _enter)(function, pids)


def _enter(function, pids):
    if pids:
        (pids / os.environ["RANK"]).write_text(str(os.getpid()))
    _begin()
    function()


class Forked:
    """A function that runs in a fork, with the interface of `subprocess.Popen`.

    Each stream is `PIPE`, a descriptor, or None for where pytest keeps what is printed. Signals in `ignored`
    are ignored, as after ``nohup``. SIGINT is not, though a shell has those ignore it that it starts in the
    background.
    """

    def __init__(self, function, *, stdout=PIPE, stderr=PIPE, ignored=()):
        self.returncode, theirs, ours = None, [], []
        for stream in (stdout, stderr, PIPE):
            read, write = os.pipe() if stream is PIPE else (None, os.dup(1 if stream is None else stream))
            theirs.append(write)
            ours.append(read if read is None else open(read))  # noqa: PTH123, SIM115
        self.stdout, self.stderr, self._news = ours
        content = pickle.dumps((function, dict(os.environ), Path.cwd(), ignored))
        socket.send_fds(_SERVER, [len(content).to_bytes(_LENGTH, "little")], theirs)
        _SERVER.sendall(content)
        for descriptor in theirs:
            os.close(descriptor)
        self.pid = int(self._news.readline())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is not None and self.returncode is None:
            self.kill()
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()
        self._news.close()

    def poll(self):
        """Return how it ended, or None while it runs."""
        if self.returncode is None and select.select([self._news], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=120):
        """Wait for its end; kill it where that takes longer than so many seconds."""
        if self.returncode is None:
            late = not select.select([self._news], [], [], timeout)[0]
            if late:
                self.kill()
            self.returncode = int(self._news.readline())
            if late:
                raise TimeoutExpired("a fork of the tests", timeout)
        return self.returncode

    def communicate(self, input=None, timeout=120):  # noqa: A002
        """Wait for its end; return what it said on both streams. Nothing can be said to it."""
        said = {}

        def read(name):
            said[name] = getattr(self, name).read()

        names = [name for name in ("stdout", "stderr") if getattr(self, name)]
        readers = [threading.Thread(target=read, args=[name]) for name in names]
        for reader in readers:
            reader.start()
        self.wait(timeout or 120)
        for reader in readers:
            reader.join()
        return said.get("stdout"), said.get("stderr")


def popen(command, **options):
    """Do what `subprocess.Popen` does, where the command is this interpreter in a fork."""
    return (Interpreter if command[0] == sys.executable else _POPEN)(command, **options)


class Interpreter(Forked):
    """This interpreter with a command line, with the interface of `subprocess.Popen`."""

    def __init__(self, command, *, stdout=None, stderr=None, text=True):
        self.args = command
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            streams = [nothing.fileno() if one is DEVNULL else one for one in (stdout, stderr)]
            super().__init__(partial(python, *command[1:]), stdout=streams[0], stderr=streams[1])


def serve():
    """Fork the process that the others are forks of."""
    global _SERVER
    _SERVER, theirs = socket.socketpair()
    if _fork():
        theirs.close()
        return
    _SERVER.close()
    # A key that ends the tests, or the tests' own end, closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        length, descriptors, _, _ = socket.recv_fds(theirs, _LENGTH, 3)
        if not length:
            os._exit(0)
        content = b""
        while len(content) < int.from_bytes(length, "little"):
            content += theirs.recv(int.from_bytes(length, "little") - len(content))
        if not _fork():
            theirs.close()
            _look_after(descriptors, content)
        for descriptor in descriptors:
            os.close(descriptor)


def stop():
    """End that process."""
    if _SERVER:
        _SERVER.close()


def _look_after(descriptors, content):
    """Run the function in one more fork, and tell its number and how it ended."""
    out, err, news = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = _fork()
    if not child:
        os.close(news)
        _run(out, err, content)
    os.close(out)
    os.close(err)
    os.write(news, b"%d\n" % child)
    os.write(news, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _run(out, err, content):
    code = 1
    try:
        for source, target in ((out, 1), (err, 2)):
            os.dup2(source, target)
            os.close(source)
        # The tests' own lead to where pytest keeps what is printed.
        sys.stdout, sys.stderr = (open(target, "w", buffering=1, closefd=False) for target in (1, 2))  # noqa: SIM115
        _begin()
        function, environment, folder, ignored = pickle.loads(content)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
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


def _fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
