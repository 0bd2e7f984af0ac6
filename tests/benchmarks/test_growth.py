"""``edgeprune bench growth`` on a few images."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgeprune_benchmarks.cli import command as cli
from edgeprune_benchmarks.device.growth import growth_table
from edgeprune_formats import ConfigError, open_pack


@pytest.fixture
def words(tmp_path):
    """The command on ten classes of images that differ in brightness."""
    labels = np.arange(120) % 10
    pixels = (
        np.random.default_rng(0).integers(-9, 10, (120, 32, 32, 3)) + 12 + 24 * labels[:, None, None, None]
    )
    pixels = pixels.clip(0, 255).astype(np.uint8)
    (tmp_path / "runs").mkdir()
    arrays = {"x_train": pixels, "y_train": labels, "x_test": pixels[:40], "y_test": labels[:40]}
    np.savez(tmp_path / "runs" / "cifar10-jpeg.npz", **arrays)
    sizes = {"images": 6, "base": 20, "additions": 2, "added": 10, "epochs": 2, "batch-size": 10, "seeds": 1}
    options = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    places = ["--data", str(tmp_path), "-o", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    return ["growth", *places, *options, "--device", "cpu"]


def invoke(words):
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_growth_is_measured_cell_by_cell(words, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        invoke(words)
        results = json.loads((tmp_path / "out" / "growth.json").read_text())["results"]
        assert [(row["task"], row["method"]) for row in results["rows"]] == [
            (task, method)
            for task in ("classes", "additions")
            for method in ("before", "replay", "new", "once")
        ]
        before = results["rows"][0]
        assert before["new"] == 0
        assert all(0 <= row["accuracy"] <= 1 for row in results["rows"])
        packs = sorted((tmp_path / "runs" / "packs-additions").glob("*.h5"))
        assert [len(open_pack(path)) for path in packs] == [20, 10, 10]
        added = open_pack(tmp_path / "runs" / "packs-classes" / "0001.h5").header
        assert added.class_names == tuple(f"class {number}" for number in range(10))
        # Kept cells and networks are not made again.
        (tmp_path / "runs" / "cell-additions-once-0.json").unlink()
        monkeypatch.setattr("edgeprune_runtime.training.step.Learner.step", None)
        assert "additions of images of all classes: all images at once" in invoke(words)
        again = json.loads((tmp_path / "out" / "growth.json").read_text())["results"]
        assert again["rows"] == results["rows"]
        with pytest.raises(ConfigError, match="was measured with other settings"):
            invoke([*words, "--epochs", "3"])
    finally:
        torch.set_num_threads(threads)


def test_the_tables_of_growth():
    rows = [
        {"task": task, "method": method, "seed": seed, "accuracy": 0.5 + seed / 10, "old": 0.25, "new": 0.75}
        for seed in range(2)
        for task in ("additions", "classes")
        for method in ("once", "before", "replay", "new")
    ]
    settings = {"model": "resnet8", "images": 1000, "epochs": 16, "base": 2000, "additions": 10, "added": 200}
    lines = growth_table({"settings": settings, "rows": rows, "test_images": 10000, "seeds": 2})
    assert "| trained on | old classes | new classes | all classes |" in lines
    assert "| new images alone | 25.0 (25.0 to 25.0) | 75.0 (75.0 to 75.0) | 55.0 (50.0 to 60.0) |" in lines
    assert lines[-1] == "| all images at once, from the start | 55.0 (50.0 to 60.0) |"
    assert "" in lines
    assert any(line.startswith("2,000 images of ten classes, then 10 additions of 200") for line in lines)
