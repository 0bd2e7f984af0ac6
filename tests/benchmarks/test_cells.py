import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgeprune.scoring.config import ScoreConfig
from edgeprune.sources import check_source
from edgeprune.sources.arrays import ArraySource
from edgeprune.work.image_store import ImageStore
from edgeprune_benchmarks.codec import accuracy_bytes
from edgeprune_benchmarks.harness import cells as harness_cells
from edgeprune_benchmarks.harness.cells import count_cells, measure_cells, restore_cells
from edgeprune_benchmarks.harness.deadline import Deadline, OutOfTimeError
from edgeprune_benchmarks.harness.pixel_loader import PixelLoader
from edgeprune_benchmarks.harness.results import save
from edgeprune_benchmarks.selection import coresets
from edgeprune_benchmarks.selection.fixed_budget import Recipe, train_on
from edgeprune_formats import ConfigError


def test_cells_are_measured_once_and_kept_with_their_settings(tmp_path):
    calls = []

    def measure(value):
        calls.append(value)
        return {"value": value}

    cells = {"a": lambda: measure(1), "b": lambda: measure(2)}
    expected = [{"value": 1, "cell": "a"}, {"value": 2, "cell": "b"}]
    assert measure_cells(cells, tmp_path, {"lr": 0.1}, Deadline(None)) == expected
    assert measure_cells(cells, tmp_path, {"lr": 0.1}, Deadline(None)) == expected
    assert calls == [1, 2]
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 1, "settings": {"lr": 0.1}}
    with pytest.raises(ConfigError, match="was measured with other settings"):
        measure_cells(cells, tmp_path, {"lr": 0.2}, Deadline(None))


def test_the_time_is_looked_at_before_each_cell_that_is_not_there(tmp_path):
    cells = {name: lambda name=name: {"value": name} for name in "abc"}
    measure_cells({name: cells[name] for name in "ac"}, tmp_path, {}, Deadline(None))
    told = []
    with pytest.raises(OutOfTimeError, match="2 of 3 measurements are done"):
        measure_cells(cells, tmp_path, {}, Deadline(0), told.append)
    # Those that are there are told of, also behind one that is not.
    assert told == [[{"value": "a", "cell": "a"}, {"value": "c", "cell": "c"}]]
    assert not (tmp_path / "b.json").exists()
    # Of none, nothing.
    with pytest.raises(OutOfTimeError, match="0 of 1 measurements are done"):
        measure_cells({"b": cells["b"]}, tmp_path, {}, Deadline(0), told.append)
    assert len(told) == 1


def test_scores_that_are_there_take_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(harness_cells, "run_scoring", lambda source, check, path, config, report: path)
    path, config = tmp_path / "s.h5", ScoreConfig()
    with pytest.raises(OutOfTimeError):
        harness_cells.score_images(None, None, path, config, Deadline(0))
    path.touch()
    assert harness_cells.score_images(None, None, path, config, Deadline(0)) == path


def test_cells_come_back_from_a_result_of_the_same_settings(tmp_path):
    result, folder = tmp_path / "x.json", tmp_path / "runs"
    folder.mkdir()
    restore_cells(result, folder, {"psnrs": (1, 2)})
    measured = measure_cells({"a": lambda: {"value": 1}}, tmp_path, {"psnrs": (1, 2)}, Deadline(None))
    kept = {"seeds": 3, "lines": [1, 4], "cell_settings": {"psnrs": (1, 2)}, "rows": measured}
    result.write_text(json.dumps({"results": kept}))
    restore_cells(result, folder, {"psnrs": (1, 3)})
    assert not list(folder.iterdir())
    restore_cells(result, folder, {"psnrs": (1, 2)})
    assert (folder / "a.json").read_text() == (tmp_path / "a.json").read_text()
    (folder / "a.json").write_text("mine")
    restore_cells(result, folder, {"psnrs": (1, 2)})
    assert (folder / "a.json").read_text() == "mine"


