"""Looking into an ONNX file before onnxruntime loads it: no data from other files, and no loops.

Some releases of onnxruntime read whatever file a model names, ``../../etc/passwd`` included, and a loop can
run for ever. What `edgeprune_runtime.onnx.export` writes has neither, so a graph that has is refused. Only
the messages of ONNX's protobuf that can hold such a thing are entered, by the field numbers of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["check_graph"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# The fields of each message that hold another message to enter, or what is refused.
_INSIDE = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_OTHER_FILES = "keeps weights in other files"
_LOOPS = "has graphs inside its nodes, as loops and conditions do"
_REFUSED = {
    ("model", 20): "holds training information",
    ("model", 25): "holds functions",
    ("attribute", 6): _LOOPS,
    ("attribute", 11): _LOOPS,
    ("tensor", 13): _OTHER_FILES,
    ("tensor", 14): _OTHER_FILES,
}


def check_graph(content: bytes) -> None:
    """Check a model's bytes.

    Raises
    ------
    ValueError
        It is not protobuf, keeps data in other files, or has graphs within nodes.
    """
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        for field, value in _fields(message):
            # A tensor says that its data is here by a location of 0.
            if (kind, field) in _REFUSED and value != 0:
                raise ValueError(f"it {_REFUSED[kind, field]}")
            if field in _INSIDE[kind]:
                if not isinstance(value, memoryview):
                    raise ValueError("it is not protobuf")
                waiting.append((_INSIDE[kind][field], value))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key >= 2**32:
            # Some readers drop what is above, and see the number of another field.
            raise ValueError("it is not protobuf: a field's number is too large")
        wire, value, size = key & 7, 0, 0
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if wire == _LENGTH:
            size, place = _varint(message, place)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        if wire not in (_LENGTH, _FIXED64, _FIXED32) or size > len(message) - place:
            raise ValueError("it is not protobuf, or cut short")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("it is not protobuf, or cut short")
