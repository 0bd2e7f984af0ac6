"""The comparison of a teacher's probabilities with labels, smoothed labels and more images."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edgeprune_benchmarks.codec.distillation import Settings, forms, matching_smoothing, run
from edgeprune_benchmarks.codec.distillation_rows import MORE, ROWS, TAUGHT
from edgeprune_benchmarks.codec.distillation_tables import distill_table
from edgeprune_benchmarks.harness.deadline import OutOfTimeError
from edgeprune_benchmarks.selection.fixed_budget import Recipe

RECIPE = Recipe("resnet8", iterations=2, batch_size=8, lr=0.05, device="cpu", precision="float32")


def test_the_smoothing_leaves_as_much_to_the_own_class():
    share, own, classes = 0.7, 0.8, 10
    smoothing = matching_smoothing(share, own, classes)
    assert 1 - smoothing + smoothing / classes == pytest.approx(1 - share + share * own)


def test_what_forms_take_and_lose():
    said = np.random.default_rng(0).dirichlet(np.full(10, 0.3), 500).astype("f4")
    found = {(one["dtype"], one["top"]): one for one in forms(said)}
    assert [one["bytes"] for one in found.values()] == [20, 10, 2, 4, 6, 10]
    losses = [found["uint8", top]["divergence"] for top in (1, 2, 3, 5)]
    assert losses == sorted(losses, reverse=True)
    assert found["float16", 0]["divergence"] < losses[-1]


def settings_of(folder):
    random = np.random.default_rng(0)
    low = random.integers(0, 256, (64, 2, 2, 3)).astype(float)
    noisy = low.repeat(6, 1).repeat(6, 2) + random.normal(0, 6, (64, 12, 12, 3))
    x, y = noisy.clip(0, 255).astype(np.uint8), np.arange(64) % 8
    np.savez(folder / "s.npz", x_train=x[:48], y_train=y[:48], x_test=x[48:], y_test=y[48:])
    return Settings(f"npz:{folder / 's.npz'}", RECIPE, RECIPE, 28.0, 0.7, (0.008,), 1, None)


@pytest.mark.slow
def test_what_is_done_is_written_and_gone_on_from(tmp_path):
    settings = settings_of(tmp_path)
    run(settings, tmp_path / "out", tmp_path / "runs")
    results = json.loads((tmp_path / "out" / "distill.json").read_text())["results"]
    assert [row["row"] for row in results["rows"]] == list(ROWS)
    images = {row["row"]: row["images"] for row in results["rows"]}
    assert images[MORE] >= images[TAUGHT]
    assert all(row["bytes"] <= 8000 for row in results["rows"])
    (tmp_path / "runs" / "0.008-0-3.json").unlink()
    (tmp_path / "out" / "distill.json").unlink()
    with pytest.raises(OutOfTimeError):
        run(replace(settings, minutes=0.0), tmp_path / "out", tmp_path / "runs")
    results = json.loads((tmp_path / "out" / "distill.json").read_text())["results"]
    table = "\n".join(distill_table(results))
    assert "3 of 4 networks are trained" in table
    assert f"| {MORE} | - |" in table
    assert "| the 3 likeliest and the rest | 6 |" in table
