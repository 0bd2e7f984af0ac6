"""Eight-bit integers in place of float32, by onnxruntime's static quantization."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import EdgePruneError
from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from .placement import free_fused_inputs, gate_nodes, prediction_nodes, residual_nodes
from .runtimes import RuntimeName
from .session import IMAGES, LOGITS, start_session

if TYPE_CHECKING:
    import onnx

__all__ = ["quantize"]

Batches = Callable[[], Iterable[NDArray[np.float32]]]

_WEIGHTED = ["Conv", "Gemm", "MatMul"]
# Of the values of an activation, in percent; None for all.
_SHARES = (None, 99.99, 99.9)
# At once of the calibration images: what every layer makes of them is held.
_PIXELS = 2**18


def quantize(
    model: onnx.ModelProto,
    batches: Batches,
    runtime: RuntimeName = "onnxruntime",
    in_float: Callable[[onnx.GraphProto], Collection[str]] | None = None,
    unit: Sequence[float] = (),
) -> onnx.ModelProto:
    """Return a model whose convolutions, and what lies between them, work on 8-bit integers.

    The ranges of activations are the least and the greatest value that the calibration images give, or the
    middle 99.99 or 99.9 percent of the values: whichever brings the outputs for these images nearest to those
    of float32, by the median of their squared distances. A few large values would else leave the others few
    of the 256 steps. Weights are int8 for each channel. Normalization stays float32, and so does what makes
    probabilities or values in their unit of the last layer's outputs.

    For ``onnxruntime`` activations are uint8. Processors without VNNI add two products of 8 bits up in 16,
    which must not overflow: no two weights of a channel are above 128 together. For ``tensorrt`` everything
    is int8 with zero points of 0, as its explicit quantization asks: pairs of QuantizeLinear and
    DequantizeLinear before convolutions, last layers and sums, weights in float32 with such a pair of their
    own, biases and all else in float32.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes images.
    batches : callable
        Gives images on [0, 1] to calibrate with, float32 [n, C, H, W], and the same each time. One batch is
        held at a time, with what every layer makes of a few of its images.
    runtime : str
        What the model is for.
    in_float : callable, optional
        Takes the graph to the names of nodes that stay in float32 besides; by default none for
        ``onnxruntime``, and `edgeprune_runtime.onnx.placement.gate_nodes` for ``tensorrt``.
    unit : sequence of float, optional
        What distances between outputs are measured in, one for each output, such as the standard deviations
        of several values; by default 1.

    Raises
    ------
    TrainingError
        onnxruntime cannot quantize it.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    def attempts(folder: Path) -> Iterator[onnx.ModelProto]:
        given, prepared = (str(folder / f"{name}.onnx") for name in ("given", "ready"))
        onnx.save(model, given)
        # Only the batch is symbolic here, which plain inference of shapes follows.
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        settings = {**_settings(runtime, graph), **_excluded(runtime, in_float, graph)}
        count = sum(1 for _ in _split(batches))
        for share in _SHARES:
            found = _calibrated(prepared, _Reader(batches, count), share, settings)
            if runtime == "tensorrt":
                free_fused_inputs(found.graph)
            yield found

    with tempfile.TemporaryDirectory() as folder:
        try:
            errors = _Errors(model, batches, unit)
            return _described(min(attempts(Path(folder)), key=errors), model)
        except (EdgePruneError, MemoryError, OSError):
            # A damaged pack or a full disk is no fault of onnxruntime's.
            raise
        except Exception as error:
            reason = one_line(error)
            raise TrainingError(
                f"onnxruntime cannot quantize the model ({reason}); export it in float32"
            ) from error


class _Errors:
    """How far outputs are from float32's: the median over calibration images of the squared distance."""

    def __init__(self, exact: onnx.ModelProto, batches: Batches, unit: Sequence[float]) -> None:
        self._batches, self._unit = batches, np.array(unit or 1.0)
        self._exact = list(self._outputs(exact))

    def __call__(self, model: onnx.ModelProto) -> float:
        pairs = zip(self._outputs(model), self._exact, strict=True)
        each = [one for found, exact in pairs for one in np.square((found - exact) / self._unit).sum(axis=1)]
        return float(np.nan_to_num(np.median(each), nan=np.inf))

    def _outputs(self, model: onnx.ModelProto) -> Iterator[NDArray[np.float32]]:
        session = start_session(model.SerializeToString())
        return (session.run([LOGITS], {IMAGES: images})[0] for images in self._batches())


