"""The augmentation ``short``: small crops, and each image mirrored in every second epoch."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
from random_coefficients import quantized_pack

from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.augmentation import draw


def drawn(images, epoch, seed=3, side=32):
    count = {"count": len(images), "height": side, "width": side}
    return draw("short", seed=seed, epoch=epoch, batch=0, images=images, **count)


def mirrored(images, epoch, seed=3):
    columns = drawn(images, epoch, seed).columns
    return columns[:, 12] > columns[:, 20]


def test_each_image_is_mirrored_in_every_second_epoch():
    images = np.arange(2000)
    first = mirrored(images, 0)
    assert 0.45 < first.mean() < 0.55
    np.testing.assert_array_equal(mirrored(images, 1), ~first)
    np.testing.assert_array_equal(mirrored(images, 2), first)
    # It goes by the image, not by its place in a batch.
    np.testing.assert_array_equal(mirrored(images[::-7], 1), ~first[::-7])
    assert 0.4 < (mirrored(images, 0, seed=4) == first).mean() < 0.6


def test_crops_are_moved_by_a_sixteenth_at_most():
    rows = drawn(np.arange(500), 0).rows
    assert {*(rows[:, 16] - 16).tolist()} == {-2, -1, 0, 1, 2}
    assert (rows.min(), rows.max()) == (0, 31)
    small = drawn(np.arange(9), 0, side=8)
    np.testing.assert_array_equal(small.rows, np.tile(np.arange(8), (9, 1)))
    np.testing.assert_array_equal(small.mirrored, mirrored(np.arange(9), 0))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pack of 53 images in chunks of 7."""
    return quantized_pack(tmp_path_factory.mktemp("pack") / "q.h5")


@pytest.mark.first_are_quick
@pytest.mark.parametrize("backend", ["scipy", "native", "torch"])
def test_backends_agree_and_resume(path, backend):
    def make(of=backend):
        return PackLoader(path, 8, True, 1, backend=of, device="cpu", augment="short")

    def arrays(batches):
        return [np.asarray(images).copy() for images, _ in batches]

    wanted = arrays(make("scipy"))
    for one, other in zip(arrays(make()), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    whole = make()
    whole.set_epoch(1)
    batches = iter(whole)
    arrays(islice(batches, 3))
    state = json.loads(json.dumps(whole.state_dict()))
    rest, resumed = arrays(batches), make()
    resumed.load_state_dict(state)
    for one, other in zip(arrays(resumed), rest, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.is_tensor(next(iter(make()))[0]) == (backend == "torch")
