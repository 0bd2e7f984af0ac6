"""The parts of a build as tasks of Ray, which starts them, gives them processors and repeats what dies."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.files import check_writable
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.networks.code import allow_code, allowed_code

from ..work.callbacks import StageProgress
from ..work.temporary import work_folder
from .config import BuildConfig
from .planning.plan import Share
from .writing.assembly import assemble, make_folder
from .writing.report import PartReport

__all__ = ["build_with_ray"]

# How often Ray starts a task again whose process died.
RETRIES = 3
# Of a cluster that is named.
ANSWER_SECONDS = 10.0
# A task that meets an image that cannot be read changes what all parts hold; others may have ended before.
_ROUNDS = 3


def build_with_ray(
    source: str,
    path: Path,
    config: BuildConfig,
    *,
    parts: int,
    address: str | None = None,
    scores: Path | None = None,
    fse_net: Path | None = None,
    teacher: Path | None = None,
    jobs: int = 1,
    progress: StageProgress | None = None,
) -> tuple[str, ...]:
    """Build a pack in parts, each a task of Ray, and put them together.

    All nodes need the source, the files and the folder of `path` under the same names: a shared file system.
    Parts stay in `edgeprune.work.temporary.work_folder` until the pack is complete, and what was finished is
    used when the same build is tried again.

    Parameters
    ----------
    source, config, scores, fse_net, teacher, progress
        See `edgeprune.build_pack`.
    path : Path
        The pack.
    parts : int
        Tasks.
    address : str or None
        Of a cluster that runs, ``"host:port"``, ``"ray://host:port"`` or ``"auto"``; None starts one here.
    jobs : int
        Processors of a task, and its threads.

    Returns
    -------
    tuple of str
        A message for each image that could not be read.

    Raises
    ------
    ConfigError
        Ray is not installed, does not answer, or has no node with so many processors.
    ArtifactError
        A task died again and again.
    Exception
        As `edgeprune.packs.build.build_share` and `edgeprune.packs.writing.assembly.assemble`.
    """
    check_writable(path)
    folder = work_folder(path) / f"ray-{parts}"
    with _cluster(address) as ray, _kept_if_used(folder):
        _require_processors(ray, jobs)
        task = ray.remote(num_cpus=jobs, max_retries=RETRIES)(_build_share)
        given = (str(Path.cwd()), source, str(folder), config, scores, fse_net, teacher, jobs, allowed_code())
        for number in range(_ROUNDS):
            tasks = [task.remote(Share(part, parts), *given) for part in range(1, parts + 1)]
            _finished(ray, tasks, progress)
            try:
                skipped = assemble(folder, path, progress)
                break
            except ArtifactError:
                if not config.skip_bad or number == _ROUNDS - 1:
                    raise
        shutil.rmtree(folder)
    return skipped


def _require_processors(ray: Any, jobs: int) -> None:
    """Raise `ConfigError` if no node could ever start a task: Ray would wait for one without end."""
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if jobs > largest:
        raise ConfigError(f"no node of Ray has the {jobs} processors of a task; lower `jobs` to {largest:g}")


@contextmanager
def _kept_if_used(folder: Path) -> Iterator[None]:
    """Make a folder, and remove it at the end if there is nothing in it."""
    make_folder(folder)
    try:
        yield
    finally:
        for empty in (folder, folder.parent):
            with suppress(OSError):
                empty.rmdir()


def _build_share(
    share: Share,
    place: str,
    source: str,
    folder: str,
    config: BuildConfig,
    scores: Path | None,
    fse_net: Path | None,
    teacher: Path | None,
    jobs: int,
    code: tuple[str, ...],
) -> PartReport:
    """Do one task, where relative paths mean what they mean to whoever began the build."""
    from .build import build_share

    os.chdir(place)
    for name in code:
        allow_code(name)
    return build_share(
        source, folder, share, config, scores=scores, fse_net=fse_net, teacher=teacher, jobs=jobs
    )


def _finished(ray: Any, waiting: list[Any], progress: StageProgress | None) -> None:
    """Wait for all tasks; the first that fails stops the others, and is raised as what went wrong in it."""
    done = 0
    try:
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            report = ray.get(ready[0])
            done += report.images
            if progress is not None:
                progress("encoding", done, report.samples)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"a task of Ray died and was not repeated ({reason}); run the same command again to go on"
        ) from error
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Join a cluster of Ray, or start one of this machine, and leave it at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("the engine ray needs Ray; pip install 'edgeprune[ray]'") from error
    if address not in (None, "auto"):
        _require_answer(str(address))
    settings: dict[str, Any] = {"configure_logging": True, "logging_level": "error", "log_to_driver": False}
    if address is None:
        settings["include_dashboard"] = False
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"Ray does not answer ({reason}); start it, or name another address") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        number = int(port)
        socket.create_connection((host, number), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"no Ray answers at {address} ({error}); start it with ray start --head, or leave the address out"
        ) from error
