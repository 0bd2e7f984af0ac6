"""One cell in a process of its own, which `edgeprune_benchmarks.harness.timing.pinned` begins.

Its row has ``curve``, a pair for each epoch of the minutes counted so far and the accuracy on the test images
then; ``steps``, ``images_seen`` and ``startup_minutes``, which were counted before the first step; and
``core_share``, the part of the time of its cores that the process had, tests included.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ..harness.timing import serve
from .clock import Clock


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Train as a task says, from the folder or from the pack."""
    clock = Clock(task["started"])
    if task["pack"] is None:
        from .folder import train_folder as train
    else:
        from .pack import train_from_pack as train
    row = train(task, clock)
    # With the processes that read files, which have ended.
    used, passed = sum(os.times()[:4]), time.time() - task["started"]
    return {**row, "core_share": used / passed / task["threads"]}


if __name__ == "__main__":
    serve(measure)
