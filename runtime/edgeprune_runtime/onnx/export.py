"""A trained network as an ONNX graph: images on [0, 1] in, logits out.

Torch's exporter over torch.export makes the graph, with onnxscript; docs/decisions/0012-onnx.md says why.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from edgeprune_formats import __version__
from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from ..networks.names import is_code
from ..networks.trained import NormalizedNetwork, TrainedNetwork
from .runtimes import IR_VERSION, OPSET
from .session import IMAGES, LOGITS

if TYPE_CHECKING:
    import onnx

__all__ = ["export_network"]

# They warn of what is no concern of ours, such as operators of torchvision that no network here has.
_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")
_UPGRADE = "pip install --upgrade onnxscript"


def export_network(network: TrainedNetwork) -> onnx.ModelProto:
    """Return the ONNX graph of a network, not yet checked (see `edgeprune_runtime.onnx.check`).

    Returns
    -------
    onnx.ModelProto
        ``images``, float32 [n, C, H, W] on [0, 1], to ``logits``, float32 [n, classes], for any n. Batch
        norms are folded into the convolutions before them where torch.fx can follow the network. Its
        metadata: ``edgeprune`` (a version), ``model``, ``precision``, and as JSON ``image_shape``, ``mean``,
        ``std`` and, where they are known, ``class_names`` and ``task``. Several labels come as probabilities,
        by the sigmoid function, and values in their unit, in place of logits.

    Raises
    ------
    TrainingError
        Torch's exporter fails on it.
    """
    folded = NormalizedNetwork(_fused(network.model), network.known_normalization, network.task).eval()
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
        raise TrainingError(
            f"{network.path}: torch.onnx cannot export {network.name} ({_reason(error)}); "
            + ("write its code so that torch.export follows it" if is_code(network.name) else _UPGRADE)
        ) from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    _describe(model, network)
    return model


def _reason(error: BaseException) -> str:
    """Return the first line of the error that came first: the exporter's own text is advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0])


def _fused(model: torch.nn.Module) -> torch.nn.Module:
    """Fold batch norms into convolutions, where torch.fx can follow the network."""
    from torch.fx.experimental.optimization import fuse

    try:
        fused: torch.nn.Module = fuse(model)
    except MemoryError:
        raise
    # Code of the user's, and timm's, may fail in any way where it meets stand-ins for tensors.
    except Exception:
        return model
    # The exporter takes twice as long over activations in place, and makes the same graph of others.
    for module in fused.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return fused


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    # Torch prints the whole graph where it cannot follow a network.
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
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
    if not network.task.is_default:
        facts["task"] = json.dumps(network.task.to_json())
    if network.class_names is not None:
        facts["class_names"] = json.dumps(network.class_names)
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
