"""Files that somebody else has made: packs, runs, models, signatures, and links beside outputs."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..place import Place
from .registry import situation

READERS = (("info",), ("verify",), ("predict", "run"))
RESUME: tuple[Any, ...] = (
    "train",
    "pack.h5",
    "--model",
    "resnet8",
    "--epochs",
    1,
    "--batch-size",
    8,
    "--augment",
    "none",
)
RESUME += ("--device", "cpu", "-o", "run", "--resume")


def _pack(name: str, change: Callable[[Path], object], *words: str) -> None:
    """Enter a pack that is changed so: each command that reads it must refuse it."""

    @situation("packs of strangers", name)
    def check(place: Place) -> str:
        for one in ("run", "sparse.h5"):
            place.take(one)
        change(place / "sparse.h5")
        for reader in READERS:
            done = place.run(*reader, "sparse.h5", limit=30)
            outcome = place.refused(done, "sparse.h5", *words, lists=reader == ("verify",))
        return outcome


def _attribute(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return change


def _dataset(name: str, change: Callable[[Any], Any], **options: Any) -> Callable[[Path], None]:
    """Return what replaces a dataset by a changed copy of it."""

    def replace(path: Path) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            values = change(file[name][...])
            del file[name]
            file.create_dataset(name, data=values, **options)

    return replace


def _nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


_pack("two thirds of the file", _bytes(lambda raw: raw[: 2 * len(raw) // 3]))
_pack("the file in gzip", _bytes(lambda raw: gzip.compress(raw, 1)))
_pack("a superblock that points nowhere", _bytes(lambda raw: raw[:12] + b"\xff" * 36 + raw[48:]))
_pack("65,537 channels", _attribute("channels", 65537))
_pack("a mean that is no number", _attribute("mean", np.array([0.5, np.nan, 0.5])))
_pack("a version in digits of Arabic", _attribute("format_version", "\u0661.\u0662".encode()))
_pack(
    "200 nested lists of provenance",
    _dataset("provenance", lambda _: np.void(_nested(200))),
)
_pack("labels of a class that is not there", _dataset("labels", lambda labels: labels + 3))
_pack("labels as complex numbers", _dataset("labels", lambda labels: labels + 0j))


def _run(name: str, file: str, change: Callable[[bytes], bytes], *words: str) -> None:
    """Enter a run of which one file is forged: resuming it is refused."""

    @situation("runs of strangers", name)
    def check(place: Place) -> str:
        for one in ("run", "pack.h5"):
            place.take(one)
        path = max((place / "run").glob(file))
        path.write_bytes(change(path.read_bytes()))
        for other in set((place / "run").glob(file)) - {path}:
            other.unlink()
        done = place.run(*RESUME, limit=30)
        if done.code == 0:  # a damaged file that another stands in for, or that is written anew
            return place.right(done, lines=None)
        return place.refused(done, path.name if path.name.startswith("checkpoint") else "run", *words)


def _json(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda raw: json.dumps({**json.loads(raw), **changes}).encode()


_run("a step of 2**70", "checkpoint-*.json", _json(step=2**70))
_run("a step of -3", "checkpoint-*.json", _json(step=-3))
_run("an epoch that is a list", "checkpoint-*.json", _json(epoch=[1]))
_run("a state of 3,000 nested lists", "checkpoint-*.json", lambda raw: _nested(3000))
_run("a configuration of one number", "config.json", lambda raw: b"7")
_run("a configuration in UTF-16", "config.json", lambda raw: raw.decode().encode("utf-16"))
_run("a network's name that is a number", "config.json", _json(config={"model": 5}))
_run(
    "tensors behind 2**62 bytes",
    "checkpoint-*.safetensors",
    lambda raw: bytes(7) + b"\x40" + raw[8:],
)


def _model(name: str, change: Callable[[Any], object], *words: str) -> None:
    """Enter a graph of ONNX that is changed so: predict refuses it."""

    @situation("models of strangers", name)
    def check(place: Place) -> str:
        import onnx

        path, _ = place.take("model.onnx"), place.take("pack.h5")
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
        return place.refused(place.run("predict", "model.onnx", "pack.h5", limit=30), "model.onnx", *words)


def _metadata(name: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for entry in model.metadata_props:
            if entry.key == name:
                entry.value = value

    return change


def _external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in (("location", "../../secret.bin"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _not_finite(model: Any) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == 1 and tensor.raw_data:
            tensor.raw_data = b"\0\0\xc0\x7f" * (len(tensor.raw_data) // 4)


_model("tensors of another file", _external)
_model("weights that are no numbers", _not_finite)
_model("images of two dimensions", lambda model: model.graph.input[0].type.tensor_type.shape.dim.pop())
_model("an input of another name", lambda model: setattr(model.graph.input[0], "name", "pictures"))
_model("a shape of 2**40 pixels", _metadata("image_shape", f"[3, {2**20}, {2**20}]"))
_model("names of classes that are numbers", _metadata("class_names", "[1, 2, 3]"))
_model("metadata of 5,000 nested lists", _metadata("class_names", "[" * 5000 + "]" * 5000))
_model("no graph", lambda model: model.ClearField("graph"))


def _signed(name: str, change: Callable[[Place], str], *words: str) -> None:
    """Enter a signed pack that is changed so; `change` returns the key to check it by."""

    @situation("signatures", name)
    def check(place: Place) -> str:
        place.take("pack.h5")
        for one in ("maker.key", "other.key"):
            place.right(place.run("keygen", "-o", one), lines=None)
        place.right(place.run("sign", "pack.h5", "--key", "maker.key"), lines=None)
        key = change(place)
        words_of_train = (*RESUME[:-3], "-o", "new", "--require-signature", key)
        place.refused(place.run("verify", "pack.h5", "--key", key), *words)
        return place.refused(place.run(*words_of_train), *words)


def _flip(place: Place, name: str) -> str:
    content = bytearray((place / name).read_bytes())
    content[-len(content) // 100] ^= 4
    (place / name).write_bytes(content)
    return "maker.key.pub"


def _without_attribute(place: Place) -> None:
    if hasattr(os, "listxattr") and os.listxattr(place / "pack.h5"):
        os.removexattr(place / "pack.h5", "user.edgeprune.signature")


def _empty_signature(place: Place) -> str:
    _without_attribute(place)
    (place / "pack.h5.sig").write_bytes(b"")
    return "maker.key.pub"


def _loop(place: Place) -> str:
    _without_attribute(place)
    (place / "pack.h5.sig").unlink()
    (place / "pack.h5.sig").symlink_to("pack.h5.sig")
    return "maker.key.pub"


_signed("one bit of the last chunk", lambda place: _flip(place, "pack.h5"), "pack.h5", "is not the file")
_signed("the key of somebody else", lambda _: "other.key.pub", "pack.h5", "signed by")
_signed("an empty signature", _empty_signature, "pack.h5")
_signed("a signature that is a link to itself", _loop, "pack.h5.sig")
_signed("the private key in place of the public one", lambda _: "maker.key", "maker.key", ".pub")


def _link(name: str, link: str, *words: Any, folder: bool = False) -> None:
    """Enter a command beside whose output somebody has put a link to a file, or folder, of the user's."""

    @situation("planted links", name)
    def check(place: Place) -> str:
        for one in ("arrays.npz", "pack.h5", "run"):
            place.take(one)
        (place / "mine").mkdir()
        (place / "mine/letter.txt").write_text("dear")
        target = place / ("mine" if folder else "mine/letter.txt")
        (place / link).parent.mkdir(exist_ok=True)
        (place / link).symlink_to(target)
        done = place.run(*words)
        kept = [path.name for path in (place / "mine").iterdir()] == ["letter.txt"]
        kept = kept and (place / "mine/letter.txt").read_text() == "dear"
        if done.code and kept:
            return place.refused(done, keeps=("new",))
        return place.right(done, kept, lines=None)


_BUILD = ("build", "npz:arrays.npz", "-o", "out.h5", "--device", "cpu", "-q")
_link("the temporary folder of a build", ".out.h5.00000000deadbeef.partial", *_BUILD, folder=True)
_link("a temporary file in the former manner", ".out.h5.host-1-0.partial", *_BUILD)
_link("the lock of a run", "new/.lock", *RESUME[:-3], "-o", "new")
_link("the list of measures of a run", "new/metrics.jsonl", *RESUME[:-3], "-o", "new")
_link("a temporary name of a conversion", "c.h5.tmp", "convert", "pack.h5", "-o", "c.h5", "-q")
_link(
    "a temporary folder of a split",
    "parts/.pack-0.h5.0123456789abcdef.partial",
    "split",
    "pack.h5",
    "-n",
    2,
    "-o",
    "parts",
    "-q",
    folder=True,
)
