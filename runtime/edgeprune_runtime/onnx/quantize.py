"""Eight-bit integers in place of float32, by onnxruntime's static quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import EdgePruneError
from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from .session import IMAGES

if TYPE_CHECKING:
    import onnx

__all__ = ["quantize"]


def quantize(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> onnx.ModelProto:
    """Return a model whose convolutions, and what lies between them, work on 8-bit integers.

    Activations are uint8, their ranges the least and the greatest that the calibration images give;
    weights are int8 for each channel, of which 7 bits are used: processors without VNNI add products of
    8 bits up in 16, which overflow. Normalization stays float32.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes images.
    batches : iterable of float32 [n, C, H, W]
        Images on [0, 1] to calibrate with. One batch is held at a time; of those before, extremes only.

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
            quantization.quantize_static(
                prepared,
                quantized,
                _Reader(batches),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                per_channel=True,
                reduce_range=True,
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
    return _described(found, model)


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