def _calibrated(path: str, reader: _Reader, share: float | None, settings: dict[str, Any]) -> onnx.ModelProto:
    """Return a prepared model in int8, with the ranges of a share of the values in percent, or of all."""
    import onnx
    from onnxruntime import quantization

    method = quantization.CalibrationMethod
    more = {} if share is None else {"CalibPercentile": share}
    # One batch after the other, in place of all at once.
    options = {**settings.get("extra_options", {}), "CalibStridedMinMax": 1, **more}
    quantized = f"{path}.int8"
    with _quiet():
        quantization.quantize_static(
            path,
            quantized,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=method.MinMax if share is None else method.Percentile,
            per_channel=True,
            **{**settings, "extra_options": options},
        )
    reader.close()
    return onnx.load(quantized)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime from telling what it does, by print and by warnings without a logger of their own."""

    def is_grave(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    root = logging.getLogger()
    root.addFilter(is_grave)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(is_grave)


def _excluded(
    runtime: RuntimeName,
    in_float: Callable[[onnx.GraphProto], Collection[str]] | None,
    graph: onnx.GraphProto,
) -> dict[str, list[str]]:
    """Return the names of the nodes that stay in float32."""
    gates = gate_nodes(graph) if runtime == "tensorrt" else []
    return {"nodes_to_exclude": [*(gates if in_float is None else in_float(graph)), *prediction_nodes(graph)]}


def _settings(runtime: RuntimeName, graph: onnx.GraphProto) -> dict[str, Any]:
    """Return the arguments of onnxruntime's ``quantize_static`` that differ by runtime."""
    from onnxruntime.quantization import QuantType

    if runtime == "onnxruntime":
        scales = {"TensorQuantOverrides": _safe_scales(graph)}
        # Of the last layer 7 bits: no two of them are above 128 either.
        return {"activation_type": QuantType.QUInt8, "reduce_range": True, "extra_options": scales}
    weighted = [node.name for node in graph.node if node.op_type in _WEIGHTED]
    return {
        "activation_type": QuantType.QInt8,
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


def _safe_scales(graph: onnx.GraphProto) -> dict[str, list[dict[str, Any]]]:
    """Return onnxruntime's overrides by which the two largest weights of a convolution's channel make 127.

    So two products with activations up to 255 fit 16 bits, whichever weights are neighbors. Half the range
    for each would do as well; but a channel with a single large weight, as those that begin as the identity
    have, would then be left with few steps for all others.
    """
    import onnx
    from onnxruntime.quantization import QuantType

    weights = {one.name: one for one in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in weights:
            continue
        array = np.abs(onnx.numpy_helper.to_array(weights[node.input[1]]))
        largest = np.sort(array.reshape(len(array), -1), axis=1)[:, -2:].sum(axis=1)
        # A channel of zeros may have any. Below the least normal number a scale would become 0.
        least = 127 * np.finfo(np.float32).tiny
        scales = np.where(largest > least, largest, max(largest.max(), 1e-6)) / 127
        zero = {"quant_type": QuantType.QInt8, "zero_point": np.array(0, np.int8)}
        found[node.input[1]] = [{**zero, "scale": np.array(scale, np.float32)} for scale in scales]
        found[node.input[1]][0]["axis"] = 0
    return found


class _Reader:
    """The images as onnxruntime asks for them, a few at a time; it knows its readers by these methods."""

    def __init__(self, batches: Batches, count: int) -> None:
        self._parts, self._count, self._left = _split(batches), count, 0

    def __len__(self) -> int:
        return self._count

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = end_index - start_index

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        if not self._left:
            return None
        self._left -= 1
        return {IMAGES: next(self._parts)}

    def close(self) -> None:
        """Let go of the last images: onnxruntime may keep the reader for a while."""
        self._parts.close()


def _split(batches: Batches) -> Generator[NDArray[np.float32], None, None]:
    for images in batches():
        count = max(1, _PIXELS // (images.shape[2] * images.shape[3]))
        yield from (images[start : start + count] for start in range(0, len(images), count))


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
