"""Eight-bit integers in place of float32, by onnxruntime's static quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import EdgePruneError
from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from .placement import free_fused_inputs, gate_nodes, residual_nodes
from .runtimes import RuntimeName
from .session import IMAGES

if TYPE_CHECKING:
    import onnx

__all__ = ["quantize"]

_WEIGHTED = ["Conv", "Gemm", "MatMul"]


def quantize(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.float32]],
    runtime: RuntimeName = "onnxruntime",
    in_float: Callable[[onnx.GraphProto], Collection[str]] | None = None,
) -> onnx.ModelProto:
    """Return a model whose convolutions, and what lies between them, work on 8-bit integers.

    The ranges of activations are the least and the greatest value that the calibration images give; weights
    are int8 for each channel. Normalization stays float32.

    For ``onnxruntime`` activations are uint8, and 7 bits of the weights are used: processors without VNNI add
    products of 8 bits up in 16, which overflow. For ``tensorrt`` everything is int8 with zero points of 0, as
    its explicit quantization asks: pairs of QuantizeLinear and DequantizeLinear before convolutions, last
    layers and sums, weights in float32 with such a pair of their own, biases and all else in float32.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes images.
    batches : iterable of float32 [n, C, H, W]
        Images on [0, 1] to calibrate with. One batch is held at a time; of those before, extremes only.
    runtime : str
        What the model is for.
    in_float : callable, optional
        Takes the graph to the names of nodes that stay in float32; by default none for ``onnxruntime``, and
        `edgeprune_runtime.onnx.placement.gate_nodes` for ``tensorrt``.

    Raises
    ------
    TrainingError
        onnxruntime cannot quantize it.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, prepared, quantized = (
            str(Path(folder) / f"{name}.onnx") for name in ("given", "ready", "int8")
        )
        onnx.save(model, given)
        try:
            # Only the batch is symbolic here, which plain inference of shapes follows.
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            graph = onnx.load(prepared).graph
            quantization.quantize_static(
                prepared,
                quantized,
                _Reader(batches),
                quant_format=quantization.QuantFormat.QDQ,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                per_channel=True,
                **{**_settings(runtime, graph), **_excluded(in_float, graph)},
            )
        except (EdgePruneError, MemoryError, OSError):
            # A damaged pack or a full disk is no fault of onnxruntime's.
            raise
        except Exception as error:
            reason = one_line(error)
            raise TrainingError(
                f"onnxruntime cannot quantize the model ({reason}); export it in float32"
            ) from error
        found = onnx.load(quantized)
    if runtime == "tensorrt":
        free_fused_inputs(found.graph)
    return _described(found, model)


def _excluded(
    in_float: Callable[[onnx.GraphProto], Collection[str]] | None, graph: onnx.GraphProto
) -> dict[str, Any]:
    return {} if in_float is None else {"nodes_to_exclude": list(in_float(graph))}


def _settings(runtime: RuntimeName, graph: onnx.GraphProto) -> dict[str, Any]:
    """Return the arguments of onnxruntime's ``quantize_static`` that differ by runtime."""
    from onnxruntime.quantization import QuantType

    if runtime == "onnxruntime":
        return {"activation_type": QuantType.QUInt8, "reduce_range": True}
    weighted = [node.name for node in graph.node if node.op_type in _WEIGHTED]
    return {
        "activation_type": QuantType.QInt8,
        "nodes_to_exclude": gate_nodes(graph),
        "nodes_to_quantize": [*weighted, *residual_nodes(graph)],
        "extra_options": {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            # It takes no int32, and fuses the weights with the convolution by itself.
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": [*_WEIGHTED, "Add"],
        },
    }


class _Reader:
    """The batches as onnxruntime asks for them; it knows its CalibrationDataReader by this method."""

    def __init__(self, batches: Iterable[NDArray[np.float32]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {IMAGES: batch}


def _described(found: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Restore what the quantizer does not keep, and leave out the operator sets that it adds unused."""
    used = {node.domain for node in found.graph.node}
    operators = [one for one in found.opset_import if one.domain in used]
    for field in ("opset_import", "metadata_props"):
        found.ClearField(field)
    found.opset_import.extend(operators)
    found.metadata_props.extend(model.metadata_props)
    for entry in found.metadata_props:
        if entry.key == "precision":
            entry.value = "int8"
    found.ir_version = model.ir_version
    found.producer_name, found.producer_version = model.producer_name, model.producer_version
    return found
