import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeprune.coresets.sampling import ccs, random_coreset, stratum_budgets, top_k
from edgeprune.presets import coreset_size
from edgeprune_formats import ConfigError

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=200)
FINITE = st.floats(allow_nan=False, allow_infinity=False)  # subnormals and +-1.8e308 too
ANY_SCORES = st.one_of(
    hnp.arrays(np.float64, st.integers(1, 80), elements=FINITE),
    hnp.arrays(np.float64, st.integers(1, 80), elements=st.floats(-1, 0)),
    hnp.arrays(np.float64, st.integers(1, 80), elements=st.integers(0, 4)),
    hnp.arrays(
        np.float64, st.integers(1, 80), elements=st.sampled_from([0.0, 1e-300, 5e-324, 1e300, -1e300])
    ),
)


@given(LABELS, st.data())
def test_exactly_count_distinct_samples_in_proportion(labels, data):
    labels = np.array(labels)
    count = data.draw(st.integers(1, len(labels)))
    chosen = random_coreset(labels, count, seed=data.draw(st.integers(0, 100)))
    assert len(chosen) == len(set(chosen.tolist())) == count
    sizes = np.bincount(labels, minlength=7)
    kept = np.bincount(labels[chosen], minlength=7)
    assert (kept <= sizes).all()
    if count >= np.count_nonzero(sizes):
        assert (kept[sizes > 0] >= 1).all()
    exact = sizes * count / len(labels)
    if (exact[sizes > 0] >= 1).all():
        assert (np.abs(kept - exact) < 1).all()


def test_a_hand_worked_share():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)
    np.testing.assert_array_equal(np.bincount(labels[random_coreset(labels, 10, seed=0)]), [5, 3, 2])
    # 7 of 100: exact shares 3.5, 2.1, 1.4; the largest remainder gets the seventh.
    np.testing.assert_array_equal(np.bincount(labels[random_coreset(labels, 7, seed=0)]), [4, 2, 1])


def test_a_rare_class_keeps_an_image():
    labels = np.array([0] * 998 + [-1, 5])
    assert set(random_coreset(labels.tolist(), 10, seed=0)[:10]) > {998, 999}
    labels = np.array([0] * 998 + [1, 2])
    np.testing.assert_array_equal(np.bincount(labels[random_coreset(labels, 10, seed=0)]), [8, 1, 1])


def test_the_seed_fixes_the_coreset_and_its_order():
    labels = np.random.default_rng(0).integers(0, 10, 1000)
    first = random_coreset(labels, 500, seed=3)
    np.testing.assert_array_equal(first, random_coreset(labels, 500, seed=3))
    assert not np.array_equal(first, random_coreset(labels, 500, seed=4))
    assert not np.array_equal(first, np.sort(first))


def test_every_sample_is_drawn_sometimes():
    labels = np.array([0] * 6 + [1] * 6)
    seen = {int(i) for seed in range(60) for i in random_coreset(labels, 4, seed=seed)}
    assert seen == set(range(12))


@pytest.mark.parametrize("count", [0, 13])
def test_a_count_out_of_range_is_refused(count):
    with pytest.raises(ConfigError, match="of 12"):
        random_coreset(np.zeros(12, np.int64), count, seed=0)


def test_coreset_size():
    assert [coreset_size(r, 1797) for r in (0, 0.5, 0.9)] == [1797, 898, 180]
    for ratio, samples in ((1.0, 10), (-0.1, 10), (0.99, 10)):
        with pytest.raises(ConfigError, match="ratio"):
            coreset_size(ratio, samples)


def budgets_by_loops(sizes, count):
    budgets = [0] * len(sizes)
    left = count
    for visited, stratum in enumerate(sorted(range(len(sizes)), key=lambda b: (sizes[b], b))):
        budgets[stratum] = min(sizes[stratum], left // (len(sizes) - visited))
        left -= budgets[stratum]
    return budgets


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=60)


@given(SIZES, st.data())
def test_budgets_sum_to_the_count_and_never_exceed_a_stratum(sizes, data):
    count = data.draw(st.integers(0, sum(sizes)))
    budgets = stratum_budgets(np.array(sizes), count)
    assert budgets.dtype == np.int64
    assert budgets.sum() == count
    assert (budgets >= 0).all()
    assert (budgets <= sizes).all()
    assert budgets.tolist() == budgets_by_loops(sizes, count)


@pytest.mark.slow
@given(SIZES, st.data())
def test_empty_strata_do_not_matter_to_the_budgets(sizes, data):
    sizes = np.array(sizes)
    count = data.draw(st.integers(0, int(sizes.sum())))
    occupied = sizes > 0
    budgets = stratum_budgets(sizes, count)[occupied]
    np.testing.assert_array_equal(budgets, stratum_budgets(sizes[occupied], count))


