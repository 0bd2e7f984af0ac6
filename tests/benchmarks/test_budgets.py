import numpy as np
import pytest

from edgeprune_benchmarks.codec.budgets import PeerFitter, make_fitter, nested_order
from edgeprune_benchmarks.codec.packs import ImageSet
from edgeprune_benchmarks.codec.peers import LOSSLESS, LOSSY
from edgeprune_formats import ConfigError, open_pack


def image_set(count=400, side=16):
    """Smooth images with a little noise, of four classes."""
    random = np.random.default_rng(0)
    low = random.integers(0, 256, (count, 3, side // 8, side // 8)).astype(float)
    noisy = low.repeat(8, 2).repeat(8, 3) + random.normal(0, 6, (count, 3, side, side))
    return ImageSet("small", noisy.clip(0, 255).astype(np.uint8), np.arange(count) % 4)


def test_every_beginning_of_the_order_has_the_classes_in_equal_numbers():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 25))
    order = nested_order(labels, seed=3)
    assert sorted(order) == list(range(100))
    for length in range(1, 101):
        counts = np.bincount(labels[order[:length]], minlength=4)
        assert counts.max() - counts.min() <= 1


def test_the_order_goes_on_with_the_classes_that_are_left_and_depends_on_the_seed():
    labels = np.array([0] * 30 + [1] * 2)
    order = nested_order(labels, seed=0)
    assert set(order[:4]) >= {30, 31}
    assert sorted(order) == list(range(32))
    assert list(order) == list(nested_order(labels, seed=0)) != list(nested_order(labels, seed=1))


def test_raw_pixels_fill_a_budget_to_the_image():
    images = image_set()
    fitted = make_fitter("raw uint8", None, images, None).fit(images, 10 * 768 + 767)
    assert fitted.bytes == 10 * 768
    np.testing.assert_array_equal(fitted.images.pixels, images.pixels[:10])
    np.testing.assert_array_equal(fitted.images.labels, images.labels[:10])


def test_files_fit_a_budget_and_one_more_would_not():
    pytest.importorskip("imagecodecs")
    images, budget = image_set(), 50_000
    fitter = make_fitter("JPEG 4:4:4", 32.0, images.take(np.arange(50)), None)
    fitted = fitter.fit(images, budget)
    count = len(fitted.images.labels)
    more = fitter.fit(images.take(np.arange(count + 1)), 10**9)
    assert fitted.bytes <= budget < more.bytes
    assert abs(fitter.psnr_db - 32) < 1


def test_all_images_are_taken_where_all_fit():
    images = image_set(40)
    assert len(PeerFitter(LOSSLESS[0], 0, None).fit(images, 10**9).images.labels) == 40


@pytest.mark.slow
def test_a_pack_fits_its_budget_and_nearly_fills_it(tmp_path):
    images = image_set(1200)
    fitter = make_fitter("quantized", 30.0, images.take(np.arange(100)), tmp_path)
    everything = fitter.fit(images, 10**9)
    assert len(everything.images.labels) == 1200
    fitted = fitter.fit(images, everything.bytes // 2)
    assert 0.9 * (everything.bytes // 2) < fitted.bytes <= everything.bytes // 2
    assert 400 < len(fitted.images.labels) < 1200
    assert abs(fitter.psnr_db - 30) < 0.5


@pytest.mark.parametrize(
    ("codec", "facts"),
    [
        ("quantized", ("full", None)),
        ("quantized, nearest", ("full", "nearest")),
        ("quantized, tile 8", ("8", None)),
    ],
)
def test_packs_of_each_row_are_what_its_name_says(codec, facts, tmp_path):
    images = image_set(40)
    make_fitter(codec, 30.0, images, tmp_path).fit(images, 10**9)
    with open_pack(tmp_path / "pack.h5") as pack:
        assert (pack.header.tile, pack.header.provenance["config"].get("rounding")) == facts


@pytest.mark.parametrize(
    ("codec", "target", "message"), [("GIF", 30.0, "unknown codec"), ("WebP", 80.0, "cannot reach")]
)
def test_what_cannot_be_is_refused(codec, target, message):
    pytest.importorskip("imagecodecs")
    with pytest.raises(ConfigError, match=message):
        make_fitter(codec, target, image_set(20), None)


def test_a_budget_below_one_file_is_refused():
    pytest.importorskip("imagecodecs")
    with pytest.raises(ConfigError, match="no file of"):
        PeerFitter(LOSSY[0], 50, 30.0).fit(image_set(10), 20)
