import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from edgeprune.masks.components import energy_mask
from edgeprune.packs.encoding.dct import dct2
from edgeprune.presets import component_count
from edgeprune_formats import ConfigError


def test_dct_of_a_hand_worked_image():
    # A 2x2 image of bytes a b / c d: the orthonormal DCT-II is half the sums and differences.
    image = np.array([[[[255, 51], [102, 0]]]], np.uint8)
    expected = np.array([[1.0 + 0.2 + 0.4, 1.0 - 0.2 + 0.4], [1.0 + 0.2 - 0.4, 1.0 - 0.2 - 0.4]]) / 2
    np.testing.assert_allclose(dct2(image)[0, 0], expected, atol=1e-7)


def test_dct_is_the_product_with_the_basis_and_keeps_the_energy():
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 12, 20)).astype(np.uint8)
    rows, columns = dct(np.eye(12), axis=0, norm="ortho"), dct(np.eye(20), axis=0, norm="ortho")
    pixels = images / 255
    np.testing.assert_allclose(dct2(images), rows @ pixels @ columns.T, atol=1e-5)
    np.testing.assert_allclose((dct2(images) ** 2).sum(), (pixels**2).sum(), rtol=1e-5)


def test_the_energy_mask_keeps_the_largest_magnitudes():
    plane = np.array([[[[5.0, -1.0, 2.0], [-4.0, 0.5, 3.0]]]])
    expected = [[[[True, False, False], [True, False, True]]]]
    np.testing.assert_array_equal(energy_mask(plane, 3), expected)


def test_ties_go_to_the_lower_row_and_column():
    plane = np.array([[[[1.0, -2.0, 2.0], [2.0, 9.0, -2.0]]]])
    np.testing.assert_array_equal(energy_mask(plane, 3), [[[[False, True, True], [False, True, False]]]])
    np.testing.assert_array_equal(energy_mask(np.zeros((1, 1, 2, 3)), 4).ravel(), [1, 1, 1, 1, 0, 0])


def brute_force(coefficients, count):
    mask = np.zeros(coefficients.shape, bool)
    for image in range(coefficients.shape[0]):
        for channel in range(coefficients.shape[1]):
            plane = coefficients[image, channel].ravel()
            ranked = sorted(range(plane.size), key=lambda i: (-abs(plane[i]), i))
            mask[image, channel].ravel()[ranked[:count]] = True
    return mask


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 4))
def test_the_energy_mask_equals_sorting_by_energy_then_position(seed, count, levels):
    coefficients = np.random.default_rng(seed).integers(-levels, levels + 1, (2, 3, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(energy_mask(coefficients, count), brute_force(coefficients, count))


@pytest.mark.parametrize("count", [0, 31])
def test_a_count_that_cannot_be_kept_is_refused(count):
    with pytest.raises(ConfigError, match="of 30"):
        energy_mask(np.zeros((1, 1, 5, 6)), count)


@pytest.mark.parametrize(
    ("ratio", "size", "count"),
    [
        (0.5, 32, 512),
        (0.7, 32, 308),
        (0.8, 32, 204),
        (0.9, 32, 102),
        (0.5, 224, 25090),
        (0.0, 32, 1024),
        (0.25, 32, 768),
        (0.7, 64, 1229),
    ],
)
def test_component_counts(ratio, size, count):
    assert component_count(ratio, size, size) == count


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), 0.99999])
def test_ratios_that_keep_nothing_are_refused(ratio):
    with pytest.raises(ConfigError, match="ratio"):
        component_count(ratio, 32, 32)
