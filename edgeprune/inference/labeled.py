"""Images to try a network on, and what is true of them: those of a pack, or of a source's test split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, EdgePruneError, Pack, open_pack
from edgeprune_formats.remote.locations import RemoteFile, as_remote
from edgeprune_formats.targets import Target
from edgeprune_runtime import PackDataset
from edgeprune_runtime.class_names import class_numbers

from ..sources import Source, is_source, kind_of_file
from ..sources.columns.wanted import as_learned, find_target, open_with_target, require_alike
from ..sources.decoding.kinds import to_floats
from .predictors import Predictor

__all__ = ["Labeled", "as_location", "match_classes", "open_labeled", "require_outputs"]


@dataclass(frozen=True)
class Labeled:
    """Images of the size that a network takes, with what is true of them.

    Attributes
    ----------
    where : object
        What a message calls them.
    origin : Pack or Source
    class_names : tuple of str
        Empty where the class of an image is not known, or is not what the network tells.
    labels : int64 [N]
        Their classes, where there are names; of probabilities the likeliest class.
    target : Target, optional
        What a network that learned something else than the label should tell of all images, if it was asked
        for.
    name : callable
        Gives what the image of a row is called.
    read : callable
        Gives images float32 [n, C, H, W] on [0, 1] of rows int64 [n].
    """

    where: object
    origin: Pack | Source
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    target: Target | None
    name: Callable[[int], str]
    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]


def as_location(data: Path | str | RemoteFile) -> Path | str | RemoteFile:
    """Return the far file of a URL, text of a source as it is, unless such a file exists, and else a path."""
    if (remote := as_remote(data)) is not None or not isinstance(data, str):
        return remote or data
    return data if is_source(data) and not os.path.lexists(data) else Path(data)


def open_labeled(
    data: Path | str | RemoteFile | Pack, model: Predictor, *, with_target: bool = False
) -> Labeled:
    """Open labeled images for a network.

    Parameters
    ----------
    data : Path, str, RemoteFile or Pack
        A pack, also a far one by its URL; or a source as text, of which the test split is read, with the
        channels that the network takes. Text that names what exists is its path.
    model : Predictor
    with_target : bool
        Also read what is true of them, for a network that learned something else than the label.

    Raises
    ------
    ConfigError
        Images of another size, a source for a model that takes coefficients, or no target as the network
        learned it.
    SourceError, PackFormatError, RemoteError
        They cannot be read.
    """
    where = data.path if isinstance(data, Pack) else as_location(data)
    if isinstance(where, str):
        if model.takes_coefficients:
            raise ConfigError(f"{model.path} takes coefficients; give it packs, or export without a decoder")
        channels, height, width = model.image_shape
        size = height if height == width else None
        column = model.task.column() if with_target else None
        source = open_with_target(where, column, split="test", size=size, planes=channels)
        _require_shape(source.shape, where, model)
        truth = _truth(where, source, model, with_target)
        return Labeled(where, source, *truth, source.name, lambda rows: to_floats(source.read(rows)))
    if isinstance(where, Path):
        _require_pack(where)
    pack = data if isinstance(data, Pack) else open_pack(where)
    try:
        _require_shape(pack.header.shape, where, model)
        truth = _truth(where, pack, model, with_target)
    except EdgePruneError:
        pack.close()
        raise
    # Without torch, though it may be there: importing it takes longer than most calls of this. A cache holds
    # one chunk at least, and rows come in their order.
    images = PackDataset(pack, backend="scipy", cache_bytes=1, targets=())

    def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([image for (image,) in images.__getitems__(rows.tolist())])

    return Labeled(where, pack, *truth, lambda row: f"{where}[{row}]", read)


def _truth(
    where: object, images: Pack | Source, model: Predictor, with_target: bool
) -> tuple[tuple[str, ...], NDArray[np.int64], Target | None]:
    """Return the names of classes, the class of each image, and the target if it is another one."""
    own = images.header.class_names if isinstance(images, Pack) else images.class_names
    if model.task.is_default:
        return own, images.labels, None
    unknown = np.zeros(len(images.labels), np.int64)
    if not with_target:
        return (), unknown, None
    column, found = model.task.column(model.class_names), find_target(where, images, model.task.target)
    if model.task.is_ranked:
        require_alike(where, found.column, column)
        values = found.values if found.column.kind == "class" else found.values.argmax(axis=1)
        return found.column.classes, values.astype(np.int64), found
    if column.kind == "value" or column.classes:
        found = Target(replace(found.column, classes=column.classes), as_learned(where, found, column))
    return (), unknown, found


def _require_pack(path: Path) -> None:
    if not path.exists():
        raise ConfigError(f"{path}: no such file; name a pack, or a source such as imagefolder:{path}")
    kind = kind_of_file(path)
    if kind is not None:
        raise ConfigError(f"{path}: is no pack; name {kind}:{path}")


def _require_shape(shape: tuple[int, ...], where: object, model: Predictor) -> None:
    if shape != model.image_shape:
        raise ConfigError(f"{where} has images {shape}, and {model.path} takes {model.image_shape}")


def match_classes(images: Labeled, model: Predictor) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of a network's classes, and the number among them of each class of the images.

    A network that knows no names has those of the images. A class that the network lacks is -1 if no image
    has it.

    Raises
    ------
    ConfigError
        Images of classes that the network lacks.
    """
    own = images.class_names
    names = own if model.class_names is None else model.class_names
    numbers = class_numbers(own, names)
    used = np.bincount(images.labels, minlength=len(own)) > 0
    if lacking := [
        name for name, number, is_used in zip(own, numbers, used, strict=True) if number is None and is_used
    ]:
        raise ConfigError(
            f"{images.where} has images of classes that {model.path} lacks: {', '.join(lacking[:5])}; leave "
            "them out, or train on a pack that has these classes as well"
        )
    return names, [-1 if number is None else number for number in numbers]


def require_outputs(
    probabilities: NDArray[np.float32], names: Sequence[str], images: Labeled, model: Predictor
) -> None:
    """Raise `ConfigError` unless a network tells one probability, on the last axis, of each class."""
    if probabilities.shape[-1] != len(names):
        raise ConfigError(f"{images.where} has {len(names)} classes, {model.path} {probabilities.shape[-1]}")
