"""The real images that benchmarks run on, in the layouts that users have."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeprune_formats.files import atomic_file, partial_folder

__all__ = [
    "all_lossless",
    "decoded_cifar10",
    "held_out_trashnet",
    "lossless",
    "photographs",
    "unpack_cifar10",
    "unpack_photographs",
    "unpack_trashnet",
    "write_crops",
    "write_npz",
]


def lossless(data: Path) -> Path:
    """Return the file of 5085 + 1017 CIFAR-10 images in their exact pixels."""
    return data / "cifar10-lossless-6k.npz"


def all_lossless(data: Path, path: Path) -> Path:
    """Write all CIFAR-10 images in their exact pixels, 8068 and 1017, to one npz file, and return it."""
    if path.exists():
        return path
    with np.load(lossless(data)) as first, np.load(data / "cifar10-lossless-3k-more.npz") as more:
        arrays = {name: first[name] for name in ("x_test", "y_test")}
        arrays |= {name: np.concatenate([first[name], more[name]]) for name in ("x_train", "y_train")}
    return write_npz(path, arrays)


def photographs(data: Path) -> Path:
    """Return the archive of 250 photographs."""
    return data / "imagenet-sample.zip"


def unpack_cifar10(data: Path, folder: Path) -> Path:
    """Write all 50,000 training images as JPEG files, a folder a class, and return the folder."""
    with np.load(data / "cifar10-jpeg.npz") as archive:
        stream: bytes = archive["train_bytes"].tobytes()
        offsets: NDArray[Any] = archive["train_offsets"]
        labels: NDArray[Any] = archive["train_labels"]
    for label in np.unique(labels).tolist():
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for index, label in enumerate(labels.tolist()):
        path = folder / str(label) / f"{index:05d}.jpg"
        path.write_bytes(stream[offsets[index] : offsets[index + 1]])
    return folder


def decoded_cifar10(data: Path, path: Path) -> Path:
    """Write the JPEG copy of CIFAR-10, 50,000 and 10,000 images, decoded to one npz file, and return it."""
    if path.exists():
        return path
    arrays: dict[str, NDArray[Any]] = {}
    with np.load(data / "cifar10-jpeg.npz") as archive:
        for split in ("train", "test"):
            stream, offsets = archive[f"{split}_bytes"].tobytes(), archive[f"{split}_offsets"].tolist()
            arrays[f"x_{split}"] = np.stack(
                [
                    np.asarray(Image.open(io.BytesIO(stream[start:stop])).convert("RGB"))
                    for start, stop in itertools.pairwise(offsets)
                ]
            )
            arrays[f"y_{split}"] = archive[f"{split}_labels"]
    return write_npz(path, arrays)


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write arrays to an npz file whose folder need not be there, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


def unpack_photographs(data: Path, folder: Path) -> Path:
    """Write the 250 photographs, a folder a class, and return the folder."""
    with zipfile.ZipFile(photographs(data)) as archive:
        for name in archive.namelist():
            if name.endswith("/"):
                continue
            path = folder / Path(name).parent.name / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_whole_image(archive.read(name)))
    return folder


def unpack_trashnet(data: Path, folder: Path) -> Path:
    """Write the photographs of waste, ``train`` and ``test``, and return the folder."""
    if not folder.exists():
        with zipfile.ZipFile(data / "trashnet.zip") as archive, partial_folder(folder) as partial:
            archive.extractall(partial)
            (partial / "trashnet").replace(folder)
    return folder


def held_out_trashnet(whole: Path, folder: Path) -> Path:
    """Link a fifth of each class of the training images as ``test``, the others as ``train``.

    Which, is fixed. Returns the folder.
    """
    if folder.exists():
        return folder
    random = np.random.default_rng(0)
    with partial_folder(folder) as partial:
        for of_class in sorted((whole / "train").iterdir()):
            paths = sorted(of_class.iterdir())
            held = set(random.permutation(len(paths))[: len(paths) // 5].tolist())
            for number, path in enumerate(paths):
                part = "test" if number in held else "train"
                link = partial / "images" / part / of_class.name / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(path)
        (partial / "images").replace(folder)
    return folder


def write_crops(data: Path, folder: Path, count: int, side: int = 224, classes: int = 10) -> Path:
    """Write square crops of the photographs as JPEG files of quality 90, and return the folder.

    Parameters
    ----------
    data : Path
        Holds `photographs`.
    folder : Path
        Gets a folder for each class.
    count : int
        Crops in all; which, is fixed.
    side : int
        In pixels; photographs that are smaller are left out.
    classes : int
        The crops are dealt out to them in turn.
    """
    random = np.random.default_rng(0)
    with zipfile.ZipFile(photographs(data)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    images = [image for image in images if min(image.size) >= side]
    for number in range(count):
        image = images[random.integers(len(images))]
        left, top = (int(random.integers(length - side + 1)) for length in image.size)
        path = folder / f"class-{number % classes}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.crop((left, top, left + side, top + side)).save(path, quality=90)
    return folder


def _whole_image(raw: bytes) -> bytes:
    Image.open(io.BytesIO(raw)).load()
    return raw
