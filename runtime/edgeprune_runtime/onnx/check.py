"""Checking an exported model before anybody gets to see it, and writing it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats.coefficients import pack_positions
from edgeprune_formats.errors import one_line
from edgeprune_formats.files import atomic_file

from ..errors import TrainingError
from ..networks.trained import TrainedNetwork
from .session import IMAGES, INDICES, LOGITS, VALUES, start_session

if TYPE_CHECKING:
    import onnx

__all__ = ["TOLERANCE", "Agreement", "check_export", "check_structure", "random_images", "write_model"]

TOLERANCE = 1e-4
"""Largest difference of a logit to torch's, as it is or, where logits exceed 1, as a share of the largest.

Values are held against it less their mean and in standard deviations, as the network itself gives them.
"""
# Steps of float32 by which a value may be rounded otherwise when it is brought to its unit.
_ROUNDINGS = 4
_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Agreement:
    """How an exported model compares to the network in torch; values count less their mean, in deviations.

    Attributes
    ----------
    difference : float
        The largest of any output.
    logit : float
        The largest magnitude of an output.
    images : int
        On how many images.
    """

    difference: float
    logit: float
    images: int


def check_structure(model: onnx.ModelProto) -> None:
    """Let the checker of onnx look at the whole graph, with the inference of shapes.

    Raises
    ------
    TrainingError
        It finds something.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = one_line(error)
        raise TrainingError(
            f"the exported model is not valid ONNX ({reason}); try another onnxscript"
        ) from error


def check_export(model: onnx.ModelProto, network: TrainedNetwork, images: NDArray[np.float32]) -> Agreement:
    """Compare a model in onnxruntime with the network in torch, on batches of several sizes.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes images, or coefficients (see `edgeprune_runtime.onnx.decoder`): then half of those of the
        images, another half for each, and torch takes what scipy makes of them.
    network : TrainedNetwork
        What it was exported from.
    images : float32 [n, C, H, W]
        On [0, 1]; noise is added to them.

    Raises
    ------
    TrainingError
        A difference above `TOLERANCE`.
    """
    check_structure(model)
    session = start_session(model.SerializeToString())
    reference = network.on_images()
    decodes = {one.name for one in session.get_inputs()} != {IMAGES}
    outputs: list[NDArray[np.float32]] = []
    wanted: list[NDArray[np.float32]] = []
    pixels = np.concatenate([random_images(sum(_BATCHES), network.image_shape), images])
    for batch in _split(pixels):
        feed = {IMAGES: batch}
        if decodes:
            feed, batch = _some_coefficients(batch)
        with torch.no_grad():
            wanted.append(reference(torch.from_numpy(batch)).numpy())
        outputs.append(session.run([LOGITS], feed)[0])
    found, expected = np.concatenate(outputs), np.concatenate(wanted)
    task = network.task
    unit, mean = np.array(task.std or 1.0), np.array(task.mean or 0.0)
    apart, sizes = np.abs(found - expected) / unit, np.abs(expected - mean) / unit
    difference, logit = float(apart.max()), float(sizes.max())
    rounding = _ROUNDINGS * np.finfo(np.float32).eps * np.abs(expected) / unit if task.mean else 0.0
    # NaN in either is above every bound.
    if not (apart <= TOLERANCE * max(1.0, logit) + rounding).all():
        raise TrainingError(
            f"{network.path}: the exported model differs from torch by {difference:.2g} on outputs up to "
            f"{logit:.3g}{', in standard deviations' if task.mean else ''}; try another version of "
            "onnxruntime or onnxscript"
        )
    return Agreement(difference, logit, len(pixels))


def random_images(count: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return noise, float32 [count, *shape] on [0, 1]."""
    return np.random.default_rng(0).random((count, *shape), np.float32)


def _split(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Give one batch of each size, then the rest in batches of 32."""
    for size in _BATCHES:
        yield images[:size]
        images = images[size:]
    for start in range(0, len(images), 32):
        yield images[start : start + 32]


def _some_coefficients(
    images: NDArray[np.float32],
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    """Return half of the coefficients of each image, as a pack has them, and the images that they give."""
    from scipy.fft import dctn, idctn

    n, channels, height, width = images.shape
    kept = max(1, height * width // 2)
    order = np.random.default_rng(0).random((n, channels, height * width)).argsort(axis=2)
    flat = np.sort(order[..., :kept], axis=2)
    spectra = dctn(images, axes=(2, 3), norm="ortho").reshape(n, channels, -1)
    values = np.take_along_axis(spectra, flat, axis=2).astype(np.float32)
    dense = np.zeros_like(spectra, np.float32)
    np.put_along_axis(dense, flat, values, axis=2)
    pixels = idctn(dense.reshape(images.shape), axes=(2, 3), norm="ortho").astype(np.float32)
    return {VALUES: values, INDICES: pack_positions(flat, height, width)}, pixels


def write_model(model: onnx.ModelProto, path: Path) -> int:
    """Write a model that was checked, whole or not at all, and return its size in bytes.

    Raises
    ------
    PackWriteError
        The file cannot be written: no such folder, no permission, disk full.
    """
    content: bytes = model.SerializeToString()
    with atomic_file(path) as partial:
        partial.write_bytes(content)
    return len(content)
