"""Presets and transforms of batches: seeded by image and epoch, resumed exactly."""

import json
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from batch_copies import copied, same
from random_coefficients import quantized_pack
from torchvision.transforms import v2
from training_runs import CLASSES, MemoryLoader, run

from edgeprune.training.setup import train_pack
from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.targets import Column
from edgeprune_runtime import PackDataset, PackLoader
from edgeprune_runtime.decode.recipes import PRESETS, RECIPES, Recipe, uniform
from edgeprune_runtime.decode.torch_recipes import (
    RecipeTransform,
    erased,
    jittered,
    rand_augment_operations,
    resized_crops,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A pack of 53 images in chunks of 7."""
    return quantized_pack(tmp_path_factory.mktemp("pack") / "q.h5")


def loader(path, augment, **options):
    options = {"backend": "torch", "device": "cpu", "normalize": True, **options}
    return PackLoader(path, 8, True, 1, augment=augment, **options)


LABELS = [Column("label", "class", ("cat", "dog", "bird"))]


def noisy(images, labels):
    """A transform that draws from every global generator."""
    numbers = [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002
    return images * sum(numbers), labels


def test_uniform_numbers_are_uniform_and_each_image_has_its_own():
    found = uniform(3, 4, np.arange(20000), 4)
    assert found.min() >= 0
    assert found.max() < 1
    np.testing.assert_allclose(found.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(found.var(0), 1 / 12, atol=0.003)
    assert abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(found[:-1, 0], found[1:, 0])[0, 1]) < 0.03
    np.testing.assert_array_equal(uniform(3, 4, np.array([7, 2]), 4), found[[7, 2]])
    assert not np.isin(uniform(3, 5, np.arange(50), 4), found).any()


@pytest.mark.first_are_quick
@pytest.mark.parametrize("augment", [*PRESETS, noisy])
def test_batches_do_not_depend_on_prefetch_threads_or_buffers(path, augment):
    options = {"transform": augment} if callable(augment) else {}
    make = partial(loader, path, "flip" if callable(augment) else augment, **options)
    wanted = copied(make(prefetch=0))
    assert not same(wanted, copied(loader(path, "none")))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        state = torch.get_rng_state(), random.getstate()
        assert same(copied(make(prefetch=3, reuse_buffers=True)), wanted)
        assert torch.equal(torch.get_rng_state(), state[0])
        assert random.getstate() == state[1]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("augment", [*PRESETS, noisy])
def test_a_resumed_epoch_is_augmented_as_the_uninterrupted_one(path, augment):
    options = {"transform": augment} if callable(augment) else {"augment": augment}
    make = partial(loader, path, **{"augment": "crop", **options})
    original = make()
    original.set_epoch(2)
    batches = iter(original)
    for _ in range(3):
        next(batches)
    state = json.loads(json.dumps(original.state_dict()))
    rest = copied(batches)
    resumed = pickle.loads(pickle.dumps(make()))
    resumed.load_state_dict(state)
    assert same(copied(resumed), rest)
    assert not same(copied(resumed)[-len(rest) :], rest)


def test_an_image_is_augmented_by_its_number_and_epoch(path):
    recipe = RecipeTransform(
        Recipe((0.3, 1.0), jitter=0.4, operations=2, erase=0.5), [0.5] * 3, [0.2] * 3, LABELS, 0
    )
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    whole, _ = recipe(images, (labels,), np.arange(6), 1, 0)
    some, _ = recipe(images[[4, 1]], (labels[[4, 1]],), np.array([4, 1]), 1, 9)
    assert torch.equal(some, whole[[4, 1]])
    assert not torch.equal(recipe(images, (labels,), np.arange(6), 2, 0)[0], whole)


def test_a_crop_of_everything_is_the_image_or_its_mirror():
    images = torch.rand(2, 3, 7, 9)
    draws = np.array([[0.9, 0.5, 0.3, 0.3, 0.9], [0.9, 0.5, 0.3, 0.3, 0.1]])
    found = resized_crops(images, draws, Recipe(area=(1.0, 1.0), ratio=(1.0, 1.0)))
    torch.testing.assert_close(found[0], images[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], images[1].flip(2), atol=1e-5, rtol=0)


def test_a_crop_is_that_of_torchvision():
    images = torch.rand(1, 3, 32, 32)
    # A quarter of the area; its corner is at 0.25 and 0.75 of the room that there is.
    draws = np.array([[0.0, 0.5, 0.25, 0.75, 0.9]])
    found = resized_crops(images, draws, Recipe(area=(0.25, 0.25)))
    inside = found[0, :, 1:-1, 1:-1]
    right = v2.functional.resized_crop(images, 4, 12, 16, 16, [32, 32], antialias=False)[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside, right, atol=1e-5, rtol=0)


def test_jitter_is_that_of_torchvision():
    pixels = torch.rand(2, 3, 8, 8)
    factors = np.array([[0.7, 1.3, 1.2], [1.4, 0.6, 0.5]])
    for number, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        right = v2.functional.adjust_brightness(pixels[number], brightness)
        right = v2.functional.adjust_contrast(right, contrast)
        right = v2.functional.adjust_saturation(right, saturation)
        torch.testing.assert_close(jittered(pixels, factors)[number], right, atol=1e-5, rtol=0)
    gray = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(jittered(gray, np.array([[1, 1, 1.7]] * 2)), gray)


def test_erasing_erases_as_often_and_as_much_as_it_says():
    draws = np.random.default_rng(0).random((2000, 5))
    gone = (erased(torch.ones(2000, 1, 32, 32), draws, 0.25) == 0).float().mean((1, 2, 3))
    assert abs((gone > 0).float().mean() - 0.25) < 0.03
    share = gone[gone > 0]
    assert 0.01 < share.min() < 0.04
    assert 0.28 < share.max() < 0.36


def test_the_operations_of_rand_augment_are_those_of_torchvision():
    pixels = torch.rand(3, 3, 32, 32)
    operations, theirs = rand_augment_operations(9), v2.RandAugment(2, 9)
    assert len(operations) == len(theirs._AUGMENTATION_SPACE)
    for operation, (name, (magnitudes, signed)) in zip(
        operations, theirs._AUGMENTATION_SPACE.items(), strict=True
    ):
        levels = magnitudes(31, 32, 32)
        for sign in (1.0, -1.0) if signed else (1.0,):
            magnitude = sign * float(levels[9]) if levels is not None else 0.0
            right = theirs._apply_image_or_video_transform(
                pixels, name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill={}
            )
            torch.testing.assert_close(operation(pixels, sign), right, atol=1e-5, rtol=0, msg=name)


def test_mixed_batches_have_the_labels_of_both_images():
    for kind in ("mixup", "cutmix"):
        recipe = Recipe(area=(1.0, 1.0), ratio=(1.0, 1.0), **{kind: 1.0})
        columns = [Column("label", "class", tuple("abcde")), Column("place", "value"), Column("name", "text")]
        transform = RecipeTransform(recipe, [0.0], [1.0], columns, 0)
        # Image number k is all k / 8, so that a mean tells the shares.
        labels = torch.arange(4)
        images = (labels / 8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
        seen = set()
        for batch in range(8):
            targets = labels, labels[:, None] / 8, list("abcd")
            found, (soft, value, names) = transform(images, targets, np.arange(4), 0, batch)
            assert names == list("abcd")
            assert soft.shape == (4, 5)
            assert soft.dtype == torch.float32
            torch.testing.assert_close(soft.sum(1), torch.ones(4))
            means = (soft * torch.arange(5) / 8).sum(1)
            torch.testing.assert_close(found.mean((1, 2, 3)), means, atol=1e-5, rtol=0)
            torch.testing.assert_close(value[:, 0], means)
            seen.add(round(float(soft[0, 0]), 3))
        assert len(seen) > 3


def test_strong_gives_probabilities_and_light_gives_labels(path):
    _, labels = next(iter(loader(path, "strong")))
    assert labels.shape == (8, len(loader(path, "none").pack.header.class_names))
    _, labels = next(iter(loader(path, "light", dtype="bfloat16")))
    assert labels.dtype == torch.int64
    assert RECIPES.keys() == set(PRESETS)


def test_a_transform_of_torchvision_changes_a_whole_batch(path):
    classes = len(loader(path, "none").pack.header.class_names)
    mixing = loader(path, "none", transform=v2.MixUp(num_classes=classes))
    _, labels = next(iter(mixing))
    assert labels.shape == (8, classes)
    flipped = loader(path, "none", transform=v2.RandomHorizontalFlip(1.0))
    plain = copied(loader(path, "none"))
    assert same(copied(flipped), [(images[..., ::-1], labels) for images, labels in plain])


@pytest.mark.parametrize("backend", ["scipy", "native"])
def test_backends_of_numpy_take_transforms_and_refuse_presets(path, backend):
    doubled = loader(path, "flip", backend=backend, transform=lambda images, labels: (2 * images, labels))
    for (images, _), (plain, _) in zip(doubled, loader(path, "flip", backend=backend), strict=True):
        np.testing.assert_array_equal(images, 2 * plain)
    with pytest.raises(ConfigError, match="`augment='strong'` needs torch"):
        loader(path, "strong", backend=backend)


def test_what_is_wrong_is_said(path):
    with pytest.raises(ConfigError, match=r"unknown augmentation 'heavy'; known: none, crop, .*strong"):
        loader(path, "heavy")
    with pytest.raises(ConfigError, match=r"`transform` must return \(images, labels\), not Tensor"):
        next(iter(loader(path, "none", transform=lambda images, labels: images)))
    for make in (PackLoader, PackDataset):
        with pytest.raises(ConfigError, match="`transform` is 5; give a function, or leave it out"):
            make(path, transform=5)
    with pytest.raises(ConfigError, match="RandAugment takes images of 1 or 3 channels, not 4"):
        RecipeTransform(RECIPES["strong"], [0.5] * 4, [0.2] * 4, LABELS, 0)
    state = loader(path, "none", transform=noisy).state_dict()
    with pytest.raises(ConfigError, match="transform was noisy and is now None"):
        loader(path, "none").load_state_dict(state)
    del state["transform"]
    loader(path, "none").load_state_dict(state)


class OneHot(MemoryLoader):
    """The labels as probabilities."""

    def __iter__(self):
        for images, labels in super().__iter__():
            yield images, torch.nn.functional.one_hot(labels, CLASSES).float()


@pytest.mark.slow
def test_training_on_certain_probabilities_is_training_on_labels(tmp_path, one_thread):
    hard, soft = (run(tmp_path / kind.__name__, loader=kind()).metrics[-1] for kind in (MemoryLoader, OneHot))
    assert soft["train_accuracy"] == hard["train_accuracy"]
    assert soft["train_loss"] == pytest.approx(hard["train_loss"], abs=1e-4)


@pytest.mark.slow
def test_a_run_trains_with_a_preset_and_in_parts(path, tmp_path, one_thread):
    options = {"model": "resnet8", "epochs": 1, "batch_size": 8, "accumulate": 2, "device": "cpu"}
    with open_pack(path) as pack:
        found = train_pack(pack, tmp_path / "run", test=None, resume=False, augment="strong", **options)
    assert 0 <= found["train_accuracy"] <= 1
    assert np.isfinite(found["train_loss"])
