"""Classifying images: files, folders and packs, by an ONNX model or by the network of a run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, EdgePruneError, Pack, PackFormatError
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coefficients import SparseCoefficients
from edgeprune_formats.packs.inspection import signature_problem
from edgeprune_formats.remote.locations import RemoteFile
from edgeprune_runtime.loading.chunks.cache import ChunkCache
from edgeprune_runtime.onnx.session import OnnxModel
from edgeprune_runtime.text import count_text

from ..errors import SourceError
from ..sources import Source
from ..sources.check import read_images
from ..sources.decoding.files import images_below, unread_text
from ..sources.decoding.images import IMAGE_SUFFIXES, read_image
from ..sources.decoding.kinds import to_floats
from .labeled import Labeled, as_location, open_labeled
from .predictors import Predictor, opened

__all__ = ["Prediction", "as_told", "predict", "softmax"]

_BATCH = 32
_Batches = Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.float32]]]


@dataclass(frozen=True)
class Prediction:
    """What was told of one image.

    Attributes
    ----------
    image : str
        The file, the pack and row, or what a source calls it.
    probabilities : float32 [classes]
        Of each class by itself where an image has several labels; of a value its numbers, in its unit.
    label : str, optional
        The true class, where a pack or source says it, of a network that has learned the target ``label``.
    row : int, optional
        Of a pack or source, from 0 on.
    """

    image: str
    probabilities: NDArray[np.float32]
    label: str | None = None
    row: int | None = None


def predict(
    model: Predictor | str | Path,
    paths: Path | str | RemoteFile | Labeled | Sequence[Path | str | RemoteFile | Labeled],
    *,
    skip_bad: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Prediction]:
    """Classify image files, those of folders, and the images of packs and sources, in this order.

    Files are scaled and cropped as ``build --size`` does it, if the model takes squares. Every file is
    looked for before the first is read. An image that cannot be read, or a chunk of a pack, does not keep
    the others from being told.

    Parameters
    ----------
    model : Predictor, str or Path
        A path is opened by `edgeprune.open_predictor`.
    paths : Path, str, RemoteFile or Labeled, or a sequence of them
        A str is the URL of a far pack, a path that exists, or a source, of which the test split is read, see
        `edgeprune.open_source`; Labeled is a pack or a source, opened for this model.
    skip_bad : bool
        Leave out what cannot be read, in place of raising an error once all others are told.
    tell : callable, optional
        Given a line on what is left out: each bad image with `skip_bad`, how many there are, and images of
        formats that are not read.

    Yields
    ------
    Prediction
        Of each image, in the order of `paths`.

    Raises
    ------
    ConfigError
        Images of a pack or source that are not of the model's size, or a model that takes coefficients for
        anything but packs.
    SourceError
        A folder holds no images; or, once all others are told, an image or a pack cannot be read.
    """
    model, tell = opened(model), tell or (lambda line: None)
    unread: Counter[str] = Counter()
    named = [paths] if isinstance(paths, Path | str | RemoteFile | Labeled) else paths
    found = list(_found(named, unread))
    if unread:
        tell(unread_text(unread))
    bad = _Unread()
    told = 0
    for kind, group in itertools.groupby(found, key=lambda entry: entry[1]):
        files = [path for path, _ in group]
        if kind is _of_files:
            parts: Iterable[Iterator[Prediction]] = (_of_files(model, files, bad),)
        else:
            parts = (kind(model, file, bad) for file in files)
        for prediction in itertools.chain.from_iterable(parts):
            told += 1
            yield prediction
    errors = bad.errors
    if errors and not skip_bad:
        others = f" (and {len(errors) - 1:,} more like it)" if len(errors) > 1 else ""
        raise SourceError(f"{errors[0]}{others}; pass `skip_bad=True` to leave it out") from errors[0]
    for error in errors:
        tell(f"skipped {error}")
    if errors:
        tell(f"{count_text(bad.images, 'image')} could not be read, {told:,} images are told")


class _Unread:
    """What could not be read."""

    def __init__(self) -> None:
        self.errors: list[EdgePruneError] = []
        self.images = 0

    def add(self, error: EdgePruneError, images: int = 1) -> None:
        self.errors.append(error)
        self.images += images


def _found(
    named: Sequence[Path | str | RemoteFile | Labeled], unread: Counter[str]
) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """Give what was named, a file of a folder at a time, each with what classifies it."""
    for data in named:
        path = data if isinstance(data, Labeled) else as_location(data)
        if not isinstance(path, Path):
            yield path, _of_labeled
        elif path.is_dir():
            files = [path / name for name in images_below(str(path), unread=unread)]
            if not files:
                other = f"; {unread_text(unread)}" if unread else ""
                raise SourceError(f"{path}: no images in this folder ({' '.join(IMAGE_SUFFIXES)}){other}")
            yield from ((file, _of_files) for file in files)
        else:
            if path.exists() and not path.is_file():
                raise SourceError(f"{path}: not a regular file; name an image, a pack or a folder")
            is_pack = path.exists() and signature_problem(path) is None
            yield path, _of_labeled if is_pack else _of_files


def _of_files(model: Predictor, files: Sequence[Path], bad: _Unread) -> Iterator[Prediction]:
    if files and model.takes_coefficients:
        raise ConfigError(f"{model.path} takes coefficients; give it packs, or export without a decoder")
    for start in range(0, len(files), _BATCH):
        good: list[tuple[Path, NDArray[np.float32]]] = []
        for file in files[start : start + _BATCH]:
            try:
                good.append((file, _pixels(file, model.image_shape)))
            except SourceError as error:
                bad.add(error)
        if not good:
            continue
        logits = model.logits(np.stack([image for _, image in good]))
        for (file, _), probabilities in zip(good, as_told(model, logits), strict=True):
            yield Prediction(str(file), probabilities)


def _pixels(file: Path, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return one file as float32 [C, H, W] on [0, 1]."""
    channels, height, width = shape
    pixels = read_image(file, height if height == width else None, channels)
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise SourceError(f"{file}: has {found} pixels, and the model takes {width}x{height}")
    return to_floats(pixels.transpose(2, 0, 1))


