"""Arguments of `train` in Python that do not fit what the loaders give, found before the first epoch."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import TEST, TINY, run

from edgeprune_formats import ConfigError, PackHeader, PackWriter
from edgeprune_runtime import PackLoader
from edgeprune_runtime.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE, NAMES = (3, 16, 16), ("cat", "dog", "bird")
ONCE = replace(TINY, epochs=1)


@pytest.fixture
def pack(make_pack):
    return lambda name="pack.h5", size=SHAPE[1:]: make_pack(name, samples=9, size=size, components=50)[0]


def named(path, classes, like):
    """Write a pack of noise, with the mean of another, whose images have no classes beyond the third."""
    mean, std = (getattr(loader_of(like).pack.header, name) for name in ("mean", "std"))
    header = PackHeader(9, *SHAPE, 256, "sparse-f32", 9, classes, mean, std)
    labels = np.arange(9) % min(3, len(classes))
    with PackWriter(path, header, labels, np.arange(9)) as writer:
        writer.append(np.ones((9, *SHAPE), np.float32), np.ones((9, *SHAPE), bool))
    return loader_of(path)


def loader_of(path, **options):
    return PackLoader(path, 4, **{"normalize": True, "device": "cpu", "backend": "torch"} | options)


def start(run_dir, loader, config=ONCE, **options):
    return train(loader, config, run_dir, **{"num_classes": 3, "image_shape": SHAPE} | options)


@pytest.mark.parametrize("classes", [NAMES, ("cat", "dog", "bird", "fish"), ("cat", "dog")])
def test_a_test_pack_whose_classes_have_the_numbers_of_training(tmp_path, pack, classes):
    """One that lacks the last class, or has one more of no image, is tested."""
    path = pack()
    found = start(tmp_path / "run", loader_of(path), test=named(tmp_path / "test.h5", classes, path))
    each = found.metrics[0]["test_class_accuracy"]
    assert [one is None for one in each] == [place >= len(classes) for place in range(3)]


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("dog", "cat", "bird"), "class 'dog' is 0 in the test set, and in training 1;"),
        (("cat", "bird"), "class 'bird' is 1 in the test set, and in training 2;"),
        (("cat", "fish", "dog"), "class 'fish' is 1 in the test set, and in training not there;"),
    ],
)
def test_a_test_pack_that_numbers_its_classes_otherwise_is_refused(tmp_path, pack, classes, told):
    path = pack()
    with pytest.raises(ConfigError, match=re.escape(told)):
        start(tmp_path / "run", loader_of(path), test=named(tmp_path / "test.h5", classes, path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image_shape": (3, 32, 32)}, "training images are (3, 16, 16), `image_shape` is (3, 32, 32)"),
        ({"image_shape": (1, 16, 16)}, "training images are (3, 16, 16), `image_shape` is (1, 16, 16)"),
        ({"num_classes": 2}, "the training set has label 2, and the network 2 classes"),
        ({"num_classes": 3.0}, "`num_classes` is 3.0; it must be an integer"),
        ({"image_shape": None}, "`image_shape` is None; give channels, height and width"),
        ({"image_shape": (3, 16, "16")}, "`image_shape` is '16'; it must be an integer"),
        ({"config": replace(ONCE, sampling="balanced")}, "`sampling` of the settings is balanced"),
        ({"provenance": {"mean": [0.0], "made": {1}}}, "`provenance` and `notes` are to be what JSON holds"),
    ],
)
def test_arguments_that_are_not_those_of_the_loader_are_refused(tmp_path, pack, given, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        start(tmp_path / "run", loader_of(pack()), **given)
    assert not (tmp_path / "run").exists()


def test_loaders_of_arrays_and_of_other_sizes_are_refused(tmp_path, pack):
    path, large = pack(), pack("large.h5", (32, 16))
    arrays, other = loader_of(path, backend="scipy"), loader_of(large)
    with pytest.raises(ConfigError, match=r"of training images gives arrays; .* `backend='torch'`"):
        start(tmp_path / "run", arrays)
    with pytest.raises(ConfigError, match="of test images gives arrays"):
        start(tmp_path / "run", loader_of(path), test=arrays)
    with pytest.raises(ConfigError, match=re.escape("test images are (3, 32, 16), `image_shape` is (3, 16")):
        start(tmp_path / "run", loader_of(path), test=other)


@pytest.mark.parametrize("normalize", [False, ((0.5,) * 3, (0.1,) * 3), ((0.0, 0.5, 0.5), (0.25,) * 3)])
def test_a_test_loader_of_another_normalization_is_refused(tmp_path, pack, normalize):
    path = pack()
    header = loader_of(path).pack.header
    with pytest.raises(ConfigError, match=re.escape("`normalize=(header.mean, header.std)` of the training")):
        start(tmp_path / "run", loader_of(path), test=loader_of(path, normalize=normalize))
    assert not (tmp_path / "run").exists()
    start(tmp_path / "run", loader_of(path), test=loader_of(path, normalize=(header.mean, header.std)))


def test_numbers_of_numpy_are_numbers(tmp_path, pack):
    loader = loader_of(pack())
    classes = loader.pack.labels.max() + 1
    start(tmp_path / "run", loader, num_classes=classes, image_shape=np.array(loader.image_shape))
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (record["num_classes"], record["image_shape"]) == (3, [3, 16, 16])


def test_the_shape_of_a_loader_at_a_lower_resolution(tmp_path, pack):
    loader = loader_of(pack("large.h5", (32, 32)), resolution=16)
    assert loader.image_shape == next(iter(loader))[0].shape[1:] == SHAPE
    assert len(start(tmp_path / "run", loader).metrics) == 1


@pytest.mark.parametrize(
    ("images", "labels", "told"),
    [
        (np.zeros((2, *SHAPE), np.float32), np.array([0, 1]), "a test batch is images, a float32 tensor"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.tensor([0, 1]), "a test batch is images"),
        (torch.zeros(2, *SHAPE), torch.tensor([0, 1, 2]), "a test batch is images"),
        (torch.zeros(2, *SHAPE), torch.tensor([0, -1]), "the test set has label -1, and the network 4"),
    ],
)
def test_test_batches_of_other_kinds_are_refused(tmp_path, images, labels, told):
    with pytest.raises(ConfigError, match=told):
        run(tmp_path / "run", ONCE, test=[*TEST, (images, labels)])
