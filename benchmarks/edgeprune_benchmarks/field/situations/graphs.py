"""Graphs of 8 bits: where they load, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..child import in_child
from ..place import Place
from .registry import situation

KIND = "int8 graphs"


def _classes(path: Path, images: Any) -> list[int]:
    """Return the class of each image, in onnxruntime without any code of ours."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    classes: list[int] = np.argmax(session.run(["logits"], {"images": images})[0], axis=1).tolist()
    return classes


def _images(count: int, seed: int = 5) -> Any:
    return np.random.default_rng(seed).random((count, 3, 12, 12), np.float32)


def _batches(count: int) -> None:
    @situation(KIND, f"a batch of {count} in onnxruntime alone")
    def check(place: Place) -> str:
        path = place.take("int8.onnx")

        def run() -> None:
            assert len(_classes(path, _images(count))) == count

        return place.right(place.script(run), lines=None)


for _count in (1, 3, 50):
    _batches(_count)


@situation(KIND, "images that have no place between 0 and 1")
def _beyond(place: Place) -> str:
    path = place.take("int8.onnx")

    def run() -> None:
        assert all(0 <= one < 3 for one in _classes(path, 255 * _images(4) - 99))

    return place.right(place.script(run), lines=None)


@situation(KIND, "the pack that it was calibrated on, in predict")
def _predict(place: Place) -> str:
    place.take("int8.onnx")
    place.take("pack.h5")
    done = place.run("predict", "int8.onnx", "pack.h5", "--json")
    return place.right(done, len(done.out.splitlines()) == 24)


@situation(KIND, "zero points are as the page says: those of TensorRT for weights alone")
def _zero_points(place: Place) -> str:
    path = place.take("int8.onnx")

    def run() -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(path).graph
        kept = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        zeros = [kept[node.input[2]] for node in graph.node if node.op_type.endswith("QuantizeLinear")]
        assert all(not zero.any() for zero in zeros if zero.dtype == np.int8)
        assert any(zero.dtype == np.uint8 for zero in zeros)

    return place.right(place.script(run), lines=None)


@situation(KIND, "--int8 without images")
def _no_images(place: Place) -> str:
    place.take("run")
    return place.refused(place.run("export", "run", "--int8", "-o", "x.onnx"), "--pack")


@situation(KIND, "--calibrate 0")
def _no_calibration(place: Place) -> str:
    place.take("run")
    place.take("pack.h5")
    done = place.run("export", "run", "--int8", "--pack", "pack.h5", "--calibrate", 0, "-o", "x.onnx")
    return place.refused(done, "--calibrate")


@situation(KIND, "a damaged pack for calibration")
def _damaged(place: Place) -> str:
    place.take("run")
    place.take("damaged.h5")
    done = place.run("export", "run", "--int8", "--pack", "damaged.h5", "-o", "x.onnx", limit=120)
    return place.refused(done, "damaged.h5", "checksum")


@situation(KIND, "a pack of other images' size")
def _other_size(place: Place) -> str:
    from ..stock import pixels

    place.take("run")
    np.savez(place / "o.npz", x=pixels(9, side=16), y=np.arange(9) % 3)
    place.right(in_child(lambda: _build("o.npz"), place.folder), lines=None)
    done = place.run("export", "run", "--int8", "--pack", "o.h5", "-o", "x.onnx", limit=120)
    return place.refused(done, "o.h5")


def _build(name: str) -> None:
    from ..child import edgeprune

    edgeprune(["build", f"npz:{name}", "-o", name.replace("npz", "h5"), "--device", "cpu", "-q"])
