"""Commands in forks of an interpreter that has imported the command line alone, and so not torch.

A start takes a fraction of that of an interpreter, which is what tests of how a process starts and ends take.
The process that looks at a file before ours does is started so, too, with `run_examination`.
"""

import importlib.util
import json
import os
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

TORCH = ("torch", "torchvision", "safetensors", "sklearn")


def edgeprune(*arguments, absent=(), cwd=None):
    """Run ``edgeprune`` where these packages are not installed; give what `subprocess.run` gives."""
    return _run("", ["edgeprune", *map(str, arguments)], absent, cwd)


def run_examination(command, **options):
    """Do what `subprocess.run` does in `edgeprune_formats.isolation`, but for the bound on the clock."""
    python, _, _, code, *arguments = command
    assert python == sys.executable
    return _run(code, ["-c", *arguments])


def _run(code, words, absent=(), cwd=None):
    """Run code, or ``edgeprune``, with this command line."""
    with TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("out", "err")]
        task = [code, words, list(absent), str(cwd or Path.cwd()), dict(os.environ), *map(str, streams)]
        server = _server()
        server.stdin.write(json.dumps(task) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, status, *(stream.read_text() for stream in streams))


@cache
def _server():
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )


def stop():
    """End that interpreter, if there is one."""
    if _server.cache_info().currsize:
        _server().communicate()


def serve():
    from edgeprune.cli import main
    from edgeprune_formats.packs import isolated, opening  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(main, *json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def run(main, text, words, absent, folder, environment, *streams):
    code = 1
    try:
        for number, path in enumerate(streams, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        hide(absent)
        sys.argv = words
        if text:
            exec(text, {"__name__": "__main__"})
        else:
            main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Absent:
    """Finds no package of these names, and nobody finds any after it."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide(names):
    assert not set(names) & set(sys.modules), f"{names} are here already"
    sys.meta_path.insert(0, Absent(names))
    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name in names else find_spec(name, *rest)


if __name__ == "__main__":
    serve()
