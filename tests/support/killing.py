"""Kill a command of the command line at random moments, and look at what it leaves.

All of it in a process that imports everything once and forks for each try, so that a try takes no longer than
the work itself.
"""

import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from forked import Forked

from edgeprune_formats import verify_pack


@dataclasses.dataclass(frozen=True)
class Trial:
    """A command, the files that it makes in a folder that is its alone, what it imports, and a public key.

    And what to do once, before any fork.
    """

    arguments: list
    outputs: list
    imports: list
    kills: int = 6
    key: str = ""
    seed: int = 0
    prepare: Callable = int


def killed(trial):
    """Run the trial in a process of its own; give problems, and how the tries ended."""
    with Forked(partial(try_all, trial)) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def started(arguments):
    """Run a command of the command line in a fork of this process."""
    child = os.fork()
    if child:
        return child
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    sys.argv = ["edgeprune", *arguments]
    code = 0
    try:
        importlib.import_module("edgeprune.cli").main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        os._exit(code)


def finished(arguments):
    begun = time.perf_counter()
    status = os.waitpid(started(arguments), 0)[1]
    assert status == 0, f"{arguments} ended with {os.waitstatus_to_exitcode(status)}"
    return time.perf_counter() - begun


def problems_of(path, key):
    """Return what is wrong with a file that should be complete."""
    if path.suffix == ".h5":
        return [str(problem) for problem in verify_pack(path)]
    try:
        if path.suffix == ".onnx":
            onnx = importlib.import_module("onnx")
            onnx.checker.check_model(onnx.load(path))
        else:
            importlib.import_module("edgeprune_runtime.signatures").check_signature(
                path.with_suffix(""), Path(key)
            )
    except Exception as error:
        return [repr(error)]
    return []


def leftovers(folder):
    return sorted(path.name for path in folder.rglob(".*"))


def try_all(trial):
    for name in trial.imports:
        importlib.import_module(name)
    trial.prepare()
    outputs = [Path(path) for path in trial.outputs]
    random_source, ends, problems = random.Random(trial.seed), Counter(), []
    length = finished(trial.arguments)
    older = {path: path.read_bytes() for path in outputs}
    # More where none of them was in time.
    for number in range(2 * trial.kills + 4):
        if number >= trial.kills and ends[str(-signal.SIGKILL)]:
            break
        # With and without an older file, by each signal.
        had = number % 4 < 2
        for path, content in older.items():
            if had:
                path.write_bytes(content)
            else:
                path.unlink(missing_ok=True)
        child = started(trial.arguments)
        time.sleep(random_source.uniform(0.02, 1) * length)
        os.kill(child, signal.SIGKILL if number % 2 else signal.SIGTERM)
        end = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        ends[str(end)] += 1
        if end == 0:
            length *= 0.8
        for path in outputs:
            if path.exists():
                problems += [
                    f"try {number}: {path.name}: {problem}" for problem in problems_of(path, trial.key)
                ]
            elif had:
                problems.append(f"try {number}: {path.name} is gone")
    finished(trial.arguments)
    left = leftovers(outputs[0].parent)
    shutil.rmtree(outputs[0].parent)
    print(json.dumps({"problems": problems, "left": left, "ends": ends}))
