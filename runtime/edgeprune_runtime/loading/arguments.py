"""What is wrong with the arguments of a loader, found when it is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from edgeprune_formats import ConfigError, Pack, PackHeader

from ..checks import shortened
from ..decode.plan import DecodePlan, Normalize
from .mixture import Mixture
from .order.ranks import RankShare
from .order.resolutions import ResolutionSchedule
from .order.sampling import SAMPLINGS, Sampling
from .order.skipping import ON_CORRUPT, OnCorrupt

__all__ = [
    "check_choices",
    "check_classes",
    "check_numbers",
    "check_schedule",
    "check_transform",
    "statistics",
    "warn_of_no_batch",
]


def check_numbers(*, batch_size: int, seed: int, prefetch: int, reuse_buffers: int) -> None:
    """Raise `ConfigError` of a number out of range."""
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1, not {batch_size}")
    for name, number in (("seed", seed), ("prefetch", prefetch), ("reuse_buffers", reuse_buffers)):
        if number < 0:
            raise ConfigError(f"`{name}` must not be negative: {number}")


def check_choices(
    on_corrupt: OnCorrupt, sampling: Sampling, ranks: RankShare, *, shuffle: bool, replays: bool
) -> None:
    """Raise `ConfigError` of a choice that there is not, or that does not go with another."""
    if on_corrupt not in ON_CORRUPT:
        raise ConfigError(f"`on_corrupt` is {on_corrupt!r}; choose one of {', '.join(ON_CORRUPT)}")
    if sampling not in SAMPLINGS:
        raise ConfigError(f"`sampling` is {sampling!r}; choose one of {', '.join(SAMPLINGS)}")
    if sampling == "balanced" and not shuffle:
        raise ConfigError('`sampling="balanced"` needs `shuffle=True`')
    if sampling == "balanced" and replays:
        raise ConfigError("`sampling` and `replay` both choose what an epoch has; give one of the two")
    if replays and ranks.world_size > 1:
        raise ConfigError(
            "`replay` fixes the share of old images in the batches of one process; leave `rank` and "
            "`world_size` out, or `replay`"
        )


def check_classes(pack: Pack | Mixture, sampling: Sampling) -> None:
    """Raise `ConfigError` where classes are to come equally often, and images have none."""
    if sampling == "balanced" and not pack.header.class_names:
        first = pack.packs[0] if isinstance(pack, Mixture) else pack
        raise ConfigError(f"`sampling` goes by the class, and images of {first.path} have none; leave it out")


def check_transform(transform: object) -> None:
    """Raise `ConfigError` of a transform that cannot be called."""
    if not (transform is None or callable(transform)):
        raise ConfigError(f"`transform` is {shortened(transform)}; give a function, or leave it out")


def check_schedule(
    schedule: ResolutionSchedule, full: DecodePlan, make_reader: Callable[..., object]
) -> None:
    """Raise `ConfigError` of a resolution that is above that of the other epochs, or cannot be decoded."""
    pixels = f"{full.height}x{full.width} pixels"
    for (size, _), (height, width) in zip(schedule.stages, schedule.sizes, strict=True):
        if isinstance(size, int) and full.height != full.width:
            raise ConfigError(
                f"`resolution_schedule` has {size}, and images have {pixels}; name height and width, such as "
                f"{full.height // 2}x{full.width // 2}:6"
            )
        if height > full.height or width > full.width:
            raise ConfigError(
                f"`resolution_schedule` has {height}x{width}, and images have {pixels}; name smaller sizes"
            )
        try:
            make_reader(resolution=size)
        except ConfigError as error:
            raise ConfigError(str(error).replace("`resolution`", "`resolution_schedule`")) from None


def statistics(header: PackHeader, normalize: Normalize) -> list[list[float]] | None:
    """Return mean and standard deviation as JSON holds them; None without normalization."""
    if normalize is False:
        return None
    pair = (header.mean, header.std) if normalize is True else normalize
    return [list(map(float, values)) for values in pair]


def warn_of_no_batch(images: int, batch_size: int, ranks: RankShare) -> None:
    """Warn, where a loader is made, that nothing remains of fewer images than a batch."""
    share = "" if ranks.world_size == 1 else f" in each of {ranks.world_size} processes"
    warnings.warn(
        f"{images} images are fewer than a batch of {batch_size}{share}, so an epoch has none; "
        "pass `drop_last=False` to train on them",
        stacklevel=3,
    )
