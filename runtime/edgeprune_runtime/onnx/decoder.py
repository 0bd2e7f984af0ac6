"""The inverse transform of a pack's sparse coefficients as ONNX nodes before a network.

The graph then takes what codec ``sparse-f32`` stores (formats/SPEC.md): a device that reads HDF5 needs no
code of ours to decode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.coefficients import column_bits, position_dtype

from ..decode.plan import inverse_basis
from .session import IMAGES, INDICES, VALUES

if TYPE_CHECKING:
    import onnx

__all__ = ["with_decoder"]


def with_decoder(model: onnx.ModelProto, image_shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Return a copy of a model of images that takes coefficients and decodes them first.

    A packed position ``row << b | column`` is the offset in a spectrum whose rows have 2^b places, so it is
    scattered as it stands; the columns beyond the width meet zeros in the basis.

    Parameters
    ----------
    model : onnx.ModelProto
        Takes ``images``, float32 [n, C, H, W].
    image_shape : (int, int, int)
        C, H and W.

    Returns
    -------
    onnx.ModelProto
        Takes ``values``, float32 [n, C, K], and ``indices``, uint16 or uint32 [n, C, K] as a pack stores
        them, for any n and K, and gives what `model` gives.
    """
    import onnx
    from onnx import helper

    _, height, width = image_shape
    decoding = onnx.ModelProto()
    decoding.CopyFrom(model)
    graph, network = decoding.graph, list(model.graph.node)
    positions = helper.np_dtype_to_tensor_dtype(np.dtype(position_dtype(height, width).type))
    coefficients: list[str | int | None] = ["n", image_shape[0], "k"]
    for field in ("input", "node"):
        graph.ClearField(field)
    graph.input.extend(
        [
            helper.make_tensor_value_info(VALUES, onnx.TensorProto.FLOAT, coefficients),
            helper.make_tensor_value_info(INDICES, positions, coefficients),
        ]
    )
    graph.value_info.append(
        helper.make_tensor_value_info(IMAGES, onnx.TensorProto.FLOAT, ["n", *image_shape])
    )
    for name, array in _constants(image_shape).items():
        graph.initializer.append(onnx.numpy_helper.from_array(array, _inner(name)))
    graph.node.extend([*_nodes(), *network])
    return decoding


def _constants(image_shape: tuple[int, int, int]) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    channels, height, width = image_shape
    stride = 1 << column_bits(width)
    columns = np.zeros((stride, width), np.float32)
    columns[:width] = inverse_basis(width, width)
    return {
        "plane": np.array([channels, height * stride], np.int64),
        "spectrum": np.array([-1, channels, height, stride], np.int64),
        "rows": np.ascontiguousarray(inverse_basis(height, height).T),
        "columns": columns,
    }


def _nodes() -> list[onnx.NodeProto]:
    from onnx import TensorProto, helper

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        names = [name if name in (VALUES, INDICES) else _inner(name) for name in inputs]
        target = IMAGES if output == IMAGES else _inner(output)
        return helper.make_node(operator, names, [target], _inner(f"{operator}_{output}"), **attributes)

    return [
        node("Cast", [INDICES], "positions", to=TensorProto.INT64),
        node("Shape", [VALUES], "count", start=0, end=1),
        node("Concat", ["count", "plane"], "shape", axis=0),
        node("ConstantOfShape", ["shape"], "zeros"),
        node("ScatterElements", ["zeros", "positions", VALUES], "dense", axis=2),
        node("Reshape", ["dense", "spectrum"], "spectra"),
        node("MatMul", ["spectra", "columns"], "halfway"),
        node("MatMul", ["rows", "halfway"], IMAGES),
    ]


def _inner(name: str) -> str:
    # No name of the exporter's has a slash in it.
    return f"decoder/{name}"
