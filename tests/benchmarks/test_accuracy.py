"""The comparison of packs and pixels from the same start."""

import json

import numpy as np
import pytest

from edgeprune_benchmarks.harness.markdown import difference
from edgeprune_benchmarks.selection.accuracy import PACKS, PIXELS, Settings, accuracy_table, run

CONTROL, PACK = list(PACKS)[1:]


def rows(**accuracies):
    return [
        {"images": images, "seed": seed, "test_accuracy": found, "train_accuracy": found}
        for images, of in accuracies.items()
        for seed, found in of.items()
    ]


def test_a_difference_is_of_the_seeds_that_both_have():
    found = rows(a={0: 0.5, 1: 0.6, 2: 0.7, 3: 0.1}, b={2: 0.6, 1: 0.54, 0: 0.42})
    middle, margin = difference(found, "a", "b")
    assert middle == pytest.approx(0.08)
    # The deviation of 0.08, 0.06 and 0.10 is 0.02; t of 2 degrees of freedom is 4.303.
    assert margin == pytest.approx(4.303 * 0.02 / 3**0.5, abs=1e-4)
    assert difference(found[:4] + found[-1:], "a", "b") is None


def test_the_table_shows_what_is_there():
    found = rows(**{PIXELS: {0: 0.5, 1: 0.7}, PACK: {0: 0.4, 1: 0.6}, CONTROL: {}})
    table = accuracy_table(
        {
            "model": "resnet8",
            "train_images": 5085,
            "epochs": 4,
            "batch_size": 64,
            "precision": "float32",
            "psnr": {PIXELS: None, CONTROL: 81.25, PACK: 39.5},
            "rows": found,
        }
    )
    assert table[4:] == [
        f"| {PIXELS} | exact | 2 | 60.0 (50.0 to 70.0) | 60.0 (50.0 to 70.0) | - |",
        f"| {CONTROL} | 81.2 | 0 | - | - | - |",
        f"| {PACK} | 39.5 | 2 | 50.0 (40.0 to 60.0) | 50.0 (40.0 to 60.0) | -10.0 ± 0.0 |",
    ]


def test_rows_begin_alike_and_are_kept(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    arrays = {"x_test": pixels, "x_train": pixels, "y_test": np.arange(40) % 4, "y_train": np.arange(40) % 4}
    np.savez(data / "cifar10-lossless-6k.npz", **arrays)
    settings = Settings("resnet8", 1, 20, 1, "cpu", None)
    run(settings, data, tmp_path / "out", tmp_path / "runs")
    whole = json.loads((tmp_path / "out" / "accuracy-resnet8.json").read_text())["results"]
    assert [whole["psnr"][name] is None for name in PACKS] == [True, True, False]
    losses = [row["test_loss"] for row in whole["rows"]]
    # Two steps from the same weights: float16 changes what follows, but hardly.
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=1e-3)
    for cell in (tmp_path / "runs").glob("resnet8-0-*.json"):
        cell.write_text(cell.read_text().replace('"test_loss": ', '"test_loss": 1000'))
    run(settings, data, tmp_path / "out", tmp_path / "runs")
    again = json.loads((tmp_path / "out" / "accuracy-resnet8.json").read_text())["results"]
    assert min(row["test_loss"] for row in again["rows"]) > 1000
