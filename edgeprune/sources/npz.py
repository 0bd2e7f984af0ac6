"""A NumPy archive of images and labels, such as ``np.savez_compressed(file, x_train=..., y_train=...)``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.limits import MAX_CHANNELS
from edgeprune_formats.targets import Target

from ..errors import SourceError
from .arrays import ArraySource
from .columns.requests import TargetRequest, are_enough, parse_targets
from .columns.values import make_target
from .decoding.kinds import peak_of
from .naming.labels import refuse_empty_classes
from .naming.options import with_targets

__all__ = ["open_npz"]

_MAX_CLASSES = 2**20  # of a pack

_Array = NDArray[Any]


def open_npz(spec: str, split: str, size: int | None) -> ArraySource:
    """Open a NumPy archive.

    Arrays ``x_train`` and ``y_train`` (``x_test`` and ``y_test``) are used if there, else ``x`` and ``y``,
    which serve either split.

    Images are uint8 or uint16: [N, C, H, W] or [N, H, W, C] with C from 1 to 32, or [N, H, W] gray. A shape
    that fits both, such as [N, 3, 32, 3], is taken as [N, C, H, W], unless C would be other than 1 and 3 and
    only as [N, H, W, C] the images are squares, or have 1 or 3 channels.

    Labels are integers of any width, [N] or [N, 1], numbered from 0. An optional array ``class_names``
    (text, [classes]) names the classes; otherwise they are ``"0"``, ``"1"`` and so on up to the highest
    label of either split.

    Further arrays become targets where they are named, such as ``age`` or ``age_train`` by
    ``npz:FILE?target=age:value``, with the names of classes in ``age_names``. Then there need not be labels.

    Parameters
    ----------
    spec : str
        ``"npz:FILE"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        Side to which `ArraySource.read` scales the images.

    Raises
    ------
    ConfigError
        FILE is missing in `spec`.
    SourceError
        The file is no such archive, is damaged, or its arrays do not fit the description or each other;
        (split ``"train"``) a class has no images.

    Notes
    -----
    The pixels of one split are held in memory.
    """
    place, options = with_targets(spec)
    file = place.partition(":")[2]
    if not file:
        raise ConfigError("npz needs a file; write npz:FILE")
    path = str(Path(file).expanduser())
    requests = parse_targets(options.target)
    arrays = _load(path, split, requests)
    x_key = next(iter(arrays))
    y_key = x_key.replace("x", "y", 1)
    pixels = _pixels(arrays[x_key], f"{path}: {x_key}")
    targets = tuple(_target(one, arrays, x_key, len(pixels), path) for one in requests)
    names: tuple[str, ...] = ()
    labels = np.zeros(len(pixels), np.int64)
    if y_key in arrays or not are_enough(target.column.kind for target in targets):
        labels, names = _labels_and_names(arrays, x_key, y_key, path)
        if len(pixels) != len(labels):
            found = f"{x_key} has {len(pixels)} images but {y_key} has {len(labels)} labels"
            raise SourceError(f"{path}: {found}")
        if split == "train":
            refuse_empty_classes(labels, names, f"{path}: {y_key}")
    notes = _notes(pixels, f"{path}: no pixel of {x_key} is above")
    return ArraySource(spec, split, None, names, labels, pixels, size, x_key, x_key == "x", notes, targets)


def _notes(pixels: NDArray[np.uint8 | np.uint16], none_above: str) -> tuple[str, ...]:
    peak, highest = peak_of(pixels), int(pixels.max())
    if highest <= 1:
        return (f"{none_above} 1; pixels are 0 to {peak}: multiply fractions by {peak}",)
    if peak > 255 >= highest:
        return (f"{none_above} 255, and of uint16 they are 0 to {peak}: save them as uint8",)
    return ()


def _labels_and_names(
    arrays: Mapping[str, _Array], x_key: str, y_key: str, path: str
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if y_key not in arrays:
        raise SourceError(f"{path}: has no {y_key} for {x_key}, nor a target that can be learned")
    labels = _labels(arrays[y_key], f"{path}: {y_key}")
    classes = 1 + max(int(labels.max(initial=0)), _highest(arrays, path))
    return labels, _class_names(arrays.get("class_names"), classes, path)


def _target(
    request: TargetRequest, arrays: Mapping[str, _Array], x_key: str, images: int, path: str
) -> Target:
    columns = [arrays[_own_key(name, x_key, arrays)] for name in request.columns]
    for name, column in zip(request.columns, columns, strict=True):
        if column.ndim < 1 or len(column) != images:
            found = f"{len(column)} values" if column.ndim else "one value"
            raise SourceError(f"{path}: {name} has {found} for {images} images")
    names = arrays.get(f"{request.columns[0]}_names")
    if names is not None and (names.dtype.kind != "U" or names.ndim != 1):
        raise SourceError(f"{path}: {request.columns[0]}_names is {names.dtype}; save a list of text")
    classes = None if names is None else [str(name) for name in names]
    return make_target(request, columns, path, lambda row: f"image {row}", classes)


def _own_key(name: str, x_key: str, keys: Collection[str]) -> str:
    """Return the array of a target: that of the split, where images have one."""
    own = name + x_key.removeprefix("x")
    return own if own in keys else name


def _load(path: str, split: str, requests: Sequence[TargetRequest]) -> dict[str, _Array]:
    """Read the images and labels of `split`, in this order, then what else tells the classes."""
    try:
        # Given a path, np.load leaves the file open when it is no archive.
        with Path(path).open("rb") as stream:
            return _members(stream, split, path, requests)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _members(stream: BinaryIO, split: str, path: str, requests: Sequence[TargetRequest]) -> dict[str, _Array]:
    try:
        archive = np.load(stream, allow_pickle=False)
    # NumPy and zipfile raise nearly any exception on damaged files.
    except Exception as error:
        raise SourceError(f"{path}: is not an npz file, or is cut off; write it with np.savez") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise SourceError(f"{path}: is a single array; write images and labels with np.savez(x=..., y=...)")
    with archive:
        return {key: _member(archive, key, path) for key in _wanted(archive.files, split, path, requests)}


def _wanted(keys: list[str], split: str, path: str, requests: Sequence[TargetRequest]) -> list[str]:
    own = (f"x_{split}", f"y_{split}")
    images, labels = own if own[0] in keys or own[1] in keys else ("x", "y")
    found = ", ".join(keys) or "nothing"
    if images not in keys or (labels not in keys and not requests):
        raise SourceError(f"{path}: has no {own[0]} and {own[1]} (nor x and y); it holds {found}")
    others = ["y_train", "y_test"] if images != "x" else []
    for name in (name for request in requests for name in request.columns):
        own_key = _own_key(name, images, keys)
        if own_key not in keys:
            other = f"`target={name}=ARRAY` takes another"
            raise SourceError(f"{path}: has no array {name!r} for a target; it holds {found}; {other}")
        others += [own_key, f"{name}_names"]
    return [images, *(key for key in dict.fromkeys((labels, *others, "class_names")) if key in keys)]


def _member(archive: Mapping[str, _Array], key: str, path: str) -> _Array:
    try:
        array = archive[key]
    except MemoryError as error:
        raise SourceError(f"{path}: {key} does not fit in memory") from error
    except Exception as error:
        if "allow_pickle" in str(error):
            reason = "holds Python objects; save it as plain numbers or text, with an explicit dtype"
        else:
            reason = f"is damaged or cut off ({error}); write the file again"
        raise SourceError(f"{path}: {key} {reason}") from error
    if not isinstance(array, np.ndarray):
        raise SourceError(f"{path}: {key} is not an array; write the file with np.savez")
    return array


def _pixels(array: _Array, where: str) -> NDArray[np.uint8 | np.uint16]:
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise SourceError(f"{where} is {array.dtype}; save pixels of 0..255 as uint8, of 0..65535 as uint16")
    # In the byte order of this machine.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.ndim == 3:
        array = array[:, np.newaxis]
    elif array.ndim == 4 and _channels_last(*array.shape[1:]):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] > MAX_CHANNELS:
        raise SourceError(
            f"{where} is {list(array.shape)}, not [N, C, H, W], [N, H, W, C] or [N, H, W], with at most "
            f"{MAX_CHANNELS} channels"
        )
    if array.size == 0:
        raise SourceError(f"{where} is {list(array.shape)}: it holds no images")
    return array


def _channels_last(second: int, third: int, last: int) -> bool:
    """Tell whether images of these sides are [H, W, C] rather than [C, H, W]."""
    if second in (1, 3):
        return False
    if last in (1, 3):
        return True
    return last <= MAX_CHANNELS and (second > MAX_CHANNELS or second == third != last)


def _labels(array: _Array, where: str) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu":
        raise SourceError(f"{where} is {array.dtype}; save class numbers as integers: .astype('int64')")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise SourceError(f"{where} is {list(array.shape)}, not [N]; for one-hot rows save .argmax(axis=1)")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < _MAX_CLASSES:
        span = f"{array.min()} to {array.max()}"
        raise SourceError(f"{where} runs from {span}; number the classes 0, 1, 2 and so on")
    return array.astype(np.int64)


def _highest(arrays: Mapping[str, _Array], path: str) -> int:
    keys = [key for key in ("y_train", "y_test") if key in arrays]
    return max((int(_labels(arrays[key], f"{path}: {key}").max(initial=0)) for key in keys), default=0)


def _class_names(array: _Array | None, classes: int, path: str) -> tuple[str, ...]:
    if array is None:
        return tuple(str(label) for label in range(classes))
    if array.dtype.kind != "U" or array.ndim != 1:
        raise SourceError(f"{path}: class_names is {array.dtype} {list(array.shape)}; save a list of text")
    if len(array) < classes:
        raise SourceError(f"{path}: class_names has {len(array)} names, but labels run to {classes - 1}")
    if len(np.unique(array)) < len(array):
        raise SourceError(f"{path}: class_names repeats a name; give each class its own")
    return tuple(str(name) for name in array)
