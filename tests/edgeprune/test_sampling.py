import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.sampling import coreset_size, random_coreset
from edgeprune_formats import ConfigError

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=200)


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
