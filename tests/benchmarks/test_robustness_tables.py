"""Tables of robustness, of results that are made up."""

from edgeprune_benchmarks.robustness import tables
from edgeprune_benchmarks.robustness.published import PUBLISHED
from edgeprune_benchmarks.robustness.recipes import RECIPES, SCALES


def result(label, seed, accuracy, passed=True):
    cell = {"attack": "PGD-100", "images": 100, "accuracy": accuracy / 2}
    rows = [{**cell, "eps": eps / 255} for eps in tables.EPS]
    controls = [{"name": "bound", "passed": passed, "detail": ""}]
    return {
        "row": {"label": label},
        "pruned": 0.5,
        "model": "resnet8",
        "seed": seed,
        "test_accuracy": accuracy,
        "report": {"rows": rows, "controls": controls},
        "pruned_inference": None,
    }


RESULTS = {
    "scale": {"model": "resnet8", "iterations": 10, "batch_size": 8, "seeds": 2},
    "protocol": {"images": 100},
    "test_images": 1000,
    "train_images": 50,
    "source": "few",
    "planned": 3,
    "rows": [result("k 0", 0, 0.5), result("k 50", 0, 0.6), result("k 50", 1, 0.8, passed=False)],
}


def test_ablations_have_a_line_for_each_value():
    *_, first, second, _, valid = tables.ablation_table(RESULTS)
    assert first.startswith("| k 0 | 50.0 [46.9, 53.1] | 25.0 [17.5, 34.3] |")
    assert second.startswith("| k 50 | 70.0 [68.0, 72.0] | 35.0 [28.7, 41.8] |")
    assert valid == "2 of 3 reports are valid by their controls."


def test_seeds_have_a_mean_and_their_range():
    *_, second, _, valid = tables.seeds_table(RESULTS)
    assert second.startswith("| k 50 50% | 2 | 70.0 (60.0 to 80.0) | 35.0 (30.0 to 40.0) |")
    assert valid == "2 of 3 reports are valid by their controls."


def test_what_training_on_perturbed_images_costs():
    natural, slow = result("natural", 0, 0.8), result("N-FGSM", 0, 0.6)
    timed = [{**natural, "key": "natural", "train_seconds": 50}, {**slow, "key": "x", "train_seconds": 90}]
    *_, first, second, _, valid = tables.cost_table({**RESULTS, "rows": timed})
    assert first.startswith("| natural 50% | 1.00x | 80.0 [")
    assert second.startswith("| N-FGSM 50% | 1.80x | 60.0 [")
    assert " | 30.0 [" in second
    assert valid == "2 of 2 reports are valid by their controls."


def test_the_tables_of_the_paper_have_their_rows():
    """Methods and ratios of Tables 6 to 9, for CCSFEM three scores of each."""
    rows = [row for name in ("all", "baselines") for row in RECIPES[name](SCALES["paper"])]
    have = {(row.label, row.pruned) for row in rows}
    asked = {(label, ratio) for table in PUBLISHED.values() for label, by in table.items() for ratio in by}
    assert asked <= have
    for label in ("CCSFEM", "FEMLF"):
        assert {row.score for row in rows if row.label == label} == {"forgetting", "el2n", "aum"}
    transfer = list(RECIPES["transfer"](SCALES["paper"]))
    assert {row.model for row in transfer} == {"shufflenet_v2", "mobilenet_v2", "efficientnet_b0"}