def test_what_a_result_has_of_other_cells_stays_in_it(tmp_path):
    before = {"rows": [{"value": 1, "cell": "a"}, {"value": 2, "cell": "b"}]}
    (tmp_path / "b.json").write_text(json.dumps({"value": 2, "settings": {}}))
    cells = {name: lambda: {"value": 3} for name in "bc"}
    told = []
    rows = measure_cells(cells, tmp_path, {}, Deadline(None), told.append, before)
    assert [(row["cell"], row["value"]) for row in rows] == [("b", 2), ("c", 3), ("a", 1)]
    assert told == [rows]
    assert (count_cells(cells, before), count_cells(cells, {})) == (3, 2)
    with pytest.raises(OutOfTimeError, match="2 of 3 measurements are done"):
        measure_cells({**cells, "d": cells["c"]}, tmp_path, {}, Deadline(0), told.append, before)
    assert told[1] == rows


def test_a_result_keeps_the_commands_that_measured_its_cells_before(tmp_path, monkeypatch):
    def saved(words, settings):
        monkeypatch.setattr("sys.argv", ["bench", *words.split()])
        path = save(tmp_path, "x", {"cell_settings": settings})
        return [run["command"].removeprefix("python -m edgeprune_benchmarks ") for run in earlier(path)]

    def earlier(path):
        return json.loads(path.read_text())["earlier"]

    settings = {"psnrs": (1, 2)}
    assert saved("x --side a", settings) == []
    assert saved("x --side b --minutes 5", settings) == ["x --side a"]
    assert saved("x --side b --minutes 7 -o out", settings) == ["x --side a"]
    assert saved("x --side c", settings) == ["x --side a", "x --side b --minutes 7 -o out"]
    assert set(earlier(tmp_path / "x.json")[0]) == {"command", "commit", "date"}
    assert saved("x --side b", settings) == ["x --side a", "x --side c"]
    assert saved("x --side a", {"psnrs": (1, 3)}) == []
    save(tmp_path, "x", {"rows": []})
    assert saved("x --side a", settings) == []


RECIPE = Recipe("resnet8", iterations=3, batch_size=8, lr=0.05, device="cpu", precision="float32")
COMPARISONS = [
    coresets.Settings("npz:a/x.npz", RECIPE, ScoreConfig(), 1, None),
    accuracy_bytes.Settings("npz:a/x.npz", RECIPE, ("quantized",), (26.0,), (1.0,), 1, False, None),
]


@pytest.mark.parametrize("settings", COMPARISONS, ids=["coresets", "accuracy-per-byte"])
def test_a_cell_of_other_images_or_another_loop_is_not_taken_again(tmp_path, settings):
    cells = {"a": lambda: {"value": 1}}
    facts = settings.facts()
    for _ in range(2):
        assert measure_cells(cells, tmp_path, facts, Deadline(None)) == [{"value": 1, "cell": "a"}]
    others = [
        replace(settings, source="npz:a/y.npz").facts(),
        replace(settings, recipe=replace(RECIPE, iterations=4)).facts(),
        # What no option of the benchmark sets.
        facts | {"training": facts["training"] | {"momentum": 0.5}},
        facts | {"edgeprune": "0.0.1"},
    ]
    for other in others:
        with pytest.raises(ConfigError, match="was measured with other settings"):
            measure_cells(cells, tmp_path, other, Deadline(None))


def with_uniform_channel(count, split):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    pixels[:, 0] = 77
    labels = np.arange(count) % 2
    return ArraySource("made", split, None, ("a", "b"), labels, pixels, None, "made")


def test_a_channel_that_is_the_same_everywhere_does_not_blow_up():
    source = with_uniform_channel(16, "train")
    statistics = check_source(source).statistics(np.arange(16), 32 * 32)
    assert statistics[1][0] == pytest.approx(1 / 255)
    store = ImageStore(source, np.arange(16), torch.device("cpu"))
    for images, _ in PixelLoader(store, 8, statistics, seed=0):
        assert images[:, 0].abs().max() < 1e-4
        assert images[:, 1].std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_network_of_a_fixed_budget_depends_on_its_seed_alone():
    source, test = with_uniform_channel(16, "train"), with_uniform_channel(20, "test")
    state = torch.random.get_rng_state()
    first, again = (train_on(source, check_source(source), test, np.arange(12), RECIPE, 0) for _ in range(2))
    assert first == again
    assert 0 <= first <= 1
    assert torch.equal(torch.random.get_rng_state(), state)