def test_hand_worked_budgets():
    # 12 of sizes 10, 1, 0, 4. Visited 0, 1, 4, 10: min(0, 12 // 4) = 0; min(1, 12 // 3) = 1;
    # min(4, 11 // 2) = 4; min(10, 7 // 1) = 7.
    np.testing.assert_array_equal(stratum_budgets(np.array([10, 1, 0, 4]), 12), [7, 1, 0, 4])
    # Equal sizes by position: 5 // 3 = 1, 4 // 2 = 2, 2 // 1 = 2.
    np.testing.assert_array_equal(stratum_budgets(np.array([3, 3, 3]), 5), [1, 2, 2])


@pytest.mark.parametrize(("sizes", "count"), [([1, 2], 4), ([1, 2], -1), ([3, -1], 1)])
def test_budgets_that_cannot_be_met_are_refused(sizes, count):
    with pytest.raises(ConfigError, match="strata"):
        stratum_budgets(np.array(sizes), count)


def ccs_by_loops(scores, count, hardness, beta, strata, seed):
    """The set that ccs draws without classes, one sample at a time; for scores of a moderate range."""
    samples = len(scores)
    keys = np.random.default_rng(seed).random(samples)
    ranked = sorted(range(samples), key=lambda i: (hardness[i], i))
    left = ranked[: samples - round(beta * samples)]
    low, high = min(scores[i] for i in left), max(scores[i] for i in left)
    bins = [[] for _ in range(strata)]
    for i in left:
        place = 0 if low == high else int((scores[i] - low) * strata / (high - low))
        bins[min(place, strata - 1)].append(i)
    budgets = budgets_by_loops([len(b) for b in bins], count)
    drawn = [sorted(b, key=lambda i: keys[i])[:budget] for b, budget in zip(bins, budgets, strict=True)]
    return {i for part in drawn for i in part}


@pytest.mark.slow
@given(
    hnp.arrays(np.float64, (40, 2), elements=st.floats(-100, 100, width=16)),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.1, 0.33, 0.5]),
    st.integers(1, 60),
    st.integers(0, 99),
)
def test_ccs_equals_the_same_in_plain_loops(columns, count, beta, strata, seed):
    scores, hardness = columns.T
    chosen = ccs(scores, count, hardness=hardness, beta=beta, strata=strata, seed=seed)
    assert set(chosen.tolist()) == ccs_by_loops(scores, count, hardness, beta, strata, seed)


@pytest.mark.slow
@given(ANY_SCORES, st.integers(1, 70), st.floats(0, 0.9), st.integers(0, 9), st.data())
def test_ccs_draws_exactly_count_whatever_the_scores(scores, strata, beta, seed, data):
    left = len(scores) - round(beta * len(scores))
    count = data.draw(st.integers(min(1, left), left))
    options = {"hardness": -scores, "beta": beta, "strata": strata, "seed": seed}
    if not count:
        with pytest.raises(ConfigError, match="of"):
            ccs(scores, 1, **options)
        return
    chosen = ccs(scores, count, **options)
    assert chosen.dtype == np.int64
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert chosen.min() >= 0
    assert chosen.max() < len(scores)
    np.testing.assert_array_equal(chosen, ccs(scores, count, **options))


@pytest.mark.slow
@given(ANY_SCORES, st.integers(-900, 900))
def test_strata_do_not_depend_on_the_unit_of_the_scores(scores, exponent):
    # Only where nothing over- or underflows is the change of unit exact.
    other = np.ldexp(np.clip(scores, -1, 1).astype(np.float32).astype(np.float64), exponent)
    unit = np.ldexp(other, -exponent)
    half = (len(scores) + 1) // 2
    drawn = [ccs(s, half, hardness=-unit, beta=0, seed=0) for s in (unit, other)]
    np.testing.assert_array_equal(*drawn)


@pytest.mark.slow
@given(ANY_SCORES, st.floats(0, 0.95), st.integers(0, 9))
def test_what_ccs_drops_is_hardest_by_hardness(hardness, beta, seed):
    samples = len(hardness)
    drop = round(beta * samples)
    if drop == samples:
        return
    scores = np.random.default_rng(seed).random(samples)
    kept = np.sort(ccs(scores, samples - drop, hardness=hardness, beta=beta, seed=seed))
    expected = sorted(sorted(range(samples), key=lambda i: (hardness[i], i))[: samples - drop])
    assert kept.tolist() == expected


def test_trap_negative_scores_the_highest_of_them_stays_in_the_last_stratum():
    # max * 1.0001 lies below a negative maximum, and would leave out the highest scores.
    for top in (-1e-3, 0.0):
        scores = np.linspace(-1, top, 100)
        everything = ccs(scores, 100, hardness=-scores, beta=0, seed=0)
        assert sorted(everything.tolist()) == list(range(100))
    # 50 strata of two samples each, one to be drawn from each, the last included.
    scores = np.repeat(np.arange(-50.0, 0.0), 2)
    chosen = ccs(scores, 50, hardness=-scores, beta=0, seed=0)
    assert sorted(scores[chosen].tolist()) == list(range(-50, 0))


