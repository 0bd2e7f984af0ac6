import math

import numpy as np
import pytest

from edgeprune_benchmarks.codec.quality import psnr, ssim


def flat(value, side=16, images=2):
    return np.full((images, 3, side, side), value, np.uint8)


def test_psnr_of_an_error_of_one_step_everywhere():
    assert psnr(flat(101), flat(100)) == pytest.approx(20 * math.log10(255))


def test_psnr_is_over_all_pixels_not_a_mean_over_images():
    images = flat(100)
    images[0] += 2
    assert psnr(images, flat(100)) == pytest.approx(10 * math.log10(255**2 / 2))


def test_psnr_of_the_same_pixels_is_infinite():
    assert psnr(flat(7), flat(7)) == math.inf


def test_ssim_of_flat_images_is_the_term_of_their_means():
    # Without variance equation 13 is (2 a b + C1) / (a^2 + b^2 + C1).
    light = (0.01 * 255) ** 2
    expected = (2 * 50 * 100 + light) / (50**2 + 100**2 + light)
    assert ssim(flat(50), flat(100)) == pytest.approx(expected)


def test_ssim_of_the_same_image_is_one_and_falls_with_noise():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 3, 20, 20)).astype(np.uint8)
    slight = (images + random.integers(-4, 5, images.shape)).clip(0, 255).astype(np.uint8)
    strong = (images + random.integers(-60, 61, images.shape)).clip(0, 255).astype(np.uint8)
    assert ssim(images, images) == pytest.approx(1)
    assert 1 > ssim(slight, images) > ssim(strong, images)


def test_ssim_of_one_window_agrees_with_the_formula_written_out():
    random = np.random.default_rng(1)
    one, other = random.integers(0, 256, (2, 1, 3, 11, 11)).astype(np.uint8)
    offset = np.arange(11) - 5
    weight = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for a, b in zip(one[0].astype(float), other[0].astype(float), strict=True):
        mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
        variances = (weight * (a - mean_a) ** 2).sum() + (weight * (b - mean_b) ** 2).sum()
        covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
        c1, c2 = 2.55**2, 7.65**2
        above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        values.append(above / ((mean_a**2 + mean_b**2 + c1) * (variances + c2)))
    assert ssim(one, other) == pytest.approx(np.mean(values))


@pytest.mark.parametrize("other", [flat(1, side=12), flat(1).astype(np.float64)])
def test_images_that_cannot_be_compared_are_refused(other):
    with pytest.raises(ValueError, match="not uint8 of one shape"):
        psnr(flat(1), other)


def test_ssim_of_images_smaller_than_its_window_is_refused():
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(flat(1, side=8), flat(1, side=8))
