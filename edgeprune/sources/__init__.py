"""Where the builder's images come from: one table of kinds, one module for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeprune.sources.base import Source
from edgeprune.sources.check import SourceCheck, check_source, source_facts
from edgeprune.sources.cifar import open_cifar
from edgeprune.sources.digits import open_digits
from edgeprune.sources.folder import open_imagefolder
from edgeprune.sources.npz import open_npz
from edgeprune_formats import ConfigError

__all__ = ["Source", "SourceCheck", "check_source", "open_source", "source_facts"]

_OPENERS: dict[str, Callable[[str, str, int | None], Source]] = {
    "digits": open_digits,
    "cifar10": open_cifar,
    "cifar100": open_cifar,
    "imagefolder": open_imagefolder,
    "npz": open_npz,
}
_MAX_SIDE = 2**16  # of an image in a pack
_FORMS = "digits, cifar10[:ROOT], cifar100[:ROOT], imagefolder:PATH, npz:FILE"


def open_source(spec: str, *, split: str = "train", size: int | None = None) -> Source:
    """Open a source of labeled images.

    Parameters
    ----------
    spec : str
        ``digits``, ``cifar10[:ROOT]``, ``cifar100[:ROOT]``, ``imagefolder:PATH`` or ``npz:FILE``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        Scale the short side of every image to `size` pixels and keep the center square; None keeps the
        images as they are.

    Returns
    -------
    Source
        Labels and names are read, and checked against each other; pixels are not (see `check_source`).

    Raises
    ------
    ConfigError
        Unknown kind of source or split, a size out of range, or a package that is not installed.
    SourceError
        Nothing usable is there; the message says what to do.
    """
    kind = spec.partition(":")[0]
    if kind not in _OPENERS:
        hint = f"; did you mean imagefolder:{spec}?" if Path(spec).is_dir() else ""
        raise ConfigError(f"unknown source {spec!r}; known are {_FORMS}{hint}")
    if split not in ("train", "test"):
        raise ConfigError(f"`split` is 'train' or 'test', not {split!r}")
    if size is not None and not 1 <= size <= _MAX_SIDE:
        raise ConfigError(f"`size` is 1 to {_MAX_SIDE} pixels, not {size}")
    return _OPENERS[kind](spec, split, size)
