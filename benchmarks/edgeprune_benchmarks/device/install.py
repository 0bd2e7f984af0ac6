"""Installing the checkout anew: bytes on disk by package, seconds to import, and that it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from functools import partial
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune_formats import ConfigError, EdgePruneError

from ..harness.results import save, spread

__all__ = ["evict", "measure", "package_sizes", "run"]

# What the build needs of a checkout.
SOURCES = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"),
    *("edgeprune", "formats", "runtime", "benchmarks"),
)
TIMED = """
import time
started = time.perf_counter()
{}
print(time.perf_counter() - started)
"""
STATEMENTS = ("import edgeprune_runtime", "from edgeprune_runtime import PackLoader", "import torch")
DECODE = """
import sys
from edgeprune_runtime import PackLoader
images, labels = next(iter(PackLoader(sys.argv[1], 8, normalize=True, backend=sys.argv[2])))
assert images.shape == (8, 3, 32, 32) and type(images).__module__ == "numpy"
"""


class _Environment:
    """A virtual environment without pip, so that it holds nothing but what is measured."""

    def __init__(self, place: Path) -> None:
        venv.create(place, with_pip=False, symlinks=os.name != "nt")
        self._bin = place / ("Scripts" if os.name == "nt" else "bin")
        self.site = next(path for path in place.rglob("site-packages"))

    def install(self, requirement: str) -> float:
        """Install by the pip of this process, and return the seconds."""
        started = time.perf_counter()
        options = ["--quiet", "--disable-pip-version-check", "--python", str(self._bin / "python")]
        _call("pip", [sys.executable, "-m", "pip", *options, "install", requirement])
        return time.perf_counter() - started

    def python(self, code: str, *arguments: str) -> str:
        """Run some code and return what it printed."""
        return _call(code.strip(), [str(self._bin / "python"), "-c", code, *arguments])

    def edgeprune(self, *words: str, cwd: Path) -> str:
        """Run the command line and return what it printed."""
        return _call(f"edgeprune {words[0]}", [str(self._bin / "edgeprune"), *words], cwd)


def _call(name: str, command: list[str], cwd: Path | None = None) -> str:
    # Modules of the calling environment must not get in.
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise EdgePruneError(f"{name}: failed in the new environment: {lines[-1]}")
    return done.stdout


def run(output: Path, *, extras: tuple[str, ...], repeats: int, checkout: Path) -> None:
    """Install plain and with each of the extras, each in an environment of its own, and save the result.

    Raises
    ------
    ConfigError
        `checkout` is none.
    EdgePruneError
        An install failed, or what is installed does not work.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = _copy(checkout, Path(folder) / "checkout")
        for number, extra in enumerate(("", *extras)):
            rows.append(measure(source, extra, Path(folder) / str(number), repeats))
            _show(rows[-1])
            shutil.rmtree(Path(folder) / str(number))
    click.echo(save(output, "install", {"rows": rows}))


def _copy(checkout: Path, target: Path) -> Path:
    """Copy what the build needs, because pip leaves its traces where it builds."""
    if not all((checkout / name).exists() for name in SOURCES):
        raise ConfigError("installing is measured in a checkout: change to its folder, and run it again")
    target.mkdir()
    for name in SOURCES:
        if (checkout / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "results")
            shutil.copytree(checkout / name, target / name, ignore=ignored)
        else:
            shutil.copy(checkout / name, target / name)
    return target


