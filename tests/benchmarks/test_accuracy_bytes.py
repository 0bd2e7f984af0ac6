"""The frontier of accuracy per byte: qualities chosen on images held out, and what is tried at all."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from edgeprune_benchmarks.codec import accuracy_bytes
from edgeprune_benchmarks.codec.accuracy_bytes import Settings, choose, finalists, run
from edgeprune_benchmarks.codec.budgets import BARE, CODECS
from edgeprune_benchmarks.harness.deadline import OutOfTimeError
from edgeprune_benchmarks.selection.fixed_budget import Recipe
from edgeprune_formats import ConfigError

RECIPE = Recipe("resnet8", iterations=1, batch_size=8, lr=0.05, device="cpu", precision="float32")


@pytest.fixture
def settings(tmp_path):
    random = np.random.default_rng(0)
    low = random.integers(0, 256, (140, 2, 2, 3)).astype(float)
    noisy = low.repeat(6, 1).repeat(6, 2) + random.normal(0, 6, (140, 12, 12, 3))
    x, y = noisy.clip(0, 255).astype(np.uint8), np.arange(140) % 4
    np.savez(tmp_path / "s.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    source = f"npz:{tmp_path / 's.npz'}"
    return Settings(source, RECIPE, ("JPEG 4:4:4",), (24.0, 28, 32, 36, 40), (0.03,), 1, False, None, 20)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ({40: 0.5, 30: 0.7, 35: 0.7, 25: 0.6}, 30),
        # One that stands out alone is less than three that are good together.
        ({22: 0.5, 25: 0.64, 28: 0.65, 31: 0.64, 34: 0.5, 37: 0.66}, 28),
        ({28: 0.5}, 28),
        ({24: 0.3, 28: 0.4}, 28),
    ],
)
def test_a_quality_is_chosen_with_its_neighbors_and_of_equal_ones_the_lowest(accuracies, best):
    assert (
        choose([{"target_db": db, "accuracy": found} for db, found in accuracies.items()])["target_db"]
        == best
    )


@pytest.mark.parametrize(
    ("again", "best"), [({28: 0.5, 31: 0.53}, 31), ({28: 0.5, 31: 0.52}, 28), ({31: 1}, 28)]
)
def test_a_second_network_decides_between_the_best_two(again, best):
    accuracies = {22: 0.5, 25: 0.63, 28: 0.66, 31: 0.64, 34: 0.6}
    tried = [{"target_db": db, "accuracy": found} for db, found in accuracies.items()]
    assert [row["target_db"] for row in finalists(tried)] == [28, 31]
    tried += [{"target_db": db, "accuracy": found, "judge": 1} for db, found in again.items()]
    assert choose(tried)["target_db"] == best


def test_of_equal_finalists_the_first_is_chosen():
    accuracies = {22: 0.6, 25: 0.62, 28: 0.66, 31: 0.64}
    tried = [{"target_db": db, "accuracy": found} for db, found in accuracies.items()]
    assert [row["target_db"] for row in finalists(tried)] == [31, 28]
    tried += [{"target_db": 31, "accuracy": 0.62, "judge": 1}, {"target_db": 28, "accuracy": 0.6, "judge": 1}]
    assert choose(tried)["target_db"] == 31


def tried_with(monkeypatch, settings, tmp_path, accuracies):
    """Return the PSNRs that are tried where networks have these accuracies in turn, and the result."""
    pytest.importorskip("imagecodecs")
    turns = iter(accuracies)
    monkeypatch.setattr(accuracy_bytes, "train_on", lambda *about: next(turns))
    run(settings, tmp_path / "out", tmp_path / "runs")
    results = json.loads((tmp_path / "out" / "accuracy-bytes.json").read_text())["results"]
    return [row["target_db"] for row in results["chosen"] if "judge" not in row], results


@pytest.mark.parametrize(
    ("accuracies", "expected", "best"),
    [
        # Before the last one, two of networks that judge the best two again, the better of them first.
        ([0.6, 0.5, 0.55, 0.4, 0.4, 0.1, 0.1, 0.9], [24, 28, 32, 36, 40], 32),
        # Downhill above, which is not looked at any further.
        ([0.5, 0.4, 0.6, 0.35, 0.5, 0.55, 0.9], [24, 28, 32, 36], 28),
        ([0.5, 0.4, 0.6, 0.35, 0.5, 0.65, 0.9], [24, 28, 32, 36], 32),
        ([0.5, 0.6, 0.55, 0.5, 0.4, 0.9], [32, 36, 40], 40),
    ],
)
def test_the_search_goes_uphill_from_the_middle(monkeypatch, settings, tmp_path, accuracies, expected, best):
    tried, results = tried_with(monkeypatch, settings, tmp_path, accuracies)
    assert tried == expected
    (row,) = results["rows"]
    assert (row["target_db"], row["test_accuracy"]) == (best, 0.9)
    # Chosen on 100 of the images, and trained with all 120.
    first = [row["images"] for row in results["chosen"] if "judge" not in row]
    assert first == sorted(first, reverse=True)
    assert [row["judge"] for row in results["chosen"][len(first) :]] == [1, 1]
    assert row["bytes"] <= 30_000


def test_each_seed_is_tested_on_images_that_it_does_not_learn_from(monkeypatch, settings, tmp_path):
    def seen(source):
        return {image.tobytes() for image in source.read(np.arange(len(source)))}

    networks = []
    monkeypatch.setattr(
        accuracy_bytes, "train_on", lambda of, check, test, *_: networks.append((seen(of), seen(test))) or 0.5
    )
    raw = replace(settings, codecs=("raw uint8",), budgets_mb=(1.0,), seeds=6)
    run(raw, tmp_path / "out", tmp_path / "runs")
    with np.load(settings.source.removeprefix("npz:")) as arrays:
        assert networks[1][1] == {image.transpose(2, 0, 1).tobytes() for image in arrays["x_test"]}
    (_, held_out), *folds = networks
    for learned, tested in folds:
        assert (len(learned), len(tested)) == (120, 20)
        assert not learned & tested
        assert not held_out & tested
    # No image is tested by two seeds.
    assert len(set().union(*(tested for _, tested in folds))) == 6 * 20
    with pytest.raises(ConfigError, match="test images are enough for 6 seeds"):
        run(replace(raw, seeds=7), tmp_path / "out", tmp_path / "runs")


@pytest.mark.slow
def test_a_quality_that_wastes_bytes_is_not_tried(monkeypatch, settings, tmp_path):
    settings = replace(settings, budgets_mb=(1.0,), codecs=("JPEG 4:4:4", "JPEG 4:4:4" + BARE, "raw uint8"))
    tried, results = tried_with(monkeypatch, settings, tmp_path, [0.5] * 6)
    assert tried == [40, 40, None]
    files, bare, raw = results["rows"]
    assert files["images"] == bare["images"] == raw["images"] == 120
    assert bare["bytes"] < files["bytes"] - 120 * 100
    assert raw["bytes"] == 120 * 432


def test_the_table_goes_on_where_it_stopped_and_from_its_result(monkeypatch, settings, tmp_path):
    settings = replace(settings, codecs=("raw uint8",), budgets_mb=(0.01, 0.02))
    _, results = tried_with(monkeypatch, settings, tmp_path, [0.1, 0.2, 0.3, 0.4])
    assert results["lines"] == [2, 2 * len(CODECS)]
    for cell in (tmp_path / "runs").glob("*.json"):
        cell.unlink()
    # Nothing is trained again.
    assert tried_with(monkeypatch, settings, tmp_path, [])[1]["rows"] == results["rows"]
    # What the result has of other budgets stays.
    one = replace(settings, budgets_mb=(0.02, 0.03))
    more = tried_with(monkeypatch, one, tmp_path, [0.5, 0.6])[1]
    assert sorted(row["budget_mb"] for row in more["rows"]) == [0.01, 0.02, 0.03]
    assert more["lines"] == [3, 3 * len(CODECS)]
    other = replace(settings, recipe=replace(RECIPE, iterations=2), minutes=0.0)
    with pytest.raises(OutOfTimeError, match="0 of 2 lines are done"):
        run(other, tmp_path / "out", tmp_path / "other")


def test_what_was_measured_of_a_line_that_is_not_done_stays_in_the_result(monkeypatch, settings, tmp_path):
    class Soon:
        def __init__(self, minutes):
            self.left = minutes

        def is_near(self):
            self.left -= 1
            return self.left < 0

    settings = replace(settings, codecs=("raw uint8",), budgets_mb=(0.01, 0.02), seeds=2)
    monkeypatch.setattr(accuracy_bytes, "Deadline", Soon)
    whole = 3  # Cells of a line: one to choose, and two seeds.
    for minutes, said, accuracies in [(whole + 2, 1, [0.1, 0.2, 0.3, 0.4, 0.5]), (0, 1, []), (1, 2, [0.6])]:
        with pytest.raises(OutOfTimeError, match="1 of 2") if said == 1 else nullcontext():
            tried_with(monkeypatch, replace(settings, minutes=minutes), tmp_path, accuracies)
        for cell in (tmp_path / "runs").glob("*.json"):
            cell.unlink()
        results = json.loads((tmp_path / "out" / "accuracy-bytes.json").read_text())["results"]
        assert len(results["rows"]) == 2 * said
        assert len(results["begun"]) == (2 if said == 1 else 0)
    assert [row["test_accuracy"] for row in results["rows"]] == [0.2, 0.3, 0.5, 0.6]


def test_fewer_seeds_leave_the_others_in_the_result(monkeypatch, settings, tmp_path):
    settings = replace(settings, codecs=("raw uint8",), budgets_mb=(0.01,), seeds=3)
    _, whole = tried_with(monkeypatch, settings, tmp_path, [0.1, 0.2, 0.3, 0.4])
    _, fewer = tried_with(monkeypatch, replace(settings, seeds=1), tmp_path, [])
    assert sorted(row["seed"] for row in fewer["rows"]) == [0, 1, 2]
    assert fewer["seeds"] == whole["seeds"] == 3


@pytest.mark.slow
def test_networks_learn_from_packs_and_from_copies(settings, tmp_path):
    pytest.importorskip("imagecodecs")
    settings = replace(settings, codecs=("quantized",), psnrs=(28.0,), copies=True)
    run(settings, tmp_path / "out", tmp_path / "runs")
    (row,) = json.loads((tmp_path / "out" / "accuracy-bytes.json").read_text())["results"]["rows"]
    assert 10 < row["images"] <= 120
    assert row["bytes"] <= 30_000
    assert 0 <= row["test_accuracy"] <= 1