def test_trap_hardness_what_is_dropped_is_not_decided_by_the_scores():
    scores = np.arange(100.0)
    hardness = np.where(np.arange(100) % 10 == 3, 1.0, 0.0)
    chosen = ccs(scores, 90, hardness=hardness, beta=0.1, seed=0)
    assert sorted(chosen.tolist()) == [i for i in range(100) if i % 10 != 3]


@pytest.mark.parametrize("count", [1, 7, 49, 50, 51, 99, 777, 1000])
def test_trap_exact_count_with_crowded_and_nearly_empty_strata(count):
    # Heavy tails: nearly all samples share a few strata, others have one or two, and many are empty.
    scores = np.random.default_rng(0).lognormal(sigma=2, size=1000)
    assert (np.histogram(scores, 50)[0] == 0).any()
    assert len(set(ccs(scores, count, hardness=scores, beta=0, seed=0).tolist())) == count


def test_strata_are_of_equal_width_and_not_of_equal_size():
    # 90 scores in the lower half of the range and 10 in the upper, two strata, 20 to draw: 10 from each.
    scores = np.concatenate([np.linspace(0, 0.49, 90), np.linspace(0.51, 1, 10)])
    chosen = ccs(scores, 20, hardness=scores, beta=0, strata=2, seed=0)
    assert (scores[chosen] < 0.5).sum() == 10


def test_the_range_is_that_of_the_samples_left():
    # Without the hardest, 1000, the two strata of 0 .. 19 are 0 .. 9 and 10 .. 19.
    scores = np.append(np.arange(20.0), 1000.0)
    chosen = ccs(scores, 10, hardness=scores, beta=0.05, strata=2, seed=0)
    assert (scores[chosen] < 9.5).sum() == 5
    assert scores[chosen].max() < 20


def test_constant_scores_are_drawn_uniformly():
    hits = np.zeros(20)
    for seed in range(400):
        hits[ccs(np.zeros(20), 5, hardness=np.zeros(20), beta=0, seed=seed)] += 1
    # 100 expected of each, with a standard deviation of sqrt(400 * 1/4 * 3/4) = 8.7.
    assert (np.abs(hits - 100) < 5 * 8.7).all()


def test_of_equally_hard_samples_those_of_higher_index_are_dropped():
    chosen = ccs(np.arange(10.0), 7, hardness=np.zeros(10), beta=0.3, seed=0)
    assert sorted(chosen.tolist()) == list(range(7))


def test_a_score_that_changes_a_little_changes_the_coreset_a_little():
    scores = np.random.default_rng(0).random(2000)
    before = set(ccs(scores, 400, hardness=scores, beta=0, seed=5).tolist())
    moved = scores.copy()
    moved[[17, 1234]] = moved[[1234, 17]]
    after = set(ccs(moved, 400, hardness=moved, beta=0, seed=5).tolist())
    # Two strata change one sample each, and so do two budgets at most.
    assert len(before - after) <= 4


