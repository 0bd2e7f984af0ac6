import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.coresets.sampling import ccs
from edgeprune.presets import (
    FAMILIES,
    MaskPreset,
    ccs_beta,
    component_count,
    coreset_size,
    data_family,
    je_cadence,
    mask_preset,
)
from edgeprune_formats import ConfigError

RATIOS = st.floats(0, 1, exclude_max=True)

# Ratio: k_total, k, lambda, as the paper's App. B prints them.
PUBLISHED = {
    "cifar10": {
        0.9: (102, 30, 0.05),
        0.8: (204, 50, 0.01),
        0.7: (308, 80, 0.08),
        0.6: (410, 100, 0.1),
        0.5: (512, 100, 0.1),
        0.3: (717, 100, 0.05),
    },
    "cifar100": {
        0.9: (102, 30, 0.1),
        0.8: (204, 50, 0.08),
        0.7: (308, 80, 0.13),
        0.6: (410, 100, 0.15),
        0.5: (512, 100, 0.13),
        0.3: (717, 100, 0.09),
    },
    "imagenet": {
        0.9: (5018, 600, 0.05),
        0.8: (10036, 1000, 0.02),
        0.7: (15053, 1000, 0.05),
        0.6: (20071, 1000, 0.1),
        0.5: (25090, 1000, 0.1),
        0.3: (35123, 1000, 0.1),
    },
}
SIDES = {"cifar10": 32, "cifar100": 32, "imagenet": 224}


@pytest.mark.parametrize(
    ("family", "ratio", "row"),
    [(family, ratio, row) for family, rows in PUBLISHED.items() for ratio, row in rows.items()],
)
def test_every_published_mask_preset(family, ratio, row):
    assert mask_preset(ratio, SIDES[family], SIDES[family], family) == MaskPreset(*row)


def test_mask_presets_between_and_beyond_the_published_ones():
    # Halfway from 80% (50, 0.01) to 90% (30, 0.05): k = 40, lambda = 0.03; k_total = 0.15 * 1024 = 153.6.
    preset = mask_preset(0.85, 32, 32, "cifar10")
    assert (preset.k_total, preset.k) == (154, 40)
    assert preset.accuracy_weight == pytest.approx(0.03)
    assert mask_preset(0.0, 32, 32, "cifar10") == MaskPreset(1024, 100, 0.05)
    assert mask_preset(0.95, 32, 32, "cifar100") == MaskPreset(51, 30, 0.1)
    # 1% of 1024 is 10 components, fewer than the 30 that would be fixed.
    assert mask_preset(0.99, 32, 32, "cifar10") == MaskPreset(10, 10, 0.05)


def test_k_grows_with_the_number_of_pixels():
    assert mask_preset(0.9, 64, 64, "cifar10").k == 30 * 4
    assert mask_preset(0.9, 16, 32, "cifar10").k == 15
    # 600 * 112 * 224 / 224**2 = 300, and 1000 * 96 * 96 / 224**2 = 183.7.
    assert mask_preset(0.9, 112, 224, "imagenet").k == 300
    assert mask_preset(0.5, 96, 96, "imagenet").k == 184


@given(RATIOS, st.integers(1, 300), st.integers(1, 300), st.sampled_from(list(FAMILIES)))
def test_a_mask_preset_is_always_possible(ratio, height, width, family):
    if round((1 - ratio) * height * width) == 0:
        with pytest.raises(ConfigError, match="keeps nothing"):
            mask_preset(ratio, height, width, family)
        return
    preset = mask_preset(ratio, height, width, family)
    assert 0 <= preset.k <= preset.k_total <= height * width
    weights = [weight for _, _, weight in PUBLISHED[family].values()]
    assert min(weights) <= preset.accuracy_weight <= max(weights)


@pytest.mark.parametrize(
    ("family", "percent"),
    [("cifar10", (0, 0, 10, 10, 30)), ("cifar100", (10, 20, 20, 40, 50)), ("imagenet", (0, 10, 20, 20, 30))],
)
def test_every_published_beta(family, percent):
    assert [ccs_beta(ratio, family) for ratio in (0.3, 0.5, 0.7, 0.8, 0.9)] == [p / 100 for p in percent]


def test_betas_between_and_beyond_the_published_ones():
    assert ccs_beta(0.0, "cifar100") == 0
    assert ccs_beta(0.15, "cifar100") == pytest.approx(0.05)
    assert ccs_beta(0.85, "cifar10") == pytest.approx(0.2)
    assert ccs_beta(0.6, "cifar10") == pytest.approx(0.05)
    assert ccs_beta(0.97, "imagenet") == 0.3


@given(RATIOS, st.integers(1, 60), st.integers(1, 4), st.sampled_from(list(FAMILIES)), st.integers(0, 9))
def test_the_betas_leave_enough_in_every_class(ratio, samples, classes, family, seed):
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    count = max(1, round((1 - ratio) * samples))
    noise = np.random.default_rng(seed).random(samples)
    for groups in (None, labels):
        beta = ccs_beta(ratio, family)
        assert len(ccs(noise, count, hardness=noise, beta=beta, seed=seed, labels=groups)) == count


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_ratios_out_of_range_are_refused(family, ratio):
    for preset in (lambda: ccs_beta(ratio, family), lambda: mask_preset(ratio, 32, 32, family)):
        with pytest.raises(ConfigError, match="pruning ratio"):
            preset()


def test_a_ratio_that_keeps_nothing_is_told():
    with pytest.raises(ConfigError, match=r"0\.5 keeps nothing of 1x1; lower `freq_prune`"):
        component_count(0.5, 1, 1)


def test_an_unknown_family_is_refused():
    for preset in (
        lambda: ccs_beta(0.5, "mnist"),
        lambda: mask_preset(0.5, 32, 32, "mnist"),
        lambda: je_cadence("mnist"),
    ):
        with pytest.raises(ConfigError, match="cifar10, cifar100, imagenet, not 'mnist'"):
            preset()


def test_entropies_are_recorded_every_five_epochs_and_every_two_on_imagenet():
    assert {family: je_cadence(family) for family in FAMILIES} == {"cifar10": 5, "cifar100": 5, "imagenet": 2}


@pytest.mark.parametrize(
    ("classes", "size", "family"),
    [
        (10, (32, 32), "cifar10"),
        (50, (32, 32), "cifar10"),
        (51, (32, 32), "cifar100"),
        (100, (63, 500), "cifar100"),
        (10, (64, 64), "imagenet"),
        (1000, (224, 224), "imagenet"),
    ],
)
def test_data_family(classes, size, family):
    assert data_family(classes, *size) == family


def test_a_published_ratio_is_reached_with_the_published_beta():
    # 90% of CIFAR-10: 5,000 drawn from the 35,000 that are left when 15,000 are dropped as too hard.
    noise = np.random.default_rng(0).random(50_000)
    count = coreset_size(0.9, 50_000)
    chosen = ccs(noise, count, hardness=noise, beta=ccs_beta(0.9, "cifar10"), seed=0)
    assert len(set(chosen.tolist())) == count == 5000
    assert noise[chosen].max() < np.sort(noise)[35_000]