def _of_labeled(
    model: Predictor, data: Path | str | RemoteFile | Labeled, bad: _Unread
) -> Iterator[Prediction]:
    try:
        images = data if isinstance(data, Labeled) else open_labeled(data, model)
    except PackFormatError as error:
        bad.add(error)
        return
    names = images.class_names
    if isinstance(images.origin, Pack):
        batches = _logits_of_pack(model, images, images.origin, bad)
    else:
        batches = _logits_of_source(model, images.origin, bad)
    for rows, logits in batches:
        for row, probabilities in zip(rows.tolist(), as_told(model, logits), strict=True):
            label = names[images.labels[row]] if names else None
            yield Prediction(images.name(row), probabilities, label, row)


def _logits_of_source(model: Predictor, source: Source, bad: _Unread) -> _Batches:
    """Give the rows of each batch and its logits; an image that cannot be read joins `bad`."""
    for start in range(0, len(source), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(source)))
        good, pixels, messages = read_images(source, rows)
        for message in messages:
            bad.add(SourceError(message))
        if len(good):
            yield good, model.logits(to_floats(pixels))


def _logits_of_pack(model: Predictor, images: Labeled, pack: Pack, bad: _Unread) -> _Batches:
    """Give the rows of each batch and its logits; a chunk that is damaged joins `bad`."""
    with pack:
        logits_of = _reader_of(model, images, pack)
        for chunk in map(pack.header.chunk_rows, range(pack.header.chunks)):
            first = 0
            try:
                for first in range(0, len(chunk), _BATCH):
                    rows = np.array(chunk[first : first + _BATCH])
                    yield rows, logits_of(rows)
            except PackFormatError as error:
                bad.add(error, len(chunk) - first)


def _reader_of(
    model: Predictor, images: Labeled, pack: Pack
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Return what gives logits of rows of a pack."""
    if not (isinstance(model, OnnxModel) and model.takes_coefficients):
        return lambda rows: model.logits(images.read(rows))
    if get_codec(pack.header.codec).layout is not SparseCoefficients:
        raise ConfigError(
            f"{pack.path}: {model.path} takes sparse coefficients, not those of codec "
            f"{pack.header.codec}; edgeprune convert makes a pack of codec sparse-f32 of it"
        )
    # It holds one chunk at least, and rows come in their order.
    cache = ChunkCache(pack, 1)

    def logits_of_coefficients(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        coefficients, where = cache.find(rows)
        return model.logits_of_coefficients(*coefficients.take(where).arrays)

    return logits_of_coefficients


def as_told(model: Predictor, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a model tells of images: probabilities of classes, or other targets as they come."""
    return softmax(outputs) if model.task.is_ranked else outputs


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities [n, classes] of logits [n, classes]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