def measure(source: Path, extra: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Install a checkout with an extra (or with none), measure it, and try what it promises.

    Returns
    -------
    dict
        Sizes in bytes: ``bytes`` of the files, ``disk_bytes`` as the file system counts them. ``kernels``
        tells whether the decoders in C were compiled.
    """
    folder.mkdir()
    environment = _Environment(folder / "env")
    seconds = environment.install(f"{source}[{extra}]" if extra else str(source))
    sizes = package_sizes(environment.site)
    kernels = any(environment.site.glob("edgeprune_runtime/decode/_kernels*.so"))
    commands = _try(environment, folder, kernels=kernels)
    return {
        "extra": extra,
        "install_seconds": seconds,
        "packages": sizes,
        "bytes": sum(size["bytes"] for size in sizes),
        "disk_bytes": _on_disk(environment.site),
        "kernels": kernels,
        "works": commands,
        "seconds": _times(environment, folder, repeats, torch="torch" in {size["name"] for size in sizes}),
    }


def package_sizes(site: Path) -> list[dict[str, Any]]:
    """Return name, version and bytes of each distribution in a folder, the largest first."""
    sizes = [
        {"name": found.name, "version": found.version, "bytes": _size(found)}
        for found in distributions(path=[str(site)])
    ]
    return sorted(sizes, key=lambda size: (-size["bytes"], size["name"]))


def _size(found: Distribution) -> int:
    paths = {Path(str(found.locate_file(file))).resolve() for file in found.files or ()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _on_disk(site: Path) -> int:
    # In units of 512 bytes, whatever the block size of the file system is.
    return sum(path.lstat().st_blocks * 512 for path in site.rglob("*"))


def _try(environment: _Environment, folder: Path, *, kernels: bool) -> list[str]:
    """Build, look at, decode and time a pack of made-up images; return what was done."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (48, 4, 4, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    labels = np.arange(48) % 3
    archive = folder / "cifar10-lossless-6k.npz"
    np.savez(archive, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    commands = {
        "build": ("build", f"npz:{archive.name}", "-o", "pack.h5", "--codec", "sparse-f32", "--quiet"),
        "info": ("info", "pack.h5"),
        "verify": ("verify", "pack.h5"),
        "preview": ("preview", "pack.h5", "-o", "grid.png"),
        "bench time": ("bench", "time", "--only", "decode", "--rounds", "1", "--data", ".", "-o", "."),
    }
    for command in commands.values():
        environment.edgeprune(*command, cwd=folder)
    backends = ("scipy", *(["native"] if kernels else []))
    for backend in backends:
        environment.python(DECODE, str(folder / "pack.h5"), backend)
    return [*commands, *(f"decode, {backend}" for backend in backends)]


def _times(environment: _Environment, folder: Path, repeats: int, *, torch: bool) -> dict[str, Any]:
    """Return seconds of imports and of a command, with the environment's files read from disk and not."""

    statements = STATEMENTS if torch else STATEMENTS[:-1]
    timed: dict[str, Callable[[], float]] = {
        statement: partial(_import_seconds, environment, statement) for statement in statements
    }
    timed["edgeprune info"] = partial(_info_seconds, environment, folder)
    seconds: dict[str, Any] = {}
    for name, once in timed.items():
        once()
        warm = [once() for _ in range(repeats)]
        cold = [once() for _ in range(repeats) if evict(environment.site)]
        seconds[name] = {"warm": spread(warm), **({"cold": spread(cold)} if cold else {})}
    return seconds


def _import_seconds(environment: _Environment, statement: str) -> float:
    return float(environment.python(TIMED.format(statement)))


def _info_seconds(environment: _Environment, folder: Path) -> float:
    started = time.perf_counter()
    environment.edgeprune("info", "pack.h5", cwd=folder)
    return time.perf_counter() - started


def evict(folder: Path) -> bool:
    """Let the system forget the content of all files in a folder; return whether it can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                # What is not yet written cannot be forgotten.
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)
    return True


def _show(row: dict[str, Any]) -> None:
    extra = f"[{row['extra']}]" if row["extra"] else ""
    click.echo(f"edgeprune{extra}: {row['disk_bytes'] / 1e6:,.1f} MB on disk")
    for size in row["packages"]:
        click.echo(f"  {size['name']:<24} {size['version']:<16} {size['bytes'] / 1e6:>8,.1f} MB")
    for name, found in row["seconds"].items():
        cold = f", from disk {found['cold']['median']:.2f} s" if "cold" in found else ""
        click.echo(f"  {name}: {found['warm']['median']:.2f} s{cold}")
    click.echo(f"  works: {', '.join(row['works'])}; decoders in C: {'yes' if row['kernels'] else 'no'}")
