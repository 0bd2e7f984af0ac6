import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.repack.partition import Partition, parse_by, partition
from edgeprune_formats import ConfigError

LABELS = np.random.default_rng(0).integers(0, 10, 2000)


def table(labels, part_of, parts):
    """Images of each class in each part."""
    counts = np.zeros((parts, int(labels.max()) + 1), int)
    np.add.at(counts, (part_of, labels), 1)
    return counts


@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=60),
    parts=st.integers(2, 9),
    by=st.sampled_from(["iid", "class", "dirichlet:0.01", "dirichlet:0.3", "dirichlet:100"]),
    seed=st.integers(0, 5),
)
@settings(deadline=None)
def test_no_part_is_empty_and_every_image_has_one(labels, parts, by, seed):
    labels = np.array(labels)
    few = len(set(labels.tolist())) if by == "class" else len(labels)
    if parts > few:
        with pytest.raises(ConfigError, match="do not fill"):
            partition(labels, parts, parse_by(by), seed)
        return
    part_of = partition(labels, parts, parse_by(by), seed)
    assert part_of.shape == labels.shape
    sizes = np.bincount(part_of, minlength=parts)
    assert len(sizes) == parts
    assert sizes.min() > 0
    if by != "class":
        assert sizes.max() - sizes.min() <= 1


def test_the_seed_decides():
    for by in ("iid", "dirichlet:0.3"):
        one, same, other = (partition(LABELS, 4, parse_by(by), seed) for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)


def test_iid_parts_are_alike():
    counts = table(LABELS, partition(LABELS, 4, Partition("iid"), 0), 4)
    assert (np.abs(counts - counts.mean(axis=0)) < 30).all()


def test_classes_stay_whole_and_parts_are_of_like_size():
    labels = np.repeat(np.arange(7), [100, 60, 50, 40, 30, 20, 20])
    counts = table(labels, partition(labels, 3, Partition("class"), 0), 3)
    assert ((counts > 0).sum(axis=0) == 1).all()
    assert counts.sum(axis=1).max() <= 120


def test_a_class_without_images_counts_for_none():
    part_of = partition(np.array([0, 5, 5]), 2, Partition("class"), 0)
    assert len(set(part_of.tolist())) == 2
    with pytest.raises(ConfigError, match="2 classes do not fill 3 parts"):
        partition(np.array([0, 5, 5]), 3, Partition("class"), 0)


def test_a_smaller_alpha_skews_more():
    def skew(alpha):
        counts = [
            table(LABELS, partition(LABELS, 10, Partition("dirichlet", alpha), seed), 10) for seed in range(5)
        ]
        shares = np.array(counts) / 200
        return float((shares**2).sum(axis=2).mean())

    skews = [skew(alpha) for alpha in (0.05, 0.3, 1.0, 10.0, 1000.0)]
    assert skews == sorted(skews, reverse=True)
    # Of Dir(a) over C equal classes, E sum q^2 = (a + 1) / (C a + 1).
    assert skews[2] == pytest.approx(2 / 11, rel=0.25)
    assert skews[-1] == pytest.approx(1 / 10, rel=0.1)


@pytest.mark.parametrize(
    "text", ["", "IID", "iid:1", "class:2", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:1e308"]
)
@pytest.mark.parametrize("more", ["", "x"])
def test_names_of_no_partition_are_refused(text, more):
    with pytest.raises(ConfigError, match="`by`"):
        parse_by(text + more)


@pytest.mark.parametrize("number", ["-1", "nan", "inf", "1e400"])
def test_alphas_that_are_none_are_refused(number):
    with pytest.raises(ConfigError, match="dirichlet:ALPHA"):
        parse_by(f"dirichlet:{number}")


def test_what_was_parsed_is_what_is_recorded():
    for text in ("iid", "class", "dirichlet:0.3"):
        assert str(parse_by(text)) == text


@pytest.mark.parametrize(
    ("parts", "seed", "word"), [(1, 0, "`parts` is 1"), (0, 0, "`parts` is 0"), (2, -1, "`seed`")]
)
def test_misuse(parts, seed, word):
    with pytest.raises(ConfigError, match=word):
        partition(LABELS, parts, Partition("iid"), seed)
