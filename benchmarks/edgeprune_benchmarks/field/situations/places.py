"""Where packs lie, how many there are, and who else has them open."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import shutil
import threading
import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..place import Place
from ..stock import photographs
from .registry import situation

KIND = "places"


def _sum(dataset: Any) -> float:
    return float(sum(np.asarray(image).sum() for image, _ in dataset))


@situation(KIND, "another current folder before a forkserver's worker reads")
def _chdir(place: Place) -> str:
    place.take("pack.h5")

    def read() -> None:
        from torch.utils.data import DataLoader

        from edgeprune_runtime import PackDataset

        dataset: Any = PackDataset("pack.h5")
        os.chdir("/")
        loader: Any = DataLoader(dataset, 5, num_workers=1, multiprocessing_context="forkserver")
        if sum(len(labels) for _, labels in loader) != len(dataset):
            raise ValueError("images are missing")
        # The script's process ends without collecting, and multiprocessing would tell of its semaphores.
        del loader
        gc.collect()

    return place.right(place.script(read, limit=120))


@situation(KIND, "a path upwards from a folder that is left in a thread")
def _upwards(place: Place) -> str:
    place.take("pack.h5")
    (place / "inner").mkdir()

    def read() -> None:
        from edgeprune_runtime import PackLoader

        os.chdir("inner")
        loader = PackLoader("../pack.h5", 4, backend="scipy")
        thread = threading.Thread(target=os.chdir, args=("/",))
        thread.start()
        thread.join()
        if sum(len(labels) for _, labels in loader) != 24:
            raise ValueError("images are missing")

    return place.right(place.script(read))


def _locks(number: int) -> None:
    @situation(KIND, f"a file system that answers to locks: {os.strerror(number)}")
    def check(place: Place) -> str:
        place.take("pack.h5")

        def train() -> None:
            from ..child import edgeprune

            def refuse(*_: object) -> None:
                raise OSError(number, os.strerror(number))

            fcntl.flock = refuse
            words = ["train", "pack.h5", "--model", "resnet8", "--epochs", 1, "--batch-size", 8]
            edgeprune([*words, "--device", "cpu", "-o", "run"])

        return place.right(place.script(train), (place / "run/model.safetensors").exists(), lines=None)


for _number in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
    _locks(_number)


@situation(KIND, "h5py that writes to the pack in the same process, and read by a loader with threads")
def _open_in_h5py(place: Place) -> str:
    place.take("sparse.h5")

    def read() -> None:
        import h5py

        from edgeprune_runtime import PackLoader

        with h5py.File("sparse.h5", "r+"):
            images = sum(len(labels) for _, labels in PackLoader("sparse.h5", 4, backend="scipy", prefetch=2))
        if images != 24:
            raise ValueError("images are missing")

    return place.right(place.script(read))


@situation(KIND, "180 packs in one loader at 64 descriptors")
def _many(place: Place) -> str:
    path = place.take("pack.h5")
    for number in range(180):
        shutil.copyfile(path, place / f"{number}.h5")

    def read() -> None:
        from edgeprune_runtime import PackLoader

        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        loader = PackLoader([f"{number}.h5" for number in range(180)], 64, shuffle=True, backend="scipy")
        if sum(len(labels) for _, labels in loader) != 180 * 24:
            raise ValueError("images are missing")

    return place.right(place.script(read))


@situation(KIND, "names of 255 bytes of three bytes a letter")
def _long_names(place: Place) -> str:
    place.take("arrays.npz")
    name = "森" * 84 + ".h5"
    built = place.run("build", "npz:arrays.npz", "-o", name, "--device", "cpu", "-q")
    place.right(built, (place / name).exists())
    words = ("--model", "resnet8", "--epochs", 1, "--batch-size", 8, "--device", "cpu", "-o", "海" * 85)
    return place.right(place.run("train", name, *words), (place / ("海" * 85)).is_dir(), lines=None)


@situation(KIND, "classes in NFD in a folder of test images, in NFC in the pack")
def _composed(place: Place) -> str:
    names = ("ångström", "żółw", "각")
    forms: tuple[tuple[str, Literal["NFC", "NFD"]], ...] = (("train", "NFC"), ("test", "NFD"))
    for folder, form in forms:
        photographs(place / folder, [unicodedata.normalize(form, name) for name in names])
    place.right(place.run("build", "imagefolder:train", "-o", "p.h5", "--device", "cpu", "-q"))
    words = ("train", "p.h5", "--model", "resnet8", "--epochs", 1, "--batch-size", 4, "--device", "cpu")
    return place.right(place.run(*words, "--test", "imagefolder:test", "-o", "run"), lines=None)


@situation(KIND, "a pack behind two symbolic links, the second relative")
def _links(place: Place) -> str:
    (place / "store").mkdir()
    place.take("pack.h5").rename(place / "store/real.h5")
    (place / "store/alias.h5").symlink_to("real.h5")
    (place / "p.h5").symlink_to(place / "store/alias.h5")
    done = place.run("verify", "p.h5")
    return place.right(done, Path(place / "p.h5").is_symlink())
