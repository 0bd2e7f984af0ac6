import itertools
from dataclasses import replace

import numpy as np
import pytest
from selections import (
    EPOCHS,
    EVERY,
    JE,
    How,
    image_arrays,
    npz_source,
    score,
)

from edgeprune.coresets.beta_sampling import beta_sampling
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.sampling import ccs, random_coreset
from edgeprune.coresets.scores import SCORES, joint_entropy
from edgeprune.coresets.selection import compute_scores, select_images
from edgeprune.coresets.uncertainty import dual
from edgeprune.errors import SourceError
from edgeprune_formats.files import file_sha256


@pytest.fixture
def scored(tmp_path):
    return score(tmp_path, npz_source(tmp_path, *image_arrays()))


# What each score is, written out again.
FORMULAS = {
    "joint_entropy": lambda s: joint_entropy(s["entropies"][EVERY - 1 :: EVERY]),
    "forgetting": lambda s: forgotten(s["correct"]),
    "el2n": lambda s: s["errors"][:10].mean(0, dtype="f8"),
    "aum": lambda s: s["margins"].mean(0, dtype="f8"),
    "entropy": lambda s: s["entropies"][-1].astype("f8"),
    "dyn_unc": lambda s: windows(s["probabilities"]).std(1, ddof=1).mean(0),
    "dual": lambda s: (windows(s["probabilities"]).std(1, ddof=1) * early_errors(s)).mean(0),
    "random": lambda s: np.random.default_rng([JE.seed, 1]).random(s["entropies"].shape[1]),
}


def windows(values):
    """All windows of 10 epochs, [windows, 10, images]."""
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values.astype("f8"), 10, axis=0), 2, 1)


def early_errors(series):
    return 1 - windows(series["probabilities"]).mean(1)


def forgotten(correct):
    counts = np.array([sum(a and not b for a, b in itertools.pairwise(c)) for c in correct.T.tolist()])
    learned = correct.any(0)
    return np.where(learned, counts, counts[learned].max() + 1).astype("f8")


@pytest.mark.parametrize("name", SCORES)
def test_each_score_is_computed_from_its_records(scored, name):
    expected = FORMULAS[name](scored.series)
    np.testing.assert_allclose(
        compute_scores(scored.records, CoresetConfig(score=name), seed=JE.seed), expected, rtol=1e-12
    )
    choice = scored.choose(score=name)
    assert choice.facts["score"] == name
    assert choice.scores.dtype == np.float32
    np.testing.assert_allclose(choice.scores, expected[choice.rows].astype("f4"))


@pytest.mark.parametrize(
    ("classes", "side", "ratio", "beta"),
    [
        (3, 8, 0.5, 0.0),
        (3, 8, 0.7, 0.1),
        (3, 8, 0.9, 0.3),
        (60, 8, 0.5, 0.2),
        (60, 8, 0.9, 0.5),
        (3, 64, 0.5, 0.1),
        (3, 64, 0.7, 0.2),
    ],
)
def test_je_draws_by_ccs_with_the_published_beta_and_hardness_from_aum(tmp_path, classes, side, ratio, beta):
    scored = score(tmp_path, npz_source(tmp_path, *image_arrays(120, side, classes)))
    config = replace(JE, sample_prune=ratio)
    expected = ccs(
        FORMULAS["joint_entropy"](scored.series),
        round((1 - ratio) * 120),
        hardness=-scored.series["margins"].mean(0, dtype="f8"),
        beta=beta,
        seed=4,
    )
    choice = scored.choose(config)
    np.testing.assert_array_equal(choice.rows, expected)
    assert choice.facts["beta"] == pytest.approx(beta)
    hardest = np.argsort(scored.series["margins"].mean(0, dtype="f8"))[: round(beta * 120)]
    assert not set(hardest.tolist()) & set(choice.rows.tolist())


def test_a_beta_and_strata_that_are_given_are_used_and_recorded(scored):
    choice = scored.choose(beta=0.4, strata=7)
    values, margins = FORMULAS["joint_entropy"](scored.series), FORMULAS["aum"](scored.series)
    np.testing.assert_array_equal(choice.rows, ccs(values, 30, hardness=-margins, beta=0.4, strata=7, seed=4))
    assert (choice.facts["beta"], choice.facts["strata"]) == (0.4, 7)


@pytest.mark.parametrize("name", SCORES)
def test_top_k_takes_the_end_that_the_score_says(scored, name):
    choice = scored.choose(score=name, sampling="top-k")
    values = FORMULAS[name](scored.series)
    ranks = values if SCORES[name].keep_end == "low" else -values
    assert set(choice.rows.tolist()) == set(np.argsort(ranks, kind="stable")[:30].tolist())
    assert choice.facts["keep_end"] == SCORES[name].keep_end


def test_dual_is_drawn_by_its_beta_distribution_of_early_epochs(scored):
    choice = scored.choose(replace(JE, sample_prune=0.8), score="dual", dual_epochs=12)
    early = scored.series["probabilities"][:12]
    expected = beta_sampling(
        dual(early), early.mean(0, dtype="f8"), 12, sample_prune=0.8, c_d=5.5, seed=JE.seed
    )
    np.testing.assert_array_equal(choice.rows, expected)
    assert {name: choice.facts[name] for name in ("sampling", "c_d", "dual_epochs")} == {
        "sampling": "beta",
        "c_d": 5.5,
        "dual_epochs": 12,
    }
    assert scored.choose(score="dyn_unc").facts["sampling"] == "top-k"
    assert scored.choose(score="dual", sampling="ccs").facts["hardness"] == "aum"


