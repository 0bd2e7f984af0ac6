"""Coresets cell by cell, what they lose, and what is found of planted duplicates."""

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune.coresets.scores import SCORES
from edgeprune.issues.duplicates import MAX_DISTANCE
from edgeprune.scoring.config import ScoreConfig
from edgeprune.sources.arrays import ArraySource
from edgeprune_benchmarks.codec import accuracy_bytes
from edgeprune_benchmarks.commands import selection as commands
from edgeprune_benchmarks.commands.codec import accuracy_per_byte
from edgeprune_benchmarks.documentation.readme import PAGES
from edgeprune_benchmarks.harness import images
from edgeprune_benchmarks.harness.cells import measure_cells
from edgeprune_benchmarks.harness.deadline import Deadline
from edgeprune_benchmarks.selection import coresets, issues
from edgeprune_benchmarks.selection.coresets import METHODS, Settings, run
from edgeprune_benchmarks.selection.fixed_budget import Recipe
from edgeprune_benchmarks.selection.issue_tables import issue_tables
from edgeprune_benchmarks.selection.tables import coreset_table, loss_table

RECIPE = Recipe("resnet8", iterations=3, batch_size=8, lr=0.05, device="cpu")


def settings(**changes):
    return Settings("npz:a/x.npz", RECIPE, ScoreConfig(), 2, None, **changes)


def test_cells_are_those_of_the_methods_and_ratios_asked_for_seed_by_seed():
    chosen = settings(methods=("random", "dual"), ratios=(0.8, 0.9)).cells()
    assert chosen[:3] == [("full", 0.0, 0), ("random", 0.8, 0), ("dual", 0.8, 0)]
    assert [seed for *_, seed in chosen] == [0] * 5 + [1] * 5
    whole = settings().cells()
    assert len(whole) == 2 * (1 + 4 * len(METHODS) + 2)
    assert set(METHODS) == set(SCORES)


@pytest.mark.parametrize(
    ("method", "expected", "accuracy"),
    [
        # The mean of both runs.
        ("aum", [0, ("scores.h5", 0), 0, 1, ("scores-1.h5", 1), 1, 2, 2], (0.5 + 1.25) / 2),
        ("random", [0, 0, 1, 1, 2, 2], None),
    ],
)
def test_a_scoring_run_is_made_when_the_first_coreset_needs_it(
    tmp_path, monkeypatch, method, expected, accuracy
):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "s.npz", x_train=images, y_train=[0, 1] * 2, x_test=images, y_test=[0, 1] * 2)
    made = []

    def score(source, check, path, config, deadline):
        made.append((path.name, config.seed))
        path.touch()
        return SimpleNamespace(provenance={"history": [{"accuracy": 0.25 * len(made)}]})

    def learn(source, check, test, rows, recipe, seed):
        made.append(seed)
        return 0.5

    monkeypatch.setattr(coresets, "score_images", score)
    monkeypatch.setattr(coresets, "train_on", learn)
    monkeypatch.setattr(coresets, "_coreset", lambda *_: [0])
    monkeypatch.setattr(coresets, "_correlations", lambda _: {})
    chosen = settings(score_runs=2, methods=(method,), ratios=(0.5,))
    chosen = replace(chosen, source=f"npz:{tmp_path / 's.npz'}", seeds=3)
    run(chosen, tmp_path / "out", tmp_path / "runs", "c")
    assert made == expected
    results = json.loads((tmp_path / "out" / "c.json").read_text())["results"]
    assert [row["seed"] for row in results["rows"]] == [0, 0, 1, 1, 2, 2]
    assert results.get("scoring", {}).get("train_accuracy") == accuracy
    # Where only the result is left, no scoring run is made to tell of those that there were.
    shutil.rmtree(tmp_path / "runs")
    made.clear()
    run(replace(chosen, seeds=4, methods=("random",)), tmp_path / "out", tmp_path / "runs", "c")
    assert made == ([0, 1, 2, 3, 3] if method == "aum" else [3, 3])
    again = json.loads((tmp_path / "out" / "c.json").read_text())["results"]
    assert again.get("scoring") == results.get("scoring")
    assert all(row in again["rows"] for row in results["rows"])


def test_random_coresets_are_those_that_scores_of_noise_give():
    good = np.flatnonzero(np.arange(40) % 7)
    drawn = coresets._drawn(good, 0.9, 3)
    noise = coresets.noise(len(good), seed=3)
    assert drawn.tolist() == sorted(good[np.argsort(-noise)[: round(0.1 * len(good))]].tolist())
    assert coresets._drawn(good, 0.0, 3).tolist() == good.tolist()


def test_scores_are_sampled_as_published():
    sampled = {name: settings(dual_epochs=4).sampling(name) for name in METHODS}
    assert {name: one.sampled_by for name, one in sampled.items() if one.sampled_by != "ccs"} == {
        "random": "top-k",
        "dyn_unc": "top-k",
        "dual": "beta",
    }
    assert sampled["dual"].dual_epochs == 4


def test_what_there_is_is_told_after_each_new_cell(tmp_path):
    cells = {name: lambda name=name: {"name": name} for name in "abc"}
    told = []
    for _ in range(2):
        measure_cells(cells, tmp_path, {}, Deadline(None), lambda rows: told.append(len(rows)))
    assert told == [1, 2, 3]


