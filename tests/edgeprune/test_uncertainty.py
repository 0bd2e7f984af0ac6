import numpy as np
import pytest

from edgeprune.coresets.beta_sampling import beta_parameters, beta_sampling
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.uncertainty import dual, dyn_unc
from edgeprune_formats import ConfigError


def by_loops(probabilities, window, weight):
    count = len(probabilities) - window + 1
    total = np.zeros(probabilities.shape[1])
    for n in range(probabilities.shape[1]):
        for first in range(count):
            inside = [float(p) for p in probabilities[first : first + window, n]]
            mean = sum(inside) / window
            total[n] += weight(mean) * (sum((p - mean) ** 2 for p in inside) / (window - 1)) ** 0.5
    return total / count


@pytest.mark.parametrize("window", [2, 3, 7])
def test_both_equal_their_equations_in_plain_loops(window):
    records = np.random.default_rng(0).random((7, 5)).astype("f4")
    expected = by_loops(records, window, lambda mean: 1)
    np.testing.assert_allclose(dyn_unc(records, window=window), expected)
    expected = by_loops(records, window, lambda mean: 1 - mean)
    np.testing.assert_allclose(dual(records, window=window), expected)


def test_hand_worked_scores():
    # Windows (0, 1) and (1, 1): deviations sqrt(1/2) and 0, means 1/2 and 1.
    records = np.array([[0.0], [1.0], [1.0]])
    assert dyn_unc(records, window=2) == pytest.approx([0.5**0.5 / 2])
    assert dual(records, window=2) == pytest.approx([0.5**0.5 / 4])


def test_dual_takes_the_first_epochs_and_a_window_at_most_all():
    records = np.random.default_rng(0).random((40, 3))
    np.testing.assert_array_equal(dual(records), dual(records[:30]))
    np.testing.assert_array_equal(dual(records[:4]), dual(records[:4], window=4))
    assert (dual(records, epochs=20) != dual(records)).all()


@pytest.mark.parametrize(
    ("score", "records", "settings"),
    [
        (dual, np.zeros((1, 3)), {}),
        (dyn_unc, np.zeros((1, 3)), {}),
        (dual, np.zeros((3, 3)), {"epochs": 1}),
        (dyn_unc, np.zeros((3, 3)), {"window": 1}),
        (dyn_unc, np.full((3, 3), np.nan), {}),
        (dual, np.zeros(3), {}),
    ],
)
def test_too_few_epochs_and_what_is_not_finite_are_refused(score, records, settings):
    with pytest.raises(ConfigError):
        score(records, **settings)


def test_a_mean_just_above_1_makes_no_score_negative():
    records = np.full((3, 1), 1 + 1e-7)
    records[1] += 1e-8
    assert dual(records).min() >= 0


def test_the_distribution_moves_to_easy_images_as_more_are_left_out():
    # The mode of Beta(a, b) is (a - 1) / (a + b - 2).
    modes = []
    for ratio in (0.0, 0.5, 0.8, 0.9, 0.99):
        alpha, beta = beta_parameters(0.4, ratio, 5.5)
        assert alpha + beta == pytest.approx(16)
        modes.append(alpha / (alpha + beta))
    assert modes == sorted(modes)
    assert beta_parameters(0.4, 0.0, 5.5) == pytest.approx((7, 9))


@pytest.mark.slow
def test_samples_are_drawn_in_proportion_to_score_times_density():
    scores, means = np.array([1.0, 3.0, 1.0, 0.0]), np.array([0.3, 0.3, 0.7, 0.7])
    alpha, beta = beta_parameters(means.mean(), 0.75, 5.5)
    density = means ** (alpha - 1) * (1 - means) ** (beta - 1)
    expected = scores * density / (scores * density).sum()
    settings = {"sample_prune": 0.75, "c_d": 5.5}
    drawn = [int(beta_sampling(scores, means, 1, seed=seed, **settings)[0]) for seed in range(2000)]
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 2000, expected, atol=0.04)
    # What has no weight comes last.
    assert 3 not in beta_sampling(scores, means, 3, seed=1, **settings)
    assert sorted(beta_sampling(scores, means, 4, seed=1, **settings)) == [0, 1, 2, 3]


def test_a_draw_is_exact_seeded_shuffled_and_balanced_when_asked():
    random = np.random.default_rng(0)
    scores, means, labels = random.random(400), random.random(400), np.repeat([0, 1], [300, 100])
    settings = {"sample_prune": 0.9, "c_d": 4.0}
    chosen = beta_sampling(scores, means, 40, seed=3, labels=labels, **settings)
    assert len(set(chosen.tolist())) == 40
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [30, 10])
    assert chosen.tolist() != sorted(chosen.tolist())
    free = beta_sampling(scores, means, 40, seed=3, **settings)
    np.testing.assert_array_equal(free, beta_sampling(scores, means, 40, seed=3, **settings))
    assert set(free.tolist()) != set(beta_sampling(scores, means, 40, seed=4, **settings).tolist())


@pytest.mark.parametrize(
    ("scores", "means"),
    [([-1.0, 1.0], [0.5, 0.5]), ([1.0, 1.0], [0.5]), ([np.inf, 1.0], [0.5, 0.5]), ([], [])],
)
def test_what_cannot_be_drawn_from_is_refused(scores, means):
    with pytest.raises(ConfigError):
        beta_sampling(np.array(scores), np.array(means), 1, sample_prune=0.5, c_d=4.0, seed=0)


def test_beta_is_for_dual_alone():
    assert CoresetConfig("dual").sampled_by == CoresetConfig("dual", "beta").sampled_by == "beta"
    assert [CoresetConfig(name).sampled_by for name in ("dyn_unc", "aum")] == ["top-k", "ccs"]
    with pytest.raises(ConfigError, match="`sampling` beta is for `score` dual"):
        CoresetConfig("aum", "beta")
    with pytest.raises(ConfigError, match="`dual_epochs`"):
        CoresetConfig("dual", dual_epochs=1)
