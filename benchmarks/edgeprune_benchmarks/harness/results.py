"""Writing a result: the figures, and everything that they depend on."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune_formats.files import atomic_file
from edgeprune_runtime.system.machine import cpu_features

__all__ = ["machine", "save", "spread"]

# Results and pictures are what benchmarks change themselves.
STATUS = ("status", "--porcelain", "--", ".", ":!benchmarks/results", ":!docs/images")
LIBRARIES = (
    *("edgeprune", "numpy", "scipy", "h5py", "pillow", "torch", "torchvision", "simplejpeg", "imagecodecs"),
    *(
        "zstandard",
        "pyautoattack",
        "captum",
        "webdataset",
        "litdata",
        "mosaicml-streaming",
        "datasets",
        "ffcv",
    ),
)
# As Linux names them, widest first: processors of one name differ in them, and with them times by a multiple.
VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve", "asimd", "neon")


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum, maximum and count."""
    return {
        "median": float(np.median(values)),
        "min": float(min(values)),
        "max": float(max(values)),
        "n": len(values),
    }


def save(output: Path, name: str, results: dict[str, Any]) -> Path:
    """Write ``NAME.json`` with the results and the command, commit, machine and library versions.

    ``earlier`` has the commands that measured the cells which the file had before, where it has the same
    ``cell_settings``.
    """
    path = output / f"{name}.json"
    run = {
        "command": "python -m edgeprune_benchmarks " + shlex.join(_arguments()),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+changes" if _git(*STATUS) else ""),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }
    contents: dict[str, Any] = {
        **run,
        "earlier": _earlier(path, run, results),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **_versions()},
        "results": results,
    }
    output.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(contents, indent=1) + "\n")
    return path


def _earlier(path: Path, run: dict[str, str], results: dict[str, Any]) -> list[dict[str, str]]:
    """Return command, commit and date of each run that a file of cells comes from, without `run` itself."""
    if "cell_settings" not in results or not path.exists():
        return []
    before = json.loads(path.read_text())
    if before["results"].get("cell_settings") != json.loads(json.dumps(results["cell_settings"])):
        return []
    runs = [*before.get("earlier", []), {key: before[key] for key in run}]
    return [one for one in runs if _lasting(one["command"]) != _lasting(run["command"])]


def _lasting(command: str) -> str:
    """Return a command without what its cells do not depend on."""
    return re.sub(r" (-o|--minutes) \S+", "", command)


def _arguments() -> list[str]:
    """Return the command's arguments without the paths of this machine."""
    # As `edgeprune bench NAME` or as `python -m edgeprune_benchmarks NAME`: the same command.
    words = sys.argv[2:] if sys.argv[1:2] == ["bench"] else sys.argv[1:]
    return [Path(word).name if "/" in word else word for word in words]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)  # noqa: S603, S607
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Return what times depend on of this machine, for a result."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = {"processor": processor, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1)}
    vectors = next((name for name in VECTORS if name in cpu_features()), None)
    return {**facts, "vectors": vectors, "gpu": _gpu()}


def _gpu() -> str | None:
    try:
        import torch
    except ModuleNotFoundError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
