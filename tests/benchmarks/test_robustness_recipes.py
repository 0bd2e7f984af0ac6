import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeprune_benchmarks import plots
from edgeprune_benchmarks.__main__ import cli
from edgeprune_benchmarks.robustness import attacks, evaluation, recipes, run, tables
from edgeprune_benchmarks.robustness.attacks import Effort
from edgeprune_benchmarks.robustness.budgets import CURVE
from edgeprune_benchmarks.robustness.protocol import Protocol
from edgeprune_benchmarks.robustness.published import PUBLISHED
from edgeprune_benchmarks.robustness.recipes import RECIPES, SCALES, Row, get_recipe
from edgeprune_benchmarks.robustness.training import Deadline
from edgeprune_formats import ConfigError

TINY = replace(SCALES["trial"], iterations=12, batch_size=32, score_epochs=2)


def invoke(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def no_slow_attacks(at_once):
    """The real protocol's order without what takes thousands of passes for each image that resists."""

    class Quick(Protocol):
        def cells(self):
            yield from ((a, b) for a, b in super().cells() if not a.startswith(("AutoAttack", "L1", "C&W")))

    return Quick(6, 3, (), Effort(3, 5, 1), at_once)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(run.SCALES, "trial", TINY)
    monkeypatch.setitem(run.PROTOCOLS, "trial", no_slow_attacks(3))

    def cheap(at):
        return [("square", lambda images, labels: images)]

    brief = attacks._pgd(3)
    for name in ("PGD-20", "PGD-100", "PGD-100 margin"):
        monkeypatch.setitem(attacks.ATTACKS, name, replace(attacks.ATTACKS[name], stages=brief))
    for name in ("APGD", "Square"):
        monkeypatch.setitem(attacks.ATTACKS, name, replace(attacks.ATTACKS[name], stages=cheap))


def test_recipes_name_data_and_rows():
    data, rows = get_recipe("cifar10-lf")
    assert data == "cifar10"
    assert [row.freq_prune for row in rows(SCALES["paper"])] == [0.5, 0.6, 0.7, 0.8, 0.9]
    for name in ("cifar10", "lf", "mnist-lf", "cifar10-nothing"):
        with pytest.raises(ConfigError, match=f"no recipe '{name}'; join one of cifar10, "):
            get_recipe(name)


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_has_runs_of_its_own(scale):
    for name, rows_of in RECIPES.items():
        rows = list(rows_of(SCALES[scale]))
        assert rows, name
        assert len({row.key for row in rows}) == len(rows)
        assert all("/" not in row.key for row in rows)


def test_one_network_has_one_folder_in_every_recipe():
    scale = SCALES["cpu"]
    (je,) = [row for row in RECIPES["all"](scale) if row.label == "JE" and row.pruned == 0.5]
    assert je.key == Row("another name", 0.5, score="joint_entropy").key
    assert Row("anything").key == "natural"
    jelf = next(row for row in RECIPES["all"](scale) if row.label == "JELF")
    assert jelf.key in {row.key for row in RECIPES["scores"](scale)}


def test_the_tables_of_the_paper_have_their_rows():
    """Methods and ratios of Tables 6 to 9, for CCSFEM three scores of each."""
    rows = list(RECIPES["all"](SCALES["paper"]))
    have = {(row.label, row.pruned) for row in rows}
    asked = {(label, ratio) for table in PUBLISHED.values() for label, by in table.items() for ratio in by}
    assert asked <= have
    assert {row.score for row in rows if row.label == "CCSFEM"} == {"forgetting", "el2n", "aum"}


def test_a_deadline_asks_training_to_stop_as_a_signal_does():
    import signal

    caught = []
    before = signal.signal(signal.SIGTERM, lambda *_: caught.append(True))
    try:
        seen = []
        for minutes, expected in ((None, 0), (60, 0), (0, 1)):
            Deadline(minutes).watched(seen.append)({"event": "step"})
            assert len(caught) == expected
        Deadline(0).watched(seen.append)({"event": "epoch"})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(caught) == 1
    assert len(seen) == 4


@pytest.mark.slow
def test_a_recipe_is_trained_attacked_and_told(tiny, monkeypatch, tmp_path):
    some = [row for row in RECIPES["all"](TINY) if row.label in ("natural", "LF", "JELF")]
    monkeypatch.setitem(RECIPES, "all", lambda scale: iter(some))
    words = ["--recipe", "digits-all", "--scale", "trial", "--runs", tmp_path / "runs", "-o", tmp_path]
    said = invoke("robustness", *words)
    assert "digits-all, scale trial: 3 networks (1 seeds), resnet8, 12 steps of 32" in said
    # An untrained network neither falls nor is there AutoAttack: the reports say so.
    assert "NOT VALID: ordering" in said
    results = json.loads((tmp_path / "robustness-digits-all-trial.json").read_text())["results"]
    assert [row["row"]["label"] for row in results["rows"]][:3] == ["natural", "LF", "JELF"]
    assert results["planned"] == len(results["rows"]) == 3
    assert str(tmp_path) not in json.dumps(results)
    for row in results["rows"]:
        assert bool(row["pruned_inference"]) == bool(row["row"]["mask"])
        assert 0 <= row["test_accuracy"] <= 1
        assert row["report"]["images"] == 6
    # Nothing is done again.
    assert not [line for line in invoke("robustness", *words).splitlines() if "resist," in line]
    lines = "\n".join(
        line
        for table in (tables.linf_table, tables.norms_table, tables.pruned_table, tables.control_table)
        for line in table(results)
    )
    assert "| LF 50% |" in lines
    assert "not valid" in lines
    assert "| 43.9 |" in lines
    invoke("landscape", *words, "--images", 16, "--directions", 2, "--pictures", tmp_path / "pictures")
    found = json.loads((tmp_path / "landscape.json").read_text())["results"]["rows"]
    assert {row["label"] for row in found} == {"natural", "LF", "JELF"}
    assert len(found[0]["along"]) == 2
    for name in ("robustness-cifar10-all-cpu", "robustness-cifar10-all-paper"):
        (tmp_path / f"{name}.json").write_text((tmp_path / "robustness-digits-all-trial.json").read_text())
    drawn = {path.name for path in plots.draw(tmp_path, tmp_path / "pictures")}
    assert {"robustness-curves.svg", "loss-landscape.svg", "loss-surfaces.svg"} <= drawn
    assert {"smoothgrad.png", "kept-rejected.png"} <= {p.name for p in (tmp_path / "pictures").iterdir()}


def test_minutes_stop_a_recipe_and_the_same_command_goes_on(tiny, tmp_path):
    words = ["--recipe", "digits-natural", "--scale", "trial", "--runs", tmp_path / "runs", "-o", tmp_path]
    said = invoke("robustness", *words, "--minutes", 0)
    assert "0 of 1 networks are done; run the same command to go on" in said
    assert not (tmp_path / "robustness-digits-natural-trial.json").exists()
    invoke("robustness", *words)
    assert (tmp_path / "robustness-digits-natural-trial.json").exists()


def test_settings_that_do_not_fit_the_folder_are_refused(tiny, monkeypatch, tmp_path):
    words = ["--recipe", "digits-natural", "--scale", "trial", "--runs", tmp_path / "runs", "-o", tmp_path]
    invoke("robustness", *words)
    monkeypatch.setitem(run.SCALES, "trial", replace(TINY, lr=0.01))
    with pytest.raises(Exception, match="lr"):
        CliRunner().invoke(cli, ["robustness", *map(str, words)], catch_exceptions=False)


def test_data_that_a_recipe_needs_are_asked_for(tmp_path):
    for recipe in ("cifar100-lf", "imagenet-lf", "cifar10-lf"):
        result = CliRunner().invoke(cli, ["robustness", "--recipe", recipe], env={"EDGEPRUNE_DATA": ""})
        assert result.exit_code == 2
        assert f"recipe {recipe} needs --source" in result.output


def test_protocols_attack_quick_ones_first_and_cover_the_curve():
    cells = list(run.PROTOCOLS["paper"].cells())
    assert cells[0][0] == "noise"
    for name in ("FGSM", "PGD-20", "PGD-100"):
        assert [budget for attack, budget in cells if attack == name] == list(CURVE)
    assert len(set(cells)) == len(cells)
    names = {name for name, _ in cells}
    assert {"AutoAttack Linf", "AutoAttack L2", "AutoAttack L1", "L1-APGD", "C&W L2", "sparse"} <= names


def test_versions_of_the_attacks_are_recorded():
    assert "pyautoattack" in evaluation.LIBRARIES
    assert Path(recipes.__file__).name == "recipes.py"
