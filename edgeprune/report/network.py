"""What a run learned: its curves, and which images its network takes for another class."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, open_pack
from edgeprune_formats.remote.locations import RemoteFile
from edgeprune_runtime import PackDataset
from edgeprune_runtime.class_names import class_numbers

from ..inference.confusion import Evaluation
from ..inference.prediction import Prediction, Predictor, softmax
from ..sources import Source, open_source
from ..sources.decoding.kinds import peak_of
from ..training.curves import MEASURES, measure_of, read_metrics, scale_of, series
from .album import evenly
from .charts import lines
from .names import shown
from .pictures import Card, picture
from .pixels import to_integers
from .preview import in_color

__all__ = ["Cell", "Tested", "Tried", "curves", "images_of", "open_tried"]

_TESTED, _BATCH, _SHOWN, _MANY, _PAIRS = 2000, 64, 24, 20, 20
_SHADES = 9
_PACK_BYTES = 2**26


class Tried(Protocol):
    """Labeled images that a network is tried on."""

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images [n, C, H, W] on [0, 1]."""
        ...

    def name(self, row: int) -> str:
        """Return what an image is called."""
        ...


class _Packed:
    """The images of a pack; implements `Tried`."""

    def __init__(self, pack: Pack) -> None:
        self.class_names, self.labels = pack.header.class_names, pack.labels
        self._images = PackDataset(pack, backend="scipy", cache_bytes=_PACK_BYTES, targets=())

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        images: NDArray[np.float32] = np.stack([one for (one,) in self._images.__getitems__(rows.tolist())])
        return images

    def name(self, row: int) -> str:
        return f"row {row}"


class _Original:
    """The images of a source; implements `Tried`."""

    def __init__(self, source: Source) -> None:
        self.class_names, self.labels, self._source = source.class_names, source.labels, source

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        pixels = self._source.read(rows.astype(np.intp))
        images: NDArray[np.float32] = pixels.astype(np.float32) / np.float32(peak_of(pixels))
        return images

    def name(self, row: int) -> str:
        return shown(self._source.name(row))


def open_tried(data: str | RemoteFile, model: Predictor) -> Tried:
    """Open a pack, by its path or URL, or the test split of a source, for a network."""
    channels, height, width = model.image_shape
    if isinstance(data, str) and not Path(data).is_file():
        source = open_source(data, split="test", size=height if height == width else None, planes=channels)
        found, shape = _Original(source), source.shape
        return _fitting(found, shape, data, model)
    return images_of(open_pack(data), model)


def images_of(pack: Pack, model: Predictor) -> Tried:
    """Return the images of a pack, for a network."""
    return _fitting(_Packed(pack), pack.header.shape, pack.path, model)


def _fitting(found: Tried, shape: tuple[int, int, int], data: object, model: Predictor) -> Tried:
    if shape != model.image_shape:
        raise ConfigError(f"{data} has images {shape}, and {model.path} takes {model.image_shape}")
    return found


@dataclass(frozen=True)
class Cell:
    """A number of the confusion matrix, and its shade, 0 to 9."""

    images: int
    shade: int


