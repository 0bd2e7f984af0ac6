"""A trained network as an ONNX graph: images on [0, 1] in, logits out.

Torch's exporter over torch.export makes the graph, with onnxscript; docs/decisions/0012-onnx.md says why.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgeprune_formats import ConfigError, __version__

from ..errors import TrainingError
from ..training.run_folder import load_network
from .session import IMAGES, LOGITS

if TYPE_CHECKING:
    import onnx

__all__ = ["IR_VERSION", "OPSET", "TrainedNetwork", "export_network", "open_network"]

OPSET = 18
"""Of the exporter itself: other versions are conversions. onnxruntime has read it since 1.14."""
IR_VERSION = 8
"""The lowest that goes with `OPSET`, for the sake of old readers."""
# They warn of what is no concern of ours, such as operators of torchvision that no network here has.
_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What a finished run has trained, and the images it takes.

    Attributes
    ----------
    path : Path
        The folder of the run.
    model : torch.nn.Module
        On the CPU, in evaluation mode: normalized float32 [n, C, H, W] to logits [n, classes].
    name : str
        One of `edgeprune_runtime.networks.models.MODEL_NAMES`.
    image_shape : (int, int, int)
        Channels, height and width in pixels.
    mean, std : tuple of float
        Per channel: pixels on [0, 1] less the mean, over the standard deviation.
    num_classes : int
    class_names : tuple of str, optional
        One for each class, where the run knows them.
    """

    path: Path
    model: nn.Module
    name: str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    class_names: tuple[str, ...] | None

    def on_images(self) -> nn.Module:
        """Return the network with normalization before it: images [n, C, H, W] on [0, 1] to logits."""
        return _Normalizing(self.model, self.mean, self.std).eval()


def open_network(run: Path) -> TrainedNetwork:
    """Return the trained network of a run's folder.

    Raises
    ------
    ConfigError
        There is no such folder.
    TrainingError
        The run is not finished, its network is damaged, or does not say how its images are normalized.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: not a folder; name that of a run of edgeprune train")
    try:
        model, facts = load_network(run / "model.safetensors")
    except TrainingError as error:
        # Torch lists what does not fit on lines of their own.
        raise TrainingError(" ".join(str(error).split())) from error
    mean, std = _statistics(run, facts)
    names = facts.get("class_names")
    channels, height, width = map(int, facts["image_shape"])
    return TrainedNetwork(
        run,
        model,
        facts["model"],
        (channels, height, width),
        mean,
        std,
        facts["num_classes"],
        tuple(map(str, names)) if names and len(names) == facts["num_classes"] else None,
    )


def _statistics(run: Path, facts: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = tuple(map(float, facts["mean"])), tuple(map(float, facts["std"]))
    except (KeyError, TypeError, ValueError):
        mean, std = (), ()
    channels = facts["image_shape"][0]
    if not (len(mean) == len(std) == channels and all(map(math.isfinite, mean + std)) and min(std) > 0):
        raise TrainingError(
            f"{run}: does not say how its images are normalized (mean and std); train it from a pack"
        )
    return mean, std


class _Normalizing(nn.Module):
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = model
        # Torch 2.6 calls a node "mean" as well, were that the name of a buffer.
        self.register_buffer("pixel_mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network((images - self.pixel_mean) / self.pixel_std)
        return logits


def export_network(network: TrainedNetwork) -> onnx.ModelProto:
    """Return the ONNX graph of a network, not yet checked (see `edgeprune_runtime.onnx.check`).

    Returns
    -------
    onnx.ModelProto
        ``images``, float32 [n, C, H, W] on [0, 1], to ``logits``, float32 [n, classes], for any n. Batch
        norms are folded into the convolutions before them. Its metadata: ``edgeprune`` (a version),
        ``model``, ``precision``, and as JSON ``image_shape``, ``mean``, ``std`` and, where they are known,
        ``class_names``.

    Raises
    ------
    TrainingError
        Torch's exporter fails on it.
    """
    from torch.fx.experimental.optimization import fuse

    folded = _Normalizing(fuse(network.model), network.mean, network.std).eval()
    # One image would make the exporter take the number for a constant.
    example = torch.zeros(2, *network.image_shape)
    try:
        with _quietly():
            program = torch.onnx.export(
                folded,
                (example,),
                input_names=[IMAGES],
                output_names=[LOGITS],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    except MemoryError:
        raise
    # Between torch.onnx and an onnxscript that it was not made for nearly anything can go wrong.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"{network.path}: torch.onnx cannot export {network.name} ({reason}); "
            "pip install --upgrade onnxscript"
        ) from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    _describe(model, network)
    return model


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the machine that it ran on: paths of source files, line by line."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for field in ("metadata_props", "doc_string"):
        model.ClearField(field)


def _describe(model: onnx.ModelProto, network: TrainedNetwork) -> None:
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "edgeprune", __version__
    model.graph.name = network.name
    facts = {
        "edgeprune": __version__,
        "model": network.name,
        "precision": "float32",
        "image_shape": json.dumps(network.image_shape),
        "mean": json.dumps(network.mean),
        "std": json.dumps(network.std),
    }
    if network.class_names is not None:
        facts["class_names"] = json.dumps(network.class_names)
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
