"""Files that are given as weights."""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Callable
from typing import Any

from ..place import Place
from .registry import situation

KIND = "weights"
TRAIN = ("train", "pack.h5", "--model", "resnet8", "--epochs", 1, "--batch-size", 8, "--device", "cpu")


def _weights(place: Place, change: Callable[[str, Any], tuple[str, Any]]) -> None:
    """Write the weights of the run in stock, each changed in name or values, to w.safetensors."""
    from safetensors.torch import load_file, save_file

    found = load_file(place.take("run") / "model.safetensors")
    save_file(dict(change(*item) for item in found.items()), place / "w.safetensors")


def _train(place: Place, *words: str) -> Any:
    place.take("pack.h5")
    return place.run(*TRAIN, "--init", "w.safetensors", *words, "-o", "new")


def _prefix(prefix: str) -> None:
    @situation(KIND, f"names that begin with {prefix}")
    def check(place: Place) -> str:
        _weights(place, lambda name, tensor: (prefix + name, tensor))
        done = _train(place)
        return place.right(done, (place / "new/model.safetensors").exists(), lines=None)


for _text in ("module._orig_mod.", "_orig_mod.module.", "model.module."):
    _prefix(_text)


@situation(KIND, "one infinite value in the last layer but one")
def _infinite(place: Place) -> str:
    import torch

    def change(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        if name.endswith("running_var"):
            tensor = tensor.clone()
            tensor[0] = float("inf")
        return name, tensor

    _weights(place, change)
    return place.refused(_train(place), "w.safetensors", "running_var", "finite")


@situation(KIND, "bfloat16")
def _bfloat16(place: Place) -> str:
    import torch

    _weights(place, lambda name, tensor: (name, tensor.bfloat16() if tensor.is_floating_point() else tensor))
    done = _train(place)
    from safetensors.torch import load_file

    kept = load_file(place / "new/model.safetensors") if done.code == 0 else {}
    kinds = {tensor.dtype for tensor in kept.values() if tensor.is_floating_point()}
    return place.right(done, kinds == {torch.float32}, lines=None)


def _other(name: str, words: tuple[str, ...], make: Callable[[Place], object]) -> None:
    @situation(KIND, name)
    def check(place: Place) -> str:
        make(place)
        return place.refused(_train(place), "w.safetensors", *words)


def _socket(place: Place) -> None:
    import os

    os.chdir(place.folder)
    socket.socket(socket.AF_UNIX).bind("w.safetensors")


def _zip(place: Place) -> None:
    with zipfile.ZipFile(place / "w.safetensors", "w") as archive:
        archive.writestr("weights.txt", "none")


def _cut(place: Place) -> None:
    raw = (place.take("run") / "model.safetensors").read_bytes()
    (place / "w.safetensors").write_bytes(raw[: len(raw) // 2])


_other("a socket", ("regular file",), _socket)
_other("a zip archive of text", (), _zip)
_other("half of the file", ("damaged",), _cut)
_other("a graph of ONNX", (), lambda place: place.take("model.onnx").rename(place / "w.safetensors"))


@situation(KIND, "--freeze, and only the last layer in the file")
def _freeze(place: Place) -> str:
    from safetensors.torch import load_file, save_file

    found = load_file(place.take("run") / "model.safetensors")
    save_file({name: found[name] for name in list(found) if name.startswith("fc.")}, place / "w.safetensors")
    return place.refused(_train(place, "--freeze"), "w.safetensors")
