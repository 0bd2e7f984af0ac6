import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeprune.coresets import scores
from edgeprune.coresets.scores import (
    SCORES,
    aum,
    dual,
    dyn_unc,
    el2n,
    entropy,
    forgetting,
    hardness,
    joint_entropy,
)
from edgeprune_formats import ConfigError

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
RECORDS = hnp.arrays(np.float64, SHAPES, elements=st.floats(-10, 10))


def variance(values):
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def joint_entropy_by_loops(entropies, tau, gamma, window):
    count, samples = entropies.shape
    result = []
    for n in range(samples):
        series = [float(v) for v in entropies[:, n]]
        total = gamma**count * variance(series)
        for t in range(count):
            inside = [
                series[i]
                for i in range(count)
                if max(0, t - window // 2) <= i < min(count, t + window // 2 + 1)
            ]
            total += gamma**t * variance(inside) * (-1 if t < tau * count else 1)
        result.append(total)
    return result


@pytest.mark.slow
@given(RECORDS, st.floats(0, 1), st.floats(0.01, 1), st.integers(1, 12))
def test_joint_entropy_equals_its_equations_in_plain_loops(entropies, tau, gamma, window):
    result = joint_entropy(entropies, tau=tau, gamma=gamma, window=window)
    assert result.dtype == np.float64
    expected = joint_entropy_by_loops(entropies, tau, gamma, window)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


def test_a_hand_worked_joint_entropy():
    # Records 0, 3, 0 and three settings that make the arithmetic short: gamma 1/2, window 3, tau 2/3.
    # V(0) = Var(0, 3) = 9/4; V(1) = Var(0, 3, 0) = mean of squares 3 - mean squared 1 = 2; V(2) = 9/4.
    # tau T = 2, so t = 0 and 1 are early: S = -9/4 - 1/2 * 2 + 1/4 * 9/4 + 1/8 * 2.
    expected = -2.25 - 1 + 0.5625 + 0.25
    assert joint_entropy(np.array([[0.0], [3.0], [0.0]]), gamma=0.5) == pytest.approx([expected])


def test_the_defaults_are_the_papers():
    assert {
        name: p.default
        for name, p in inspect.signature(joint_entropy).parameters.items()
        if name != "entropies"
    } == {"tau": 2 / 3, "gamma": 0.99, "window": 3}


def test_an_image_that_varies_early_and_settles_is_more_important():
    rough, flat = [0.0, 2.0, 0.0, 2.0, 0.0, 2.0], [1.0, 1.0, 1.0]
    early, late, never = joint_entropy(np.array([rough + flat, flat + rough, flat * 3]).T)
    assert early < never < late


@pytest.mark.parametrize(("even", "odd"), [(2, 3), (4, 5)])
def test_an_even_window_is_the_next_odd_one(even, odd):
    entropies = np.random.default_rng(0).random((9, 4))
    results = [joint_entropy(entropies, window=window) for window in (even, odd, odd + 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[1] != results[2]).all()


def test_the_parts_in_which_many_images_are_scored_do_not_show(monkeypatch):
    entropies = np.random.default_rng(0).random((7, 50)).astype(np.float32)
    whole = joint_entropy(entropies)
    monkeypatch.setattr(scores, "BLOCK", 7)
    np.testing.assert_array_equal(joint_entropy(entropies), whole)


@pytest.mark.parametrize(
    "wrong",
    [{"tau": -0.1}, {"tau": 1.1}, {"tau": np.nan}, {"gamma": 0.0}, {"gamma": 1.1}, {"window": 0}],
    ids=str,
)
def test_parameters_of_joint_entropy_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        joint_entropy(np.zeros((3, 2)), **wrong)


def test_a_hand_worked_forgetting():
    correct = [
        [1, 1, 1, 1],  # never forgotten
        [0, 1, 0, 1],  # 1 -> 0 once
        [1, 0, 1, 0],  # twice, the last time for good
        [0, 0, 0, 0],  # never learned: one more than the highest of the others, 2
        [0, 0, 0, 1],  # learned late, not forgotten
    ]
    np.testing.assert_array_equal(forgetting(np.array(correct, bool).T), [0, 1, 2, 3, 0])


@given(hnp.arrays(np.bool_, SHAPES))
def test_forgetting_equals_counting_in_plain_loops(correct):
    epochs, samples = correct.shape
    counts = [
        sum(bool(correct[e, n] and not correct[e + 1, n]) for e in range(epochs - 1)) for n in range(samples)
    ]
    learned = [bool(correct[:, n].any()) for n in range(samples)]
    never = max((c for c, known in zip(counts, learned, strict=True) if known), default=0) + 1
    expected = [c if known else never for c, known in zip(counts, learned, strict=True)]
    result = forgetting(correct)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, expected)


def test_images_never_learned_do_not_empty_the_strata_of_the_others():
    correct = np.zeros((41, 3), bool)
    correct[::2, 1] = True  # 20 times forgotten
    correct[:20:2, 2] = True  # 10 times
    never, most, half = forgetting(correct)
    assert (never, most, half) == (21, 20, 10)
    assert int(50 * half / never) != int(50 * most / never)


def test_correctness_may_be_counted_in_ones_and_zeros():
    correct = np.array([[1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(forgetting(correct), forgetting(correct.astype(bool)))


def test_correctness_other_than_right_or_wrong_is_refused():
    with pytest.raises(ConfigError, match="true or false"):
        forgetting(np.array([[0.5], [1.0]]))


def test_el2n_takes_the_first_epochs_only():
    errors = np.array([[1.0, 0.5], [0.0, 1.0], [9.0, 9.0]])
    np.testing.assert_array_equal(el2n(errors, epochs=2), [0.5, 0.75])
    np.testing.assert_allclose(el2n(errors), [10 / 3, 10.5 / 3])  # all three: there are fewer than ten
    many = np.concatenate([np.ones((10, 2)), np.full((5, 2), 99.0)])
    np.testing.assert_array_equal(el2n(many), [1, 1])
    with pytest.raises(ConfigError, match="epochs"):
        el2n(errors, epochs=0)


def test_aum_is_the_mean_over_all_epochs():
    margins = np.array([[1.0, -1.0], [0.5, -0.5], [0.0, 0.0]])
    np.testing.assert_array_equal(aum(margins), [0.5, -0.5])


def test_entropy_is_the_last_record():
    np.testing.assert_array_equal(entropy(np.array([[9.0, 8.0], [0.25, 2.0]])), [0.25, 2])
    np.testing.assert_array_equal(entropy(np.array([[0.25, 2.0]])), [0.25, 2])


def test_random_scores_are_seeded_and_lie_in_the_unit_interval():
    first = scores.random(1000, seed=4)
    np.testing.assert_array_equal(first, scores.random(1000, seed=4))
    assert (first != scores.random(1000, seed=5)).all()
    assert first.shape == (1000,)
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.05


def test_random_scores_are_not_the_keys_by_which_samples_are_drawn():
    assert (scores.random(1000, seed=4) != np.random.default_rng(4).random(1000)).all()


@pytest.mark.parametrize(("samples", "seed"), [(0, 1), (5, -1)])
def test_random_scores_refuse_what_they_cannot_draw(samples, seed):
    with pytest.raises(ConfigError, match=r"samples|seed"):
        scores.random(samples, seed=seed)


FROM_RECORDS = [joint_entropy, el2n, aum, entropy]


@pytest.mark.parametrize("score", FROM_RECORDS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_records_that_are_not_finite_are_counted_and_the_first_is_named(score, bad):
    records = np.zeros((4, 9), np.float32)
    records[1, 7] = records[2, 7] = records[0, 5] = bad
    with pytest.raises(ConfigError, match=r"2 sample.*first 5"):
        score(records)


EVERY = [*FROM_RECORDS, forgetting, dyn_unc, dual]


@pytest.mark.parametrize("score", EVERY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", ["U3", "S3", object, complex, "M8[s]"])
def test_records_must_be_numbers(score, kind):
    with pytest.raises(ConfigError, match="must be numbers, not"):
        score(np.ones((4, 9)).astype("i8").astype(kind))


@pytest.mark.parametrize("score", EVERY, ids=lambda f: f.__name__)
def test_records_must_be_two_dimensional_with_a_row(score):
    for shape, problem in (
        ((), "dimension"),
        ((5,), "dimension"),
        ((2, 3, 4), "dimension"),
        ((0, 5), "no rows"),
    ):
        with pytest.raises(ConfigError, match=problem):
            score(np.zeros(shape, bool))


@pytest.mark.parametrize("score", FROM_RECORDS, ids=lambda f: f.__name__)
def test_single_precision_records_are_scored_in_double(score):
    records = np.random.default_rng(0).random((12, 30)).astype(np.float32)
    result = score(records)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, score(records.astype(np.float64)))


def test_the_table_names_functions_and_says_which_end_is_kept():
    assert {name: (s.name, s.records, s.keep_end) for name, s in SCORES.items()} == {
        "joint_entropy": ("joint_entropy", "entropies", "low"),
        "forgetting": ("forgetting", "correct", "high"),
        "el2n": ("el2n", "errors", "high"),
        "aum": ("aum", "margins", "low"),
        "entropy": ("entropy", "final_entropies", "high"),
        "dyn_unc": ("dyn_unc", "probabilities", "high"),
        "dual": ("dual", "probabilities", "high"),
        "random": ("random", "", "high"),
    }
    for name, score in SCORES.items():
        assert callable(getattr(scores, name))
        assert score.describes


@pytest.mark.parametrize("name", list(SCORES))
def test_hardness_puts_the_end_that_is_kept_on_top(name):
    turned = hardness(np.array([-1.0, 2.0, 0.5], np.float32), name)
    assert turned.dtype == np.float64
    assert turned.argmax() == (1 if SCORES[name].keep_end == "high" else 0)


def test_an_image_that_is_always_wrong_is_the_hardest_by_every_score_of_hardness():
    # One easy image, one that is learned late, one that is never learned; three classes.
    true = np.array([[0.9, 0.2, 0.05], [0.95, 0.5, 0.05], [0.98, 0.8, 0.05]])
    other = (1 - true) * 0.6
    rest = (1 - true) * 0.4
    records = {
        "correct": true > other,
        "errors": np.sqrt((1 - true) ** 2 + other**2 + rest**2),
        "margins": true - other,
        "final_entropies": -sum(p * np.log(p) for p in (true, other, rest))[-1:],
    }
    for name in ("forgetting", "el2n", "aum", "entropy"):
        turned = hardness(getattr(scores, name)(records[SCORES[name].records]), name)
        assert turned.argmax() == 2, name


def test_an_unknown_score_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"joint_entropy, forgetting.*'loss'"):
        hardness(np.zeros(3), "loss")
