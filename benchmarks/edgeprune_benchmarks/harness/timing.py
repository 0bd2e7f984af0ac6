"""Timing in a process of its own: as many cores as threads, loaders interleaved round after round."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from .process import run_python
from .results import spread

__all__ = ["Epoch", "images_of", "interleave", "limits", "pinned", "ratios", "serve"]

# One epoch: batches of images, float32 [n, 3, H, W] and normalized, but for loaders that say otherwise.
Epoch = Callable[[], Iterator[Any]]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pinned(module: str, task: Mapping[str, Any], threads: int, **variables: str) -> Any:
    """Run ``python -m module`` on a task with `threads` cores, and return what its `serve` printed.

    `variables` are further ones of the environment.

    Raises
    ------
    EdgePruneError
        The process failed; its last line of errors.
    """
    counts = {name: str(threads) for name in _THREADS}
    return run_python(module, "-m", module, json.dumps({**task, "threads": threads}), **counts, **variables)


def serve(measure: Callable[[dict[str, Any]], Any]) -> None:
    """Run `measure` on the task of the command line and print what it returns, in the child of `pinned`."""
    task = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: task["threads"]]))
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(task["threads"])
    print(json.dumps(measure(task)))


def interleave(epochs: Mapping[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Return images/s of each loader in each round, after one round that is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            started = time.perf_counter()
            images = sum(len(batch) for batch in epoch())
            if number:
                rates[name].append(images / (time.perf_counter() - started))
    return rates


def images_of(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the images of each batch, without its labels."""
    for images, *_ in loader:
        yield images


def ratios(rates: Mapping[str, list[float]], peer: str) -> dict[str, dict[str, float]]:
    """Return each loader's rate over that of `peer`, round by round: median and spread."""
    return {
        name: spread([one / other for one, other in zip(found, rates[peer], strict=True)])
        for name, found in rates.items()
    }


def limits() -> dict[str, float]:
    """Measure what the machine can do at best: bytes read and written by copying, and sgemm, a second."""
    copy, multiply = _torch_limits() if importlib.util.find_spec("torch") else _numpy_limits()
    copied, multiplied = [], []
    for _ in range(_ROUNDS):
        copied.append(2 * 4 * _COPIED / _seconds(copy))
        multiplied.append(2 * _SIDE**3 / _seconds(multiply))
    return {"copy_gb_s": max(copied) / 1e9, "sgemm_gflop_s": max(multiplied) / 1e9}


_COPIED, _SIDE, _ROUNDS = 2**26, 1024, 7


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _torch_limits() -> tuple[Callable[[], Any], Callable[[], Any]]:
    import torch

    source, target, matrix = torch.ones(_COPIED), torch.empty(_COPIED), torch.ones(_SIDE, _SIDE)
    return partial(target.copy_, source), partial(torch.mm, matrix, matrix)


def _numpy_limits() -> tuple[Callable[[], Any], Callable[[], Any]]:
    source, target = np.ones(_COPIED, np.float32), np.empty(_COPIED, np.float32)
    matrix = np.ones((_SIDE, _SIDE), np.float32)
    threads = int(os.environ.get(_THREADS[0], "1"))
    pool = ThreadPoolExecutor(threads)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))

    def copy() -> None:
        # Copying leaves the GIL.
        list(pool.map(lambda part: np.copyto(*part), parts))

    return copy, partial(np.matmul, matrix, matrix)
