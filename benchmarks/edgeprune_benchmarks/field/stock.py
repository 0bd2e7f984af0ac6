"""Small packs, runs, graphs and photographs that situations begin with, made once where they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from edgeprune_formats import EdgePruneError

from .child import edgeprune, in_child

__all__ = ["CLASSES", "SIDE", "photographs", "pixels", "take"]

SIDE, CLASSES, IMAGES = 12, 3, 24
# So many fill several chunks.
MANY = 3000
TRAIN = ("--model", "resnet8", "--epochs", "1", "--batch-size", "8", "--augment", "none", "--device", "cpu")


def pixels(images: int = IMAGES, side: int = SIDE, seed: int = 0, classes: int = CLASSES) -> np.ndarray:
    """Return images of classes 0, 1, ..., 0, 1, ... that differ by class: uint8 [images, side, side, 3]."""
    random = np.random.default_rng(seed)
    means = np.linspace(40, 200, classes)[np.arange(images) % classes, None, None, None]
    noisy = means + 25 * random.standard_normal((images, side, side, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def photographs(
    folder: Path,
    names: Sequence[str] = ("cat", "dog"),
    each: int = 3,
    *,
    side: int = SIDE,
) -> Path:
    """Write some images into a folder for each class, and return the folder that holds them."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pixels(each, side, seed=label, classes=1)):
            Image.fromarray(image).save(folder / name / f"{number}.png")
    return folder


def take(stock: Path, name: str) -> Path:
    """Return one of `MAKERS` in the folder of stock, made if it is not there yet."""
    path = stock / name
    if not path.exists():
        MAKERS[name](stock, path)
    return path


def _arrays(images: int) -> Callable[[Path, Path], None]:
    def make(stock: Path, path: Path) -> None:
        np.savez(path, x=pixels(images), y=np.arange(images) % CLASSES)

    return make


def _command(*words: str, needs: tuple[str, ...] = ()) -> Callable[[Path, Path], None]:
    """Return what runs a command, in the folder of stock, for the output that is asked for."""

    def make(stock: Path, path: Path) -> None:
        for name in needs:
            take(stock, name)
        done = in_child(partial(edgeprune, [*words, "-o", path.name]), stock, limit=300)
        if done.code != 0:
            raise EdgePruneError(f"{path.name} cannot be made: {done.err.strip()[-300:]}")

    return make


def _damaged(stock: Path, path: Path) -> None:
    """Write a pack whose first chunk fails its checksum."""
    import h5py

    shutil.copyfile(take(stock, "many.h5"), path)
    with h5py.File(path, "r", locking=False) as file:
        samples = next(one for one in file["samples"].values() if one.chunks)
        place = samples.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 8] ^= 0xFF
    path.write_bytes(content)


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "arrays.npz": _arrays(IMAGES),
    "many.npz": _arrays(MANY),
    "many.h5": _command(
        "build", "npz:many.npz", "--codec", "sparse-f32", "--device", "cpu", "-q", needs=("many.npz",)
    ),
    "pack.h5": _command("build", "npz:arrays.npz", "--device", "cpu", "-q", needs=("arrays.npz",)),
    "sparse.h5": _command(
        "build", "npz:arrays.npz", "--codec", "sparse-f32", "--device", "cpu", "-q", needs=("arrays.npz",)
    ),
    "damaged.h5": _damaged,
    "run": _command("train", "pack.h5", *TRAIN, needs=("pack.h5",)),
    "model.onnx": _command("export", "run", needs=("run",)),
    "int8.onnx": _command("export", "run", "--int8", "--pack", "pack.h5", needs=("run", "pack.h5")),
    "maker.key": _command("keygen"),
    "other.key": _command("keygen"),
}
