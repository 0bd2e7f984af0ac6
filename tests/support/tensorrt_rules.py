"""What TensorRT's explicit quantization asks of an ONNX graph, written down from its public sources.

- importer of onnx-tensorrt, QuantDequantLinearHelper (releases 8.5 and 10.1): three inputs, positive scales,
  zero points that are all 0 and as many as scales, no uint8, scales by channel on an axis of that size;
- the same importer and its issue 850: DequantizeLinear takes no int32, so biases stay in float;
- NVIDIA, "Working with Quantized Types", explicit quantization: all inputs of weighted operations are
  quantized, their outputs are not, activations have one scale, sums take one quantized input beside the
  convolution that they are fused with;
- onnxruntime, quantization for the TensorRT execution provider: no pair serves two nodes.
"""

from collections import Counter

import numpy as np
from onnx import TensorProto, helper, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "Gemm", "MatMul")


def problems(model):
    """Return in words each way in which a graph breaks the rules."""
    return list(_problems(model))


def _problems(model):
    graph = model.graph
    kept = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    if {one.domain for one in model.opset_import} != {""} or model.opset_import[0].version < 13:
        yield "operators that are not ONNX's own, or below opset 13"
    if any(array.dtype in (np.int8, np.uint8) and array.ndim > 1 for array in kept.values()):
        yield "stored integers, which want another way through the importer"
    for node in graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            yield from _of_quantizer(node, kept, made_by, uses)
        elif node.op_type in WEIGHTED:
            yield from _of_weighted(node, kept, made_by)
        elif node.op_type == "Add":
            yield from _of_sum(node, kept, made_by)


def _of_quantizer(node, kept, made_by, uses):
    if len(node.input) != 3 or not {*node.input[1:]} <= kept.keys():
        yield f"{node.name} lacks a constant scale or zero point"
        return
    scale, zero = (kept[name] for name in node.input[1:])
    if zero.dtype != np.int8 or zero.any() or zero.size != scale.size:
        yield f"{node.name} has zero points that are not int8 and 0, one for each scale"
    if scale.dtype != np.float32 or not (scale > 0).all():
        yield f"{node.name} has scales that are not positive"
    if node.op_type == DEQUANTIZE:
        before = made_by.get(node.input[0])
        if before is None or before.op_type != QUANTIZE or before.input[1:] != node.input[1:]:
            yield f"{node.name} is no half of a pair"
        return
    if uses[node.output[0]] != 1:
        yield f"{node.name} serves several nodes"
    data = kept.get(node.input[0])
    if data is None and scale.size != 1:
        yield f"{node.name} has an activation's scales by channel"
    axis = next((helper.get_attribute_value(one) for one in node.attribute if one.name == "axis"), 1)
    if scale.size != 1 and (data is None or data.shape[axis] != scale.size):
        yield f"{node.name} has scales on the wrong axis"


def _of_weighted(node, kept, made_by):
    quantized = [name in made_by and made_by[name].op_type == DEQUANTIZE for name in node.input]
    if any(quantized[2:]):
        yield f"{node.name} has a quantized bias"
    if quantized[0] != quantized[1]:
        yield f"{node.name} has a quantized input beside one that is not"
    pair = made_by.get(made_by[node.input[1]].input[0]) if all(quantized[:2]) else None
    if pair is None:
        return
    weights, scale = kept[pair.input[0]], kept[pair.input[1]]
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    by_channel = np.moveaxis(weights, 0 if node.op_type == "Conv" or transposed else 1, 0)
    if scale.shape != (len(by_channel),):
        yield f"{node.name} has scales that are not of its {len(by_channel)} output channels"
    elif (np.abs(by_channel.reshape(len(scale), -1)).max(1) > 127.5 * scale).any():
        yield f"{node.name} has weights beyond 127"


def _of_sum(node, kept, made_by):
    given = [made_by.get(name) for name in node.input]
    if {*node.input} & kept.keys() or None in given:
        return
    pairs = [made_by.get(one.input[0]) if one.op_type == DEQUANTIZE else None for one in given]
    if pairs == [None, None]:
        yield f"{node.name} adds what is not quantized"
    convolutions = [one.op_type == "Conv" for one in given]
    rounded = [pair is not None and made_by[pair.input[0]].op_type == "Conv" for pair in pairs]
    if any(rounded) and not any(convolutions):
        yield f"{node.name} rounds a convolution that it could be fused with"


def element_types(model):
    """Return the types of all zero points, as names."""
    kept = {one.name: one.data_type for one in model.graph.initializer}
    found = {kept[node.input[2]] for node in model.graph.node if node.op_type in (QUANTIZE, DEQUANTIZE)}
    return {TensorProto.DataType.Name(one) for one in found}
