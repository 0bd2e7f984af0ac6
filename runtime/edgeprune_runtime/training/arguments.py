"""Which arguments of `edgeprune_runtime.training.train` go together, found before a run begins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edgeprune_formats import ConfigError

from ..checks import whole_number
from ..loading.order.resolutions import ResolutionSchedule
from ..task import Task
from .interfaces import Batches, TrainLoader
from .settings import TrainConfig

__all__ = ["require_agreement", "whole_shape"]


def whole_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers as those of Python, which JSON takes; raises `ConfigError` of others."""
    if not isinstance(image_shape, Iterable):
        raise ConfigError(f"`image_shape` is {image_shape!r}; give channels, height and width")
    return tuple(whole_number("image_shape", number) for number in image_shape)


def require_agreement(
    loader: TrainLoader,
    config: TrainConfig,
    task: Task,
    test: Batches | None,
    *,
    has_teacher: bool,
    is_warm: bool,
) -> None:
    """Raise `ConfigError` where an argument lacks another that it needs, or does not go with another.

    `is_warm`: the run begins with weights of `init`, or goes on from a checkpoint.
    """
    _require_same_loading(loader, config)
    _require_same_normalization(loader, test)
    if not config.distill:
        _require_target(loader, task)
    _require_company(config, task, test, has_teacher=has_teacher, is_warm=is_warm)


def _require_same_loading(loader: TrainLoader, config: TrainConfig) -> None:
    """Raise `ConfigError` where the loader decodes other sizes or samples otherwise than is recorded."""
    given: ResolutionSchedule = getattr(loader, "resolution_schedule", ResolutionSchedule())
    if given != config.resolutions:
        raise ConfigError(
            f"`resolution_schedule` of the loader is {str(given) or None}, and of the settings "
            f"{config.resolution_schedule}; give the same to both"
        )
    if config.sampling == "balanced" and getattr(loader, "sampling", "balanced") != "balanced":
        raise ConfigError("`sampling` of the settings is balanced, and of the loader not; give it to both")


def _require_same_normalization(loader: TrainLoader, test: Batches | None) -> None:
    """Raise `ConfigError` where a test loader normalizes otherwise than the network learns to see images."""
    ours, theirs = (getattr(one, "normalization", None) for one in (loader, test))
    if ours is None or theirs is None or len(ours.mean) != len(theirs.mean):
        return
    # Both come from the same numbers, perhaps once in float32; other images differ by more.
    pairs = zip((*ours.mean, *ours.std), (*theirs.mean, *theirs.std), strict=True)
    if not all(math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-4) for one, other in pairs):
        raise ConfigError(
            "`test` is normalized by another mean and standard deviation than the training images; give both "
            "loaders the same, such as `normalize=(header.mean, header.std)` of the training pack"
        )


def _require_target(loader: TrainLoader, task: Task) -> None:
    """Raise `ConfigError` where a `PackLoader` hands out other targets than the one that is learned."""
    columns = getattr(loader, "targets", None)
    if columns is not None and [column.name for column in columns] != [task.target]:
        given = ", ".join(repr(column.name) for column in columns) or "none"
        raise ConfigError(
            f"the loader hands out targets {given}; `task` learns {task.target!r}, and that alone"
        )


def _require_company(
    config: TrainConfig, task: Task, test: Batches | None, *, has_teacher: bool, is_warm: bool
) -> None:
    """Raise `ConfigError` where an argument lacks another that it needs, or does not go with another."""
    if config.distill and (has_teacher or not task.is_default):
        other = "`teacher`, which is asked in each step" if has_teacher else f"`task` {task.target!r}"
        raise ConfigError(f"`distill` goes with the labels of a pack, and not with {other}; leave one out")
    if has_teacher and not task.is_ranked:
        raise ConfigError(f"a teacher answers with classes, and {task.target!r} is a {task.kind}")
    if has_teacher and config.resolution_schedule is not None:
        raise ConfigError(
            "a teacher has learned from images of full size, and `resolution_schedule` has smaller ones; "
            "leave one of the two out, or learn from the teacher of the pack, by `distill`"
        )
    if config.freeze and not is_warm:
        raise ConfigError("`freeze` keeps layers as `init` gives them; give `init`, or leave `freeze` out")
    if config.patience is not None and test is None:
        raise ConfigError("`patience` waits for a better test; give `test`, or leave `patience` out")