def test_the_seed_fixes_what_ccs_draws_and_its_order():
    scores = np.random.default_rng(0).random(500)
    first, again, other = (ccs(scores, 100, hardness=scores, beta=0.1, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist())


def test_the_order_tells_nothing_about_the_stratum():
    # A stratum of 9,900 gives 100 and one of 100 gives all: neither may come first.
    scores = np.append(np.zeros(9900), np.ones(100))
    chosen = ccs(scores, 200, hardness=scores, beta=0, seed=0)
    places = np.nonzero(chosen >= 9900)[0]
    assert len(places) == 100
    # Mean of 100 of the places 0 .. 199: 99.5 with a standard deviation of 4.1.
    assert abs(places.mean() - 99.5) < 5 * 4.1


def assert_in_proportion(chosen, labels, count):
    sizes, kept = (np.bincount(of, minlength=7) for of in (labels, labels[chosen]))
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert (kept <= sizes).all()
    exact = sizes * count / len(labels)
    if (exact[sizes > 0] >= 1).all():
        assert (np.abs(kept - exact) < 1).all()


@pytest.mark.slow
@given(LABELS, st.integers(0, 9), st.data())
def test_ccs_and_top_k_keep_the_proportions_of_classes(labels, seed, data):
    labels = np.array(labels)
    scores = np.random.default_rng(seed).normal(size=len(labels))
    count = data.draw(st.integers(1, len(labels)))
    assert_in_proportion(top_k(scores, count, keep="high", labels=labels), labels, count)
    for beta in (0.0, 0.2, 0.5):
        options = {"hardness": scores, "beta": beta, "seed": seed, "labels": labels}
        # No class is asked for more than this: where it is left in each class, ccs must work.
        sizes = np.bincount(labels)
        asked = np.where(sizes, np.maximum(np.ceil(sizes * count / len(labels)), 1), 0)
        if (sizes - np.round(beta * sizes) >= asked).all():
            assert_in_proportion(ccs(scores, count, **options), labels, count)


def test_beta_and_strata_apply_within_each_class():
    # Class 7 is harder and has higher scores throughout. Whole-set rules would drop only from it.
    labels = np.repeat([-2, 7], 100)
    scores = np.concatenate([np.arange(100.0), np.arange(1000.0, 1100.0)])
    chosen = ccs(scores, 160, hardness=scores, beta=0.2, seed=0, labels=labels)
    assert sorted(chosen.tolist()) == [*range(80), *range(100, 180)]
    half = ccs(scores, 40, hardness=scores, beta=0, strata=20, seed=0, labels=labels)
    np.testing.assert_array_equal(np.bincount(half // 5, minlength=40), np.ones(40))


def test_one_class_with_labels_is_the_same_as_without():
    scores = np.random.default_rng(0).random(300)
    draws = [ccs(scores, 60, hardness=scores, beta=0.3, seed=1, labels=of) for of in (None, np.full(300, 4))]
    np.testing.assert_array_equal(*draws)


def test_too_few_left_names_beta_the_class_and_the_remedy():
    scores = np.arange(10.0)
    with pytest.raises(
        ConfigError, match=r"`beta` 0\.5 leaves 5 of the 10 .* 6 to draw .* lower `beta`, or draw fewer"
    ):
        ccs(scores, 6, hardness=scores, beta=0.5, seed=0)
    labels = np.array([0] * 9 + [3])
    with pytest.raises(ConfigError, match=r"`beta` 0\.6 leaves 0 of the 1 samples of class 3, .* 1 to draw"):
        ccs(scores, 3, hardness=scores, beta=0.6, seed=0, labels=labels)


GOOD = {"scores": np.arange(12.0), "count": 5, "hardness": np.arange(12.0), "beta": 0.1, "seed": 0}
HOLED = np.array([0.0] * 9 + [np.nan, 1.0, np.inf])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"scores": HOLED}, "`scores`: 2 sample.*first 9"),
        ({"hardness": HOLED}, "`hardness`: 2 sample.*first 9"),
        ({"scores": np.zeros((3, 4))}, "scores.*dimension"),
        ({"hardness": np.zeros(11)}, "11.*12"),
        ({"labels": np.zeros(11, np.int64)}, "11.*12"),
        ({"count": 0}, "0 of 12"),
        ({"count": 13}, "13 of 12"),
        ({"beta": -0.1}, "beta"),
        ({"beta": 1.0}, "beta"),
        ({"beta": np.nan}, "beta"),
        ({"strata": 0}, "strata"),
        ({"seed": -1}, "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_ccs_refuses_what_it_cannot_draw(wrong, problem):
    with pytest.raises(ConfigError, match=problem):
        ccs(**{**GOOD, **wrong})


@pytest.mark.slow
@given(ANY_SCORES, st.sampled_from(["high", "low"]), st.data())
def test_top_k_equals_sorting_by_score_then_position(scores, keep, data):
    count = data.draw(st.integers(1, len(scores)))
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i] if keep == "high" else scores[i], i))
    chosen = top_k(scores, count, keep=keep)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == ranked[:count]


def test_top_k_by_class_keeps_the_best_of_each_best_first():
    scores = np.array([9.0, 8.0, 7.0, 6.0, 1.0, 3.0])
    labels = np.array([0, 0, 0, 0, 5, 5])
    assert top_k(scores, 3, keep="high", labels=labels).tolist() == [0, 1, 5]
    assert top_k(scores, 3, keep="low", labels=labels).tolist() == [4, 3, 2]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"scores": HOLED}, "`scores`: 2 sample.*first 9"),
        ({"scores": np.zeros((3, 4))}, "dimension"),
        ({"labels": np.zeros(11, np.int64)}, "11.*12"),
        ({"count": 0}, "0 of 12"),
        ({"count": 13}, "13 of 12"),
        ({"keep": "best"}, "high or low"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_top_k_refuses_what_it_cannot_keep(wrong, problem):
    with pytest.raises(ConfigError, match=problem):
        top_k(**{"scores": np.arange(12.0), "count": 5, "keep": "low", **wrong})


def test_a_class_that_gets_nothing_may_lose_all_its_samples_to_beta():
    labels = np.array([0, 0, 0, 0, 1])
    values = np.arange(5.0)
    assert ccs(values, 1, hardness=values, beta=0.6, seed=0, labels=labels).tolist()[0] in range(4)
