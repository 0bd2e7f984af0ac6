"""Where a quantized graph stays in float32: gates, and what TensorRT fuses with a convolution."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["free_fused_inputs", "gate_nodes", "prediction_nodes", "remove_unused_constants", "residual_nodes"]

_POOLS = ("GlobalAveragePool", "ReduceMean")


def gate_nodes(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes of squeeze-and-excitation: from the mean of each channel to its factor.

    The factor is a Sigmoid or HardSigmoid of what was computed from the means (Hu et al. 2018, sec. 3).
    """
    made_by = {name: node for node in graph.node for name in node.output}
    found: dict[str, None] = {}
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        first, second = node.input
        for name, other in ((first, second), (second, first)):
            factor = made_by.get(name)
            # x * sigmoid(x) is an activation.
            if factor and factor.op_type in ("Sigmoid", "HardSigmoid") and other != factor.input[0]:
                found.update(dict.fromkeys(one.name for one in _back_to_pool(factor, made_by)))
    return list(found)


def _back_to_pool(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return a node and what it computes from, down to means; nothing where it meets anything else first."""
    branch, waiting, seen = [], [node], set()
    while waiting:
        one = waiting.pop()
        if one.name in seen:
            continue
        seen.add(one.name)
        branch.append(one)
        if one.op_type in _POOLS:
            continue
        before = [made_by[name] for name in one.input if name in made_by]
        if not before:
            return []
        waiting.extend(before)
    return branch


def prediction_nodes(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes behind the last layer, which make probabilities or values in their unit.

    A value such as a year is large beside its deviation: 256 steps up to it would be years wide.
    """
    constants = {one.name for one in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    found: list[str] = []
    node = made_by.get(graph.output[0].name)
    while node is not None and node.op_type in ("Add", "Mul", "Sigmoid"):
        before = [name for name in node.input if name not in constants]
        if len(before) != 1:
            break
        found.append(node.name)
        node = made_by.get(before[0])
    return found


def residual_nodes(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes that add two activations."""
    constants = {one.name for one in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "Add" and not constants & set(node.input)]


def free_fused_inputs(graph: onnx.GraphProto) -> None:
    """Remove the pair between a convolution and the sum that it is fused with, in place.

    TensorRT adds the other, quantized input to the convolution's sums before they are rounded; rounding the
    convolution's own output keeps it from that.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    removed: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for number, name in enumerate(node.input):
            pair = _pair_before(name, made_by)
            if pair and uses[pair[1].input[0]] == 1 and made_by[pair[1].input[0]].op_type == "Conv":
                node.input[number] = pair[1].input[0]
                removed += pair
                break
    for one in removed:
        graph.node.remove(one)
    remove_unused_constants(graph)


def _pair_before(name: str, made_by: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return DequantizeLinear and QuantizeLinear that give an activation, if such a pair does."""
    back = made_by.get(name)
    if back is None or back.op_type != "DequantizeLinear":
        return []
    there = made_by.get(back.input[0])
    return [back, there] if there is not None and there.input[0] in made_by else []


def remove_unused_constants(graph: onnx.GraphProto) -> None:
    """Remove the initializers that no node takes, in place."""
    used = {name for node in graph.node for name in node.input}
    for one in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(one)