@pytest.mark.parametrize(
    "how", [JE, How(scored=False), *(How(coreset=CoresetConfig(s)) for s in ("dual", "dyn_unc"))]
)
def test_images_that_are_left_out_are_never_chosen_and_the_ratio_counts_the_others(scored, how):
    gone = np.arange(0, 60, 3)
    choice = select_images(
        scored.source,
        scored.check.good,
        sample_prune=0.25,
        scores=scored.records if how.scored else None,
        config=how.coreset,
        left_out=gone,
    )
    assert len(set(choice.rows.tolist())) == 30
    assert not set(choice.rows.tolist()) & set(gone.tolist())
    if how.scored:
        values = FORMULAS[how.coreset.score](scored.series)
        np.testing.assert_allclose(choice.scores, values[choice.rows].astype("f4"))


@pytest.mark.parametrize("sampling", ["ccs", "top-k"])
def test_classes_keep_their_proportions_when_asked(tmp_path, sampling):
    pixels, _ = image_arrays(120)
    labels = np.repeat([0, 1, 2], [80, 30, 10])
    scored = score(tmp_path, npz_source(tmp_path, pixels, labels))
    balanced = scored.choose(sampling=sampling, class_balance=True)
    np.testing.assert_array_equal(np.bincount(labels[balanced.rows]), [40, 15, 5])
    assert balanced.facts["class_balance"] is True
    assert set(scored.choose(sampling=sampling).rows) != set(balanced.rows)


@pytest.mark.first_are_quick(8)
@pytest.mark.parametrize("scored_images", [True, False])
@pytest.mark.parametrize("sampling", ["ccs", "top-k"])
@pytest.mark.parametrize("ratio", [0.0, 0.31, 0.5, 0.95])
def test_exactly_as_many_distinct_images_are_chosen_as_the_ratio_says(scored, scored_images, sampling, ratio):
    config = replace(JE, scored=scored_images, sample_prune=ratio)
    rows = scored.choose(config, sampling=sampling).rows
    assert len(set(rows.tolist())) == len(rows) == round((1 - ratio) * 60)
    assert rows.dtype == np.int64
    assert 0 <= rows.min() <= rows.max() < 60


class Torn:
    """A source some of whose images cannot be read."""

    def __init__(self, source, bad):
        self._source, self._bad = source, set(bad)

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def read(self, rows):
        if self._bad & set(np.asarray(rows).tolist()):
            raise SourceError("torn")
        return self._source.read(rows)


@pytest.mark.parametrize("config", [JE, How(scored=False)])
@pytest.mark.parametrize("sampling", ["ccs", "top-k"])
def test_rows_count_all_images_where_some_were_skipped(tmp_path, config, sampling):
    bad = {0, 13, 14, 59}
    scored = score(tmp_path, Torn(npz_source(tmp_path, *image_arrays()), bad), skip_bad=True)
    choice = scored.choose(config, sampling=sampling)
    assert len(set(choice.rows.tolist())) == 28
    assert not bad & set(choice.rows.tolist())
    if choice.scores is not None:
        place = np.searchsorted(scored.check.good, choice.rows)
        np.testing.assert_array_equal(
            choice.scores, FORMULAS["joint_entropy"](scored.series)[place].astype("f4")
        )
        assert choice.facts["drawn_from"] == 56


@pytest.mark.parametrize("sampling", ["ccs", "top-k"])
def test_the_order_is_random_and_the_seeds(scored, sampling):
    rows, again = (scored.choose(sampling=sampling).rows for _ in range(2))
    np.testing.assert_array_equal(rows, again)
    assert rows.tolist() != sorted(rows.tolist())
    other = scored.choose(replace(JE, seed=5), sampling=sampling)
    assert rows.tolist() != other.rows.tolist()
    ranks = np.argsort(np.argsort(scored.choose(sampling=sampling).scores))
    # Sorted either way it would be 1; of 30 in random order it is above 0.6 once in 2000 times.
    assert abs(np.corrcoef(ranks, np.arange(30))[0, 1]) < 0.6


def test_the_facts_are_complete(scored):
    facts = scored.choose(tau=0.5, gamma=0.9, window=5).facts
    assert facts == {
        "score": "joint_entropy",
        "sampling": "ccs",
        "beta": 0.0,
        "strata": 50,
        "class_balance": False,
        "tau": 0.5,
        "gamma": 0.9,
        "window": 5,
        "keep_end": "low",
        "drawn_from": 60,
        "hardness": "aum",
        "scores_sha256": file_sha256(scored.records.path),
        "scores_run": {"model": "resnet8", "epochs": EPOCHS},
    }


def test_without_scores_images_are_drawn_by_class(scored):
    choice = select_images(scored.source, scored.check.good, sample_prune=0.5, seed=9)
    np.testing.assert_array_equal(choice.rows, random_coreset(scored.source.labels, 30, seed=9))
    assert choice.scores is None
    assert choice.facts["score"] == "random"


def test_scores_beyond_single_precision_are_stored_at_its_end(scored):
    values = np.linspace(-1, 1, 60)
    values[:2] = -1e300, 1e300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeprune.coresets.selection.formulas.joint_entropy", lambda *_, **__: values)
        choice = scored.choose(replace(JE, sample_prune=0))
    limit = np.finfo("f4").max
    assert choice.scores[choice.rows == 0] == -limit
    assert choice.scores[choice.rows == 1] == limit
