"""Labeled images to try a network on: those of a pack, or of the test split of a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, open_pack
from edgeprune_formats.remote.locations import RemoteFile, as_remote
from edgeprune_runtime import PackDataset
from edgeprune_runtime.class_names import class_numbers

from ..sources import Source, open_source
from ..sources.decoding.kinds import to_floats
from .predictors import Predictor

__all__ = ["Labeled", "match_classes", "open_labeled", "require_outputs"]


@dataclass(frozen=True)
class Labeled:
    """Labeled images of the size that a network takes.

    Attributes
    ----------
    where : object
        What a message calls them.
    origin : Pack or Source
    class_names : tuple of str
        Empty where they have other targets than classes.
    labels : int64 [N]
    name : callable
        Gives what the image of a row is called.
    read : callable
        Gives images float32 [n, C, H, W] on [0, 1] of rows int64 [n].
    """

    where: object
    origin: Pack | Source
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    name: Callable[[int], str]
    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]


def open_labeled(data: Path | str | RemoteFile | Pack, model: Predictor) -> Labeled:
    """Open labeled images for a network.

    Parameters
    ----------
    data : Path, str, RemoteFile or Pack
        A pack, also a far one by its URL; or a source as text, of which the test split is read, with the
        channels that the network takes.
    model : Predictor

    Raises
    ------
    ConfigError
        Images of another size, or a source for a model that takes coefficients.
    SourceError, PackFormatError, RemoteError
        They cannot be read.
    """
    where = data.path if isinstance(data, Pack) else as_remote(data) or data
    if isinstance(where, str):
        if model.takes_coefficients:
            raise ConfigError(f"{model.path} takes coefficients; give it packs, or export without a decoder")
        channels, height, width = model.image_shape
        size = height if height == width else None
        source = open_source(where, split="test", size=size, planes=channels)
        _require_shape(source.shape, where, model)
        names, labels = source.class_names, source.labels
        return Labeled(where, source, names, labels, source.name, lambda rows: to_floats(source.read(rows)))
    pack = data if isinstance(data, Pack) else open_pack(where)
    try:
        _require_shape(pack.header.shape, where, model)
    except ConfigError:
        pack.close()
        raise
    # Without torch, though it may be there: importing it takes longer than most calls of this. A cache holds
    # one chunk at least, and rows come in their order.
    images = PackDataset(pack, backend="scipy", cache_bytes=1, targets=())

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([image for (image,) in images.__getitems__(rows.tolist())])

    return Labeled(where, pack, pack.header.class_names, pack.labels, lambda row: f"{where}[{row}]", read)


def _require_shape(shape: tuple[int, ...], where: object, model: Predictor) -> None:
    if shape != model.image_shape:
        raise ConfigError(f"{where} has images {shape}, and {model.path} takes {model.image_shape}")


def match_classes(images: Labeled, model: Predictor) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of a network's classes, and the number among them of each class of the images.

    A network that knows no names has those of the images.

    Raises
    ------
    ConfigError
        Classes that the network lacks.
    """
    own = images.class_names
    names = own if model.class_names is None else model.class_names
    numbers = class_numbers(own, names)
    if lacking := [name for name, number in zip(own, numbers, strict=True) if number is None]:
        raise ConfigError(f"{images.where} has classes that {model.path} lacks: {', '.join(lacking[:5])}")
    return names, [number for number in numbers if number is not None]


def require_outputs(
    probabilities: NDArray[np.float32], names: Sequence[str], images: Labeled, model: Predictor
) -> None:
    """Raise `ConfigError` unless a network tells one probability, on the last axis, of each class."""
    if probabilities.shape[-1] != len(names):
        raise ConfigError(f"{images.where} has {len(names)} classes, {model.path} {probabilities.shape[-1]}")
