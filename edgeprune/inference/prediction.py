"""Classifying images: files, folders and packs, by an ONNX model or by the network of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, open_pack
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coefficients import SparseCoefficients
from edgeprune_runtime import PackLoader
from edgeprune_runtime.onnx.session import OnnxModel, open_onnx, require

from ..errors import SourceError
from ..sources.images import IMAGE_SUFFIXES, read_image

if TYPE_CHECKING:
    from edgeprune_runtime.networks.trained import TrainedNetwork

__all__ = ["Prediction", "Predictor", "open_predictor", "predict"]

_BATCH = 32


class Predictor(Protocol):
    """What tells classes of images."""

    @property
    def path(self) -> Path:
        """Where it comes from."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images it takes."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """One name for each class, where they are known."""
        ...

    @property
    def takes_coefficients(self) -> bool:
        """Whether it decodes packs by itself, and takes nothing else."""
        ...

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [n, classes] of images [n, C, H, W] on [0, 1]."""
        ...


@dataclass(frozen=True)
class Prediction:
    """What was told of one image.

    Attributes
    ----------
    image : str
        The file, or pack and row.
    probabilities : float32 [classes]
    label : str, optional
        The true class, where a pack says it.
    """

    image: str
    probabilities: NDArray[np.float32]
    label: str | None = None


class _RunNetwork:
    """The network of a run, in torch; implements `Predictor`."""

    takes_coefficients = False

    def __init__(self, network: TrainedNetwork) -> None:
        self.path, self.image_shape = network.path, network.image_shape
        self.class_names = network.class_names
        self._on_images = network.on_images()

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = self._on_images(torch.from_numpy(images)).numpy()
        return logits


def open_predictor(path: Path) -> Predictor:
    """Open an ``.onnx`` file, for which onnxruntime suffices, or the folder of a run, which needs torch.

    Raises
    ------
    ConfigError
        It is neither, or what it needs is not installed.
    ArtifactError, TrainingError
        It is damaged, or the run is not finished.
    """
    if path.is_dir():
        require("a run's folder", "torch", "torchvision", "safetensors")
        from edgeprune_runtime.networks.trained import open_network

        return _RunNetwork(open_network(path))
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: name a file that ends in .onnx, or the folder of a run")
    return open_onnx(path)


def predict(model: Predictor, paths: Sequence[Path]) -> Iterator[Prediction]:
    """Classify image files, those of folders, and the images of packs, in this order.

    Files are scaled and cropped as ``build --size`` does it, if the model takes squares. Every file is
    looked for before the first is read.

    Raises
    ------
    ConfigError
        Images of a pack that are not of the model's size, or files for a model that takes coefficients.
    SourceError, PackFormatError
        An image or a pack cannot be read; those before it were told.
    """
    found = list(_found(paths))
    files: list[Path] = []
    for path, is_pack in found:
        if is_pack:
            yield from _of_files(model, files)
            files = []
            yield from _of_pack(model, path)
        else:
            files.append(path)
    yield from _of_files(model, files)


def _found(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if _is_image(file.relative_to(path)))
            if not files:
                raise SourceError(f"{path}: no images in this folder ({' '.join(IMAGE_SUFFIXES)})")
            yield from ((file, False) for file in files)
        else:
            yield path, h5py.is_hdf5(path)


def _is_image(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _of_files(model: Predictor, files: Sequence[Path]) -> Iterator[Prediction]:
    if files and model.takes_coefficients:
        raise ConfigError(f"{model.path} takes coefficients; give it packs, or export without a decoder")
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        images = np.stack([_pixels(file, model.image_shape) for file in batch])
        for file, probabilities in zip(batch, _softmax(model.logits(images)), strict=True):
            yield Prediction(str(file), probabilities)


def _pixels(file: Path, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return one file as float32 [3, H, W] on [0, 1]."""
    _, height, width = shape
    pixels = read_image(file, height if height == width else None)
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise SourceError(f"{file}: has {found} pixels, and the model takes {width}x{height}")
    image: NDArray[np.float32] = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return image


def _of_pack(model: Predictor, path: Path) -> Iterator[Prediction]:
    with open_pack(path) as pack:
        header = pack.header
        if header.shape != model.image_shape:
            raise ConfigError(f"{path} has images {header.shape}, and {model.path} takes {model.image_shape}")
        row = 0
        for logits in _logits_of_pack(model, pack):
            for probabilities in _softmax(logits):
                label = header.class_names[pack.labels[row]]
                yield Prediction(f"{path}[{row}]", probabilities, label)
                row += 1


def _logits_of_pack(model: Predictor, pack: Pack) -> Iterator[NDArray[np.float32]]:
    if isinstance(model, OnnxModel) and model.takes_coefficients:
        if get_codec(pack.header.codec).layout is not SparseCoefficients:
            raise ConfigError(
                f"{pack.path}: {model.path} takes sparse coefficients, not those of codec "
                f"{pack.header.codec}; edgeprune convert makes a pack of codec sparse-f32 of it"
            )
        for chunk in range(pack.header.chunks):
            coefficients = pack.read_chunk(chunk)
            for start in range(0, len(coefficients), _BATCH):
                part = coefficients.take(slice(start, start + _BATCH))
                yield model.logits_of_coefficients(*part.arrays)
        return
    # Without torch, though it may be there: importing it takes longer than most calls of this.
    for images, _ in PackLoader(pack, _BATCH, backend="scipy", prefetch=0):
        yield model.logits(images)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
