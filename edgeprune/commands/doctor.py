"""``edgeprune doctor``: what a report of a fault needs, and what slows EdgePrune down or stops it here."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from edgeprune.text import bytes_text, say
from edgeprune_formats import __version__

from ..options.fields import Command, option

__all__ = ["KERNELS_MISSING", "command", "diagnose", "examine"]

NEEDED = ("numpy", "scipy", "h5py", "click", "pillow", "tqdm")
OPTIONAL = (
    *(
        "torch",
        "torchvision",
        "safetensors",
        "scikit-learn",
        "isal",
        "cryptography",
        "matplotlib",
        "tensorboard",
    ),
    *("onnx", "onnxruntime", "pyarrow", "timm", "jinja2", "fsspec", "aiohttp"),
)
KERNELS_MISSING = (
    "numpy and scipy decode here, many times slower than the kernels in C; install a wheel of EdgePrune, or "
    "a C compiler and EdgePrune again"
)
_VARIABLES = (
    *("EDGEPRUNE_NATIVE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "HDF5_USE_FILE_LOCKING"),
    *("CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "EDGEPRUNE_CACHE"),
)
_SCARCE_MEMORY, _SCARCE_DISK, _SCARCE_SHARED = 2**30, 2**30, 2**28
_SHARED, _NVIDIA = Path("/dev/shm"), Path("/dev/nvidiactl")  # noqa: S108 - where workers share batches


@click.command("doctor", cls=Command)
@option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(as_json: bool) -> None:
    """Print the facts for a bug report, and what to fix on this machine.

    It shows versions, C kernels and their vector instructions, torch and its devices, threads, memory and
    disk space. Nothing is changed, and nothing leaves the machine.

    \b
    Example:
      edgeprune doctor
    """
    facts = examine()
    advice = list(diagnose(facts))
    if as_json:
        click.echo(json.dumps({**facts, "advice": advice}, indent=2))
        return
    for name, value in facts.items():
        say(f"{name.replace('_', ' '):<12} {_shown(value)}")
    say()
    for line in advice or ["nothing to mend"]:
        say(f"- {line}" if advice else line)


def examine() -> dict[str, Any]:
    """Return the facts of this installation and machine as a JSON object; sizes in bytes.

    Values that could not be found out are None.
    """
    return {
        "edgeprune": __version__,
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": platform.platform(),
        "packages": {name: _version(name) for name in NEEDED} | {"HDF5": _hdf5()},
        "optional": {name: _version(name) for name in OPTIONAL},
        "kernels": _kernels(),
        "torch": _torch(),
        "machine": _machine(),
        "free": _free(),
        "variables": [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ],
    }


def diagnose(facts: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each thing to mend, of what `examine` returns."""
    kernels, torch, free = facts["kernels"], facts["torch"], facts["free"]
    variables = dict(text.split("=", 1) for text in facts["variables"])
    if variables.get("EDGEPRUNE_NATIVE") == "0":
        yield "EDGEPRUNE_NATIVE=0 switches the kernels in C off; unset it"
    elif None in kernels.values():
        yield KERNELS_MISSING
    if torch is None:
        yield "training needs torch; pip install 'edgeprune[torch]', on a Jetson see docs/how-to/jetson.md"
    elif "error" in torch:
        yield f"{torch['error']}; install torch and torchvision of one release from one place"
    elif torch["cuda"] is None and _NVIDIA.exists():
        yield "there is an NVIDIA GPU, and this torch has no CUDA or cannot reach it; install one that has"
    threads, processors = variables.get("OMP_NUM_THREADS", ""), facts["machine"]["processors"]
    if threads.isdecimal() and int(threads) > processors:
        yield f"OMP_NUM_THREADS is {threads}, on {processors} processors; unset it"
    for name, least, remedy in (
        ("memory", _SCARCE_MEMORY, "train with a small --memory, and --batch-size auto"),
        ("this_folder", _SCARCE_DISK, "free some, or work in another folder"),
        ("temporary", _SCARCE_DISK, "free some, or set TMPDIR"),
        (
            "shared",
            _SCARCE_SHARED,
            "workers of a DataLoader need more (docker run --shm-size 1g)",
        ),
    ):
        if free[name] is not None and free[name] < least:
            yield f"{name.replace('_', ' ')}: {bytes_text(free[name])} free; {remedy}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _hdf5() -> str:
    import h5py

    return str(h5py.version.hdf5_version)


def _kernels() -> dict[str, str | None]:
    """Return how payloads are coded and images transformed; None where numpy and scipy do it."""
    from edgeprune_formats.coding.native import has_kernels
    from edgeprune_runtime.decode.kernels import lanes

    width = lanes()
    return {
        "coding": "in C" if has_kernels() else None,
        "transform": None if width is None else f"in C, {width} numbers at once",
    }


def _torch() -> dict[str, Any] | None:
    if find_spec("torch") is None:
        return None
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return {"error": f"torch or torchvision cannot be loaded ({' '.join(str(error).split())})"}
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "cuda": ", ".join(names) or None,
        "built_for_cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }


def _machine() -> dict[str, Any]:
    from edgeprune_runtime.system.machine import cpu_features, cpu_quota
    from edgeprune_runtime.system.threads import cores

    known = ("amx_bf16", "avx512_bf16", "avx512bw", "avx2", "fma", "sve", "asimd", "neon")
    return {
        "processors": cores(),
        "processors_within_the_quota": cpu_quota(),
        "vectors": " ".join(name for name in known if name in cpu_features()) or None,
    }


def _free() -> dict[str, int | None]:
    import tempfile

    from edgeprune_runtime.system.machine import available_bytes

    return {
        "memory": available_bytes(),
        "this_folder": _disk(Path.cwd()),
        "temporary": _disk(Path(tempfile.gettempdir())),
        "shared": _disk(_SHARED),
    }


def _disk(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, int) and value >= 10**6:
        return bytes_text(value)
    return "none" if value is None else str(value)