def rows(**accuracies):
    return [
        {"method": method, "sample_prune": ratio, "seed": seed, "test_accuracy": accuracy}
        for method, by_ratio in accuracies.items()
        for ratio, values in by_ratio.items()
        for seed, accuracy in enumerate(values)
    ]


def test_losses_stand_beside_those_published():
    results = {
        "recipe": {"model": "resnet9", "iterations": 10, "batch_size": 5},
        "train_images": 100,
        "test_images": 50,
        "cells": 9,
        "rows": rows(full={0.0: [0.9, 0.94]}, aum={0.8: [0.87, 0.89]}, dyn_unc={0.9: [0.8]}),
    }
    lines = loss_table(results)
    assert lines[2:] == [
        "| coreset by | 80% pruned | 80%, published | 90% pruned | 90%, published |",
        "| --- | --- | --- | --- | --- |",
        "| AUM | -4.0 (-5.0 to -3.0) | -4.5 | - | -9.3 |",
        "| Dyn-Unc | - | - | -12.0, 1 seed | - |",
    ]
    assert "5 of 9 networks are trained." in coreset_table(results)[0]
    assert "are trained" not in coreset_table({**results, "cells": 5})[0]
    # Without a scoring run no scores can agree.
    tables = PAGES["docs/results/selection.md"]["coresets-93"](results)
    assert tables[: len(lines)] == lines
    assert tables[-1].startswith("| Dyn-Unc |")


@pytest.fixture
def source():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 3, 4, 4)).astype(np.uint8).repeat(4, axis=2).repeat(4, axis=3)
    return ArraySource("made", "train", None, ("a", "b"), np.arange(40) % 2, pixels, None, "made")


def test_planted_copies_are_found_and_shown(source, monkeypatch):
    monkeypatch.setattr(issues, "COPIES", 10)
    copies = [issues._copies(source, change) for change in ("none", "mirrored")]
    for found in copies:
        assert [row["distance"] for row in found["rows"]] == list(range(MAX_DISTANCE + 1))
        assert found["rows"][0] == {"distance": 0, "recall": 1.0, "others": 0}
    shifted = issues._copies(source, "a pixel to the right")["rows"]
    assert 0 <= shifted[0]["recall"] <= shifted[-1]["recall"]
    label = {"planted": 4, "accuracy": 0.5, "precision": {"2": 1.0, "4": 0.5}, "listed": 3}
    label["precision_of_probabilities"] = {"2": 0.5, "4": 0.5}
    label |= {"seed": 0, "listed_precision": 0.5, "listed_recall": 0.25}
    real = {"distance": 0, "images": 3, "exact": 2, "mirrored": 1, "test_of_train": 1, "classes_differ": 0}
    results = {
        "images": 40,
        "distance": 20,
        "scoring": {"epochs": 2, "model": "resnet8"},
        "labels": [label],
        "copies": copies,
        "real": [{"train": 5, "test": 2, "find_seconds": 1.0, "rows": [real]}],
    }
    text = "\n".join(issue_tables(json.loads(json.dumps(results))))
    assert "| the 2 of lowest margin | 100.0 (100.0 to 100.0) | 50.0 (50.0 to 50.0) | - |" in text
    assert "| all that the command lists (3) | 50.0 (50.0 to 50.0) | - | 25.0 (25.0 to 25.0) |" in text
    assert "| none | 100.0% | 100.0% | " in text
    assert "| 0 | 3 | 2 | 1 | 1 | 0 |" in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"lr": 0.05, "batch_size": 64, "optimizer": "sgd", "label_smoothing": 0.0}),
        (
            ["--model", "resnet9"],
            {
                "lr": 0.45,
                "batch_size": 500,
                "optimizer": "muon",
                "schedule": "linear",
                "label_smoothing": 0.2,
            },
        ),
        (
            ["--model", "resnet9", "--lr", "0.05", "--label-smoothing", "0"],
            {"lr": 0.05, "batch_size": 500, "optimizer": "muon", "label_smoothing": 0.0},
        ),
    ],
)
def test_networks_are_trained_as_they_bring_it_with_them(tmp_path, monkeypatch, options, expected):
    given = []
    for module in (coresets, accuracy_bytes):
        monkeypatch.setattr(module, "run", lambda settings, *_: given.append(settings))
    monkeypatch.setattr(commands, "_source", lambda *_: "npz:images.npz")
    monkeypatch.setattr(images, "all_lossless", lambda *_: "images.npz")
    for command, steps in ((commands.coresets, 500), (accuracy_per_byte, 250_000 // expected["batch_size"])):
        result = CliRunner().invoke(command, ["--data", str(tmp_path), *options])
        assert result.exit_code == 0, result.output
        config = asdict(given[-1].recipe.config(3))
        assert {name: config[name] for name in expected} == expected
        assert given[-1].recipe.iterations == steps
    # Benchmarks that do not say so train all networks alike.
    assert replace(given[0].recipe, brought=False).config(3).optimizer == "sgd"
    assert (given[0].scoring.batch_size, config["epochs"], config["seed"]) == (64, 1, 3)
