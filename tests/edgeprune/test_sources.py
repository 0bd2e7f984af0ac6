"""Opening a source by its name, and the sources that packages carry: digits and CIFAR."""

from __future__ import annotations

import builtins
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import SourceError
from edgeprune.sources import open_source
from edgeprune_formats import ConfigError


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def without_module(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == missing:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'mnist'; known are digits, cifar10.*cifar100.*imagefolder.*npz"):
        open_source("mnist")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a", "b\0c"], r"no class can be called 'b\\x00c': a name is text of at most 4,096 bytes"),
        (["a" * 4097, "b"], r"no class can be called 'aaa.*give the class another name"),
        (["a", "\ud800"], r"no class can be called '\\ud800'"),
    ],
)
def test_names_of_classes_that_a_pack_cannot_hold(tmp_path: Path, names: list[str], told: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=random_pixels(2, 4, 4, 3), y=[0, 1], class_names=names)
    with pytest.raises(SourceError, match=rf"npz:.*a\.npz: {told}"):
        open_source(f"npz:{path}")


@pytest.mark.parametrize("split", ["val", "", "Train"])
def test_unknown_split_is_refused(split: str) -> None:
    with pytest.raises(ConfigError, match="`split` is 'train' or 'test'"):
        open_source("digits", split=split)


@pytest.mark.parametrize("size", [0, -1, 65537])
def test_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="`size` is 1 to 65536"):
        open_source("digits", size=size)


@pytest.mark.parametrize("spec", ["imagefolder", "imagefolder:", "npz", "npz:", "digits:8"])
def test_argument_missing_or_too_many(spec: str) -> None:
    with pytest.raises(ConfigError, match="write"):
        open_source(spec)


def test_digits_split_is_stratified_and_covers_every_image() -> None:
    from sklearn.datasets import load_digits

    train, test = open_source("digits"), open_source("digits", split="test")
    whole = np.bincount(load_digits().target)
    assert len(train) + len(test) == 1797
    assert np.bincount(test.labels).tolist() == [round(count / 5) for count in whole]
    np.testing.assert_array_equal(np.bincount(train.labels) + np.bincount(test.labels), whole)


def test_digits_splits_share_no_image() -> None:
    train, test = open_source("digits"), open_source("digits", split="test")
    seen = {image.tobytes() for image in train.read(range(len(train)))}
    shared = [image.tobytes() in seen for image in test.read(range(len(test)))]
    assert not any(shared)


def test_digits_split_never_changes() -> None:
    digest = hashlib.sha256(open_source("digits", split="test").labels.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "6d2537b4901d11f4"


def test_digits_images() -> None:
    from sklearn.datasets import load_digits

    source = open_source("digits")
    assert source.shape == (3, 32, 32)
    assert source.class_names == tuple("0123456789")
    assert source.license is not None
    assert source.license.startswith("CC BY 4.0")
    assert source.name(3) == "digits train[3]"
    image = source.read([0])[0]
    np.testing.assert_array_equal(image[0], image[1])
    # Bicubic enlargement keeps the mean of each block of 4 x 4 close to the level it came from.
    blocks = image[0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
    distances = np.abs(load_digits().images - blocks).mean(axis=(1, 2))
    assert distances.min() < 1.2
    assert load_digits().target[distances.argmin()] == source.labels[0]


def test_digits_at_another_size() -> None:
    assert open_source("digits", size=16).read([0, 5]).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(("spec", "module"), [("digits", "sklearn"), ("cifar10", "torchvision")])
def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, spec: str, module: str) -> None:
    without_module(monkeypatch, module)
    with pytest.raises(ConfigError, match=r"pip install 'edgeprune\[build\]'"):
        open_source(spec)


class FakeCIFAR:
    """Stands in for torchvision.datasets.CIFAR10, with its attributes."""

    calls: list[tuple[str, bool, bool]] = []  # noqa: RUF012

    def __init__(self, root: str, train: bool, download: bool) -> None:
        self.calls.append((root, train, download))
        warnings.warn("align should be passed as Python or NumPy boolean", UserWarning, stacklevel=1)
        self.data = random_pixels(6 if train else 4, 32, 32, 3)
        self.targets = [0, 1] * (3 if train else 2)
        self.classes = ["airplane", "automobile"]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize(("split", "count"), [("train", 6), ("test", 4)])
def test_cifar_wraps_torchvision(monkeypatch: pytest.MonkeyPatch, kind: str, split: str, count: int) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets, kind.upper(), FakeCIFAR)
    monkeypatch.setattr(FakeCIFAR, "calls", [])
    source = open_source(f"{kind}:pictures", split=split)
    assert FakeCIFAR.calls == [("pictures", split == "train", False)]
    assert (len(source), source.shape) == (count, (3, 32, 32))
    assert source.class_names == ("airplane", "automobile")
    assert source.labels.tolist() == [0, 1] * (count // 2)
    assert source.name(2) == f"{kind} {split}[2]"
    expected = random_pixels(count, 32, 32, 3)[[3, 1]].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(source.read([3, 1]), expected)


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar_that_is_not_there_says_where_to_put_it(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("torchvision")
    archive = f"{kind[:5]}-{kind[5:]}-python.tar.gz"
    with pytest.raises(SourceError, match=rf"under {tmp_path}; put the official {archive} .* there"):
        open_source(f"{kind}:{tmp_path}")
    assert not list(tmp_path.iterdir())


def test_cifar_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="under data;"):
        open_source("cifar10")
