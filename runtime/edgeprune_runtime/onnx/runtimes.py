"""Which version of ONNX a runtime reads, and graphs of older versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from edgeprune_formats import ConfigError

from .placement import remove_unused_constants

if TYPE_CHECKING:
    import onnx

__all__ = [
    "DECODER_OPSET",
    "IR_VERSION",
    "LEAST_OPSET",
    "OPSET",
    "Runtime",
    "RuntimeName",
    "lowered",
    "parse_runtime",
]

RuntimeName = Literal["onnxruntime", "tensorrt"]

OPSET = 18
"""Of the exporter itself: others are made of it. onnxruntime has read it since 1.14."""
IR_VERSION = 8
"""The lowest that goes with `OPSET`, for the sake of old readers."""
DECODER_OPSET = 15
"""The first whose ``Shape`` gives a part of the shape, as the decoder wants it."""
LEAST_OPSET = 13
"""The first that quantizes by channel."""
# From which release on a runtime reads an opset (docs/how-to/export.md says where that is written).
_SINCE: dict[str, dict[tuple[int, int], int]] = {
    "onnxruntime": {(1, 7): 13, (1, 8): 14, (1, 9): 15, (1, 11): 16, (1, 12): 17, (1, 14): 18},
    "tensorrt": {(8, 0): 13, (8, 4): 17, (9, 0): 18},
}
# In a graph that classifies images they say what older operators do anyway. onnxruntime 1.9 refuses
# allowzero, which is of opset 14, where a size is -1.
_NEW_ATTRIBUTES = {
    "BatchNormalization": (14, "training_mode"),
    "Reshape": (18, "allowzero"),
    "Split": (18, "num_outputs"),
}
_SPELLED = re.compile(r"([a-z]+)(?:==(\d{1,4})\.(\d{1,4})(?:\.\d{1,6}){0,3})?")


@dataclass(frozen=True)
class Runtime:
    """What runs a graph.

    Attributes
    ----------
    name : str
        ``"onnxruntime"`` or ``"tensorrt"``.
    opset : int
        The newest operators that it reads, `OPSET` at most.
    """

    name: RuntimeName
    opset: int

    @property
    def ir_version(self) -> int:
        """The version of the file that goes with the opset: 7 below opset 15."""
        return IR_VERSION if self.opset >= 15 else 7


def parse_runtime(text: str, least: int = LEAST_OPSET) -> Runtime:
    """Return the runtime of ``NAME`` or ``NAME==VERSION``, such as ``onnxruntime==1.15``.

    Without a version, or with one that came later than this table, it is one that reads `OPSET`.

    Parameters
    ----------
    text : str
    least : int
        The opset that the graph needs.

    Raises
    ------
    ConfigError
        No such runtime, no version, or one that is too old for the opset.
    """
    found = _SPELLED.fullmatch(text)
    if found is None or found[1] not in _SINCE:
        raise ConfigError(
            f"`runtime` is {text}; it must be {' or '.join(_SINCE)}, or one of them with its version, "
            "such as onnxruntime==1.15"
        )
    name: RuntimeName = get_args(RuntimeName)[list(_SINCE).index(found[1])]
    if found[2] is None:
        return Runtime(name, OPSET)
    version = int(found[2]), int(found[3])
    opset = max((opset for since, opset in _SINCE[name].items() if since <= version), default=0)
    if opset < least:
        major, minor = next(since for since, opset in _SINCE[name].items() if opset >= least)
        raise ConfigError(
            f"`runtime` is {text}, which does not read opset {least}, the oldest that this graph can have; "
            f"it needs {name} {major}.{minor} or later"
        )
    return Runtime(name, opset)


def lowered(model: onnx.ModelProto, runtime: Runtime) -> onnx.ModelProto:
    """Return a copy of a graph of `OPSET` that a runtime reads.

    Means and maxima have their axes as an attribute below opset 18, and some operators lack an attribute.
    Whether the whole is valid is for `edgeprune_runtime.onnx.check.check_structure` to say, and whether it
    computes the same for `check_export` there.
    """
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(model)
    if runtime.opset == OPSET:
        return found
    constants = {one.name: one for one in found.graph.initializer}
    for node in found.graph.node:
        # ReduceSum has had its axes as an input since opset 13.
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) == 2:
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()]).tolist()
            _drop(node, "noop_with_empty_axes")
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
        since, name = _NEW_ATTRIBUTES.get(node.op_type, (0, ""))
        if runtime.opset < since:
            _drop(node, name)
    remove_unused_constants(found.graph)
    found.opset_import[0].version, found.ir_version = runtime.opset, runtime.ir_version
    return found


def _drop(node: onnx.NodeProto, name: str) -> None:
    for one in [one for one in node.attribute if one.name == name]:
        node.attribute.remove(one)