@dataclass(frozen=True)
class Tested:
    """How well a network tells images apart.

    Attributes
    ----------
    images, of : int
        How many were tried, of how many.
    accuracy, mean_recall : float
    names : list of str
        Of the classes.
    matrix : list of list of Cell
        Rows are true classes, columns those told; empty where there are many.
    pairs : list of (str, str, int)
        True class, class told, images; the most frequent first.
    cards : list of Card
        The images that it takes for another class with the least doubt.
    """

    images: int
    of: int
    accuracy: float
    mean_recall: float
    names: list[str]
    matrix: list[list[Cell]]
    pairs: list[tuple[str, str, int]]
    cards: Sequence[Card]

    @classmethod
    def on(
        cls, tried: Tried, model: Predictor, data: object, progress: Callable[[str], None] | None = None
    ) -> Tested | None:
        """Try a network on up to 2,000 images, evenly spaced; None of what has no classes to compare.

        Raises
        ------
        ConfigError
            Classes that the network lacks.
        SourceError, PackFormatError
            An image cannot be read.
        """
        own = tried.class_names
        if not own or not model.task.is_default:
            return None
        names = own if model.class_names is None else model.class_names
        numbers = class_numbers(own, names)
        if lacking := [name for name, number in zip(own, numbers, strict=True) if number is None]:
            raise ConfigError(f"{data} has classes that {model.path} lacks: {', '.join(lacking[:5])}")
        evaluation, worst = Evaluation(tuple(names)), _Worst()
        rows = evenly(len(tried.labels), _TESTED)
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            images = tried.read(some)
            told = _probabilities(model.logits(images), len(names), data, model)
            for row, image, probabilities in zip(some.tolist(), images, told, strict=True):
                true = numbers[tried.labels[row]]
                assert true is not None
                evaluation.add(true, Prediction(tried.name(row), probabilities))
                worst.add(image, true, Prediction(tried.name(row), probabilities))
            if progress is not None:
                progress(f"classifying images, {min(start + _BATCH, len(rows)):,} of {len(rows):,}")
        return cls._made(evaluation, worst, len(tried.labels))

    @classmethod
    def _made(cls, evaluation: Evaluation, worst: _Worst, of: int) -> Tested:
        names = [shown(name) for name in evaluation.class_names]
        return cls(
            evaluation.images,
            of,
            evaluation.accuracy,
            evaluation.mean_recall,
            names,
            _cells(evaluation.matrix()) if len(names) <= _MANY else [],
            [(names[true], names[told], count) for true, told, count in evaluation.confused()[:_PAIRS]],
            worst.cards(names),
        )


class _Worst:
    """The images that a network takes for another class with the least doubt."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, NDArray[np.float32], int, Prediction]] = []
        self._seen = 0

    def add(self, image: NDArray[np.float32], true: int, told: Prediction) -> None:
        self._seen += 1
        sure = float(told.probabilities.max() - told.probabilities[true])
        if sure > 0:
            heapq.heappush(self._heap, (sure, -self._seen, image, true, told))
            if len(self._heap) > _SHOWN:
                heapq.heappop(self._heap)

    def cards(self, names: Sequence[str]) -> list[Card]:
        return [
            self._card(names, *entry[2:]) for entry in sorted(self._heap, reverse=True, key=lambda e: e[:2])
        ]

    @staticmethod
    def _card(names: Sequence[str], image: NDArray[np.float32], true: int, told: Prediction) -> Card:
        lines = (
            f"label {names[true]}, {told.probabilities[true]:.0%}",
            f"taken for {names[int(told.probabilities.argmax())]}, {told.probabilities.max():.0%}",
            told.image,
        )
        return Card((picture(in_color(to_integers(image[None]))[0], ", ".join(lines)),), lines)


def _cells(matrix: NDArray[np.int64]) -> list[list[Cell]]:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shades = np.ceil(shares * _SHADES).astype(int)
    return [
        [Cell(int(n), int(shade)) for n, shade in zip(*row, strict=True)]
        for row in zip(matrix, shades, strict=True)
    ]


def _probabilities(
    logits: NDArray[np.float32], classes: int, data: object, model: Predictor
) -> NDArray[np.float32]:
    if logits.shape[1] != classes:
        raise ConfigError(f"{data} has {classes} classes, {model.path} {logits.shape[1]}")
    return softmax(logits)


def curves(run: Path) -> list[Markup]:
    """Draw loss, and accuracy or what stands in its place, over the epochs of a run.

    Raises
    ------
    TrainingError
        Its metrics are missing or damaged.
    """
    epochs = read_metrics(run)
    what = measure_of(epochs)
    scale = scale_of(what)
    loss = {part: series(epochs, f"{part}_loss") for part in ("test", "train")}
    measure = {part: series(epochs, f"{part}_{what}", scale) for part in ("test", "train")}
    return [
        lines("loss over the epochs", loss, "epoch", "loss"),
        lines(f"{MEASURES[what]} over the epochs", measure, "epoch", MEASURES[what]),
    ]
