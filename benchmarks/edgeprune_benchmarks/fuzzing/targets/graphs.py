"""The bytes of exported graphs, before onnxruntime loads them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeprune_formats import EdgePruneError
from edgeprune_runtime.onnx.graph_check import check_graph

from ..mutation import changed_bytes
from ..outcomes import WrongError
from .base import Target

__all__ = ["Graph"]

# Keys and lengths that protobuf may read in more than one way.
PIECES: tuple[bytes, ...] = (
    *(b"\xea\x80\x80\x80\x10", b"\xea\x00", b"\x6a", b"\x72", b"\x32", b"\x5a", b"\xca\x01", b"\xa2\x01"),
    *(b"\x0b", b"\x0c", b"\x3a", b"\x70\x01", b"\x70\x80\x80\x80\x80\x10", b"\x80" * 9 + b"\x01"),
)


class Graph(Target):
    """A small graph that passes; what passes must hold no other file and no loop for the onnx package."""

    name = "onnx"
    what = "bytes of an ONNX graph, against what the package onnx finds in them"
    needs = ("onnx",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import onnx
        from onnx import helper

        weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
        nodes = [
            helper.make_node("Constant", [], ["c"], value=weight),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ]
        inside = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
        made = helper.make_graph(nodes, "graph", inside[:1], inside[1:], [weight])
        model = helper.make_model(made)
        self.seeds = [model.SerializeToString()]

    def check(self, data: bytes) -> None:
        """Check the bytes, and what protobuf makes of them."""
        import onnx

        try:
            check_graph(data)
        except ValueError as error:
            raise EdgePruneError(str(error)) from error
        model = onnx.ModelProto()
        with suppress(Exception):  # which protobuf raises: its package has no types
            model.ParseFromString(data)
        for found in _refusable(model):
            raise WrongError(f"passed, and it has {found}")

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change bytes; now and then put a key over one, or before it."""
        if source.random() < 0.5:
            return changed_bytes(data, source, self.seeds)
        at = source.randrange(len(data) + 1)
        piece = source.choice(PIECES)
        return data[:at] + piece + data[at + source.choice((0, 1, len(piece))) :]


def _refusable(model: Any) -> Iterator[str]:
    """Yield what a graph must not have."""
    if model.functions or model.training_info:
        yield "functions or training information"
    tensors = list(model.graph.initializer)
    for sparse in model.graph.sparse_initializer:
        tensors += [sparse.values, sparse.indices]
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                yield "a graph within a node"
            tensors += [attribute.t, *attribute.tensors]
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                tensors += [sparse.values, sparse.indices]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        yield "a tensor in another file"
