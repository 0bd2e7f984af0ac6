import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_builds
import torch
from click.testing import CliRunner

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.training.setup import train_pack
from edgeprune_benchmarks.cli import command as cli
from edgeprune_benchmarks.documentation import plots
from edgeprune_benchmarks.harness.deadline import Deadline, OutOfTimeError
from edgeprune_benchmarks.robustness import run, single, tables
from edgeprune_benchmarks.robustness.attacks import table as attacks
from edgeprune_benchmarks.robustness.attacks.budgets import CURVE, HEADLINE
from edgeprune_benchmarks.robustness.attacks.table import Effort
from edgeprune_benchmarks.robustness.pictures import measure as pictures
from edgeprune_benchmarks.robustness.protocol import PROTOCOLS, Protocol
from edgeprune_benchmarks.robustness.recipes import RECIPES, SCALES, Row, get_recipe
from edgeprune_benchmarks.robustness.single import InvalidReportError
from edgeprune_benchmarks.robustness.training import Experiment
from edgeprune_formats import ConfigError, open_pack
from edgeprune_formats.files import file_sha256
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.trained import TrainedNetwork
from edgeprune_runtime.task import Task
from edgeprune_runtime.training.progress import events as training_events
from edgeprune_runtime.training.run_folder.checkpoint import read_state

TINY = replace(SCALES["trial"], iterations=12, batch_size=32, score_epochs=2)


def invoke(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def no_slow_attacks():
    """The real protocol's order without what takes thousands of passes for each image that resists."""

    class Quick(Protocol):
        def cells(self):
            yield from ((a, b) for a, b in super().cells() if not a.startswith(("AutoAttack", "L1", "C&W")))

    return Quick(6, 3, (), Effort(3, 5, 1), 6)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """A few images of ten classes, in place of all digits."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    pixels, labels = small_builds.pixels(images=80, side=16, classes=10)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:20], y_test=labels[:20])
    return f"npz:{path}"


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(run.SCALES, "trial", TINY)
    monkeypatch.setitem(run.PROTOCOLS, "trial", no_slow_attacks())

    def cheap(at):
        return [("square", lambda images, labels: images)]

    brief = attacks._pgd(3)
    for name in ("PGD-20", "PGD-100", "PGD-100 margin"):
        monkeypatch.setitem(attacks.ATTACKS, name, replace(attacks.ATTACKS[name], stages=brief))
    for name in ("APGD", "Square"):
        monkeypatch.setitem(attacks.ATTACKS, name, replace(attacks.ATTACKS[name], stages=cheap))
    unaware = replace(attacks.ATTACKS["PGD-100 unaware"], stages=lambda at: brief(bare(at)))
    monkeypatch.setitem(attacks.ATTACKS, unaware.name, unaware)


def bare(at):
    """The setting of an attack on the network behind a victim that prunes."""
    return replace(at, victim=at.victim.victim)


def command(recipe, spec, folder):
    words = ["--recipe", recipe, "--source", spec, "--scale", "trial", "--runs", folder / "runs"]
    return [*words, "-o", folder]


def test_recipes_name_data_and_rows():
    data, rows = get_recipe("cifar10-lf")
    assert data == "cifar10"
    assert [row.freq_prune for row in rows(SCALES["paper"])] == [0.3, 0.5, 0.6, 0.7, 0.8, 0.9]
    for name in ("cifar10", "lf", "mnist-lf", "cifar10-nothing"):
        with pytest.raises(ConfigError, match=f"unknown recipe '{name}'; join one of cifar10, "):
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


def test_settings_that_are_the_defaults_share_a_folder(tmp_path):
    images, labels = np.zeros((10, 3, 32, 32), np.uint8), np.arange(10)
    np.savez(tmp_path / "few.npz", x=images, y=labels)
    scale = SCALES["cpu"]
    experiment = Experiment(
        f"npz:{tmp_path / 'few.npz'}", None, scale, "cpu", tmp_path, Deadline(None), print
    )
    (jelf,) = [row for row in RECIPES["jelf"](scale) if row.pruned == 0.5]
    for name, default in (("tau", 2 / 3), ("lambda", 0.1), ("k", 100), ("mask-lr", 3e-4)):
        rows = list(RECIPES[name](scale))
        (same,) = [row for row in rows if experiment.without_defaults(row).key == jelf.key]
        field = {"lambda": "accuracy_weight"}.get(name, name.replace("-", "_"))
        assert getattr(same, field) == default
        assert len({experiment.without_defaults(row).key for row in rows}) == len(rows)
    assert experiment.without_defaults(replace(jelf, model=scale.model)).key == jelf.key
    assert experiment.without_defaults(replace(jelf, model="resnet18")).key != jelf.key


@pytest.mark.slow
def test_a_pack_is_the_same_however_a_network_is_trained_from_it(tmp_path, monkeypatch, spec):
    experiment = Experiment(spec, None, TINY, "cpu", tmp_path, Deadline(None), print)
    rows = {row.label: row for row in RECIPES["adversarial"](TINY)}
    energy = replace(rows["N-FGSM and teacher, JELF"], score=None, sample_prune=0.0, mask="energy")
    path = experiment.pack(energy, 0)
    assert experiment.pack(replace(energy, adversarial=None, teacher=None), 0) == path
    assert experiment.pack(replace(energy, model="mobilenet_v2"), 0) == path
    assert "fgsm" not in path.name


def test_mobile_networks_learn_from_the_teacher_at_the_papers_scale():
    rows = list(RECIPES["adversarial"](SCALES["paper"]))
    mobile = [row for row in rows if row.model]
    assert [row.model for row in mobile] == ["shufflenet_v2", "mobilenet_v2", "efficientnet_b0"]
    assert {(row.adversarial, row.teacher, row.freq_prune) for row in mobile} == {
        ("n-fgsm:8", "resnet34", 0.5)
    }
    assert len(rows) == len(list(RECIPES["adversarial"](SCALES["cpu"]))) + 3


@pytest.mark.slow
def test_a_student_waits_for_its_teacher(tmp_path, spec):
    brief = replace(TINY, iterations=2)
    experiment = Experiment(spec, None, brief, "cpu", tmp_path, Deadline(None), lambda event: None)
    row = Row("student", adversarial="n-fgsm:8", teacher="resnet8")
    run_dir, _ = experiment.trained(row, 0)
    taught = json.loads((run_dir / "config.json").read_text())
    teacher = tmp_path / "adversarial-pgd-8" / "seed-0" / "model.safetensors"
    assert taught["teacher"] == file_sha256(teacher)
    assert taught["config"]["adversarial"] == "n-fgsm:8"
    # The teacher is the row of all images trained with PGD.
    pgd = next(row for row in RECIPES["adversarial"](brief) if row.label == "PGD, all images")
    assert experiment.trained(pgd, 0)[0] == teacher.parent


def test_linf_alone_keeps_what_the_controls_ask_for():
    every, some = PROTOCOLS["cpu"], PROTOCOLS["cpu"].in_linf()
    assert {budget.norm for _, budget in every.cells()} == {"Linf", "L2", "L1", "L0"}
    assert list(some.cells()) == [(name, budget) for name, budget in every.cells() if budget.norm == "Linf"]
    assert ("AutoAttack Linf", HEADLINE) in some.cells()
    assert some.slow_budgets == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "value"),
    [
        ("tau", lambda made: made["coreset"]["tau"]),
        ("lambda", lambda made: made["fse_net"]["accuracy_weight"]),
        ("k", lambda made: made["fse_net"]["k"]),
        ("mask-lr", lambda made: made["fse_net"]["config"]["lr"]),
        ("mask-epochs", lambda made: made["fse_net"]["config"]["epochs"]),
        ("scores", lambda made: made["coreset"]["score"]),
        ("baselines", lambda made: made["coreset"]["score"]),
    ],
)
def test_ablations_reach_the_packs(experiment, group, value):
    field = {"lambda": "accuracy_weight", "scores": "score", "baselines": "score"}.get(
        group, group.replace("-", "_")
    )
    row = [row for row in RECIPES[group](TINY) if row.mask][1]
    pack = open_pack(experiment.pack(row, 0))
    assert value(pack.header.provenance) == pytest.approx(getattr(row, field))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp("experiment")
    return Experiment(spec, None, TINY, "cpu", folder, Deadline(None), lambda event: None)


def test_minutes_that_end_in_the_middle_of_training_leave_a_checkpoint(tiny, monkeypatch, tmp_path, spec):
    """With steps so slow that each is reported, as those of large networks are."""
    monkeypatch.setattr(training_events, "_EVENT_SECONDS", 0.0)
    told = []
    monkeypatch.setattr(Deadline, "over", property(lambda deadline: len(told) >= 4))
    monkeypatch.setattr(run._Printer, "__call__", lambda printer, event: told.append(event["event"]))
    words = command("digits-natural", spec, tmp_path)
    said = invoke("robustness", *words)
    assert "0 of 1 networks are done; run the same command again to go on" in said
    folder = tmp_path / "runs" / "digits-trial" / "natural" / "seed-0"
    assert 3 <= read_state(folder)["step"] < TINY.iterations
    monkeypatch.undo()
    assert not (folder / "model.safetensors").exists()


def test_a_landscape_that_runs_out_of_time_says_so(tiny, tmp_path, spec):
    words = command("digits-natural", spec, tmp_path)
    said = invoke("landscape", *words, "--minutes", 0, "--pictures", tmp_path / "pictures")
    assert said == "not all networks are trained yet; run the same command again to go on\n"
    assert not (tmp_path / "landscape.json").exists()


@pytest.mark.slow
def test_a_recipe_is_trained_attacked_and_told(tiny, monkeypatch, tmp_path, spec):
    some = [row for row in RECIPES["all"](TINY) if row.label in ("natural", "LF", "JELF")]
    monkeypatch.setitem(RECIPES, "all", lambda scale: iter(some))
    monkeypatch.setattr(pictures, "GRID", (-1.0, 0.0, 1.0))
    words = command("digits-all", spec, tmp_path)
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
        for table in (
            *(tables.linf_table, tables.linf_short, tables.norms_table),
            *(tables.pruned_table, tables.control_table, tables.seeds_table),
        )
        for line in table(results)
    )
    assert "| LF 50% |" in lines
    assert "not valid" in lines
    assert "| 43.9 |" in lines
    invoke("landscape", *words, "--images", 4, "--directions", 2, "--pictures", tmp_path / "pictures")
    found = json.loads((tmp_path / "landscape.json").read_text())["results"]["rows"]
    assert {row["label"] for row in found} == {"natural", "LF", "JELF"}
    assert len(found[0]["along"]) == 2
    for name in ("robustness-cifar10-all-cpu", "robustness-cifar10-all-paper"):
        (tmp_path / f"{name}.json").write_text((tmp_path / "robustness-digits-all-trial.json").read_text())
    drawn = {path.name for path in plots.draw(tmp_path, tmp_path / "pictures")}
    assert {"robustness-curves.svg", "loss-landscape.svg", "loss-surfaces.svg"} <= drawn
    assert {"smoothgrad.png", "kept-rejected.png"} <= {p.name for p in (tmp_path / "pictures").iterdir()}


@pytest.mark.slow
def test_minutes_stop_a_recipe_and_the_same_command_goes_on_but_no_other(tiny, monkeypatch, tmp_path, spec):
    words = command("digits-natural", spec, tmp_path)
    said = invoke("robustness", *words, "--minutes", 0)
    assert "0 of 1 networks are done; run the same command again to go on" in said
    assert not (tmp_path / "robustness-digits-natural-trial.json").exists()
    invoke("robustness", *words)
    assert (tmp_path / "robustness-digits-natural-trial.json").exists()
    # Settings that do not fit the folder are refused.
    monkeypatch.setitem(run.SCALES, "trial", replace(TINY, lr=0.01))
    with pytest.raises(ConfigError, match=r"seed-0 cannot be resumed: lr was 0\.05 and is now 0\.01"):
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


@pytest.fixture
def own_run(tmp_path, spec):
    """A network of a few steps, trained from a pack on perturbed images."""
    build_pack(spec, tmp_path / "few.h5", BuildConfig(codec="sparse-f32", freq_prune=0.5))
    options = {"model": "resnet8", "epochs": 1, "batch_size": 32, "device": "cpu", "adversarial": "n-fgsm:8"}
    with open_pack(tmp_path / "few.h5") as pack:
        train_pack(pack, tmp_path / "run", test=None, resume=False, augment="none", **options)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_of_ones_own_is_attacked_and_judged(tiny, own_run, spec, monkeypatch):
    words = ["attack", own_run, "--source", spec, "--scale", "trial", "--device", "cpu"]
    said = CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)
    # No AutoAttack here, which is for a control to find missing.
    assert isinstance(said.exception, InvalidReportError)
    folder = own_run / "attacks-trial-6"
    assert f"{folder / 'report.json'} is not valid: " in str(said.exception)
    assert "AutoAttack's flags" in str(said.exception)
    assert "resnet8, trained on images perturbed by n-fgsm:8; 6 of " + spec in said.output
    report = json.loads((folder / "report.json").read_text())
    assert report["natural"] is False
    assert report["images"] == 6
    cells = [row for row in report["rows"] if row["attack"] == "PGD-20"]
    assert len(cells) == len(CURVE)

    monkeypatch.setattr(single, "make_report", lambda *a, **k: {"controls": [{"passed": True}]})
    assert "valid, 1 controls passed" in invoke(*words)
    monkeypatch.setattr(single, "make_report", out_of_time)
    assert "the minutes are over; run the same command again to go on" in invoke(*words)


def out_of_time(*arguments, **options):
    raise OutOfTimeError


def network(shape, classes=None):
    names = None if classes is None else tuple(classes)
    return TrainedNetwork(Path("run"), torch.nn.Identity(), "resnet8", shape, 10, names)


@pytest.mark.slow
def test_images_that_are_not_the_networks(tmp_path):
    pixels, labels = np.zeros((4, 3, 16, 16), np.uint8), np.array([0, 1, 2, 3])
    np.savez(tmp_path / "small.npz", x=pixels, y=labels)
    with pytest.raises(ConfigError, match=r"has images \(3, 16, 16\), the network takes"):
        single._labels(open_source(f"npz:{tmp_path / 'small.npz'}"), network((3, 32, 32)))
    digits = open_source("digits", split="test")
    with pytest.raises(ConfigError, match="does not say which classes"):
        single._labels(digits, network(digits.shape))
    with pytest.raises(ConfigError, match="has classes that the network lacks: 0, 1"):
        single._labels(digits, network(digits.shape, "23456789"))
    turned = single._labels(digits, network(digits.shape, "9876543210"))
    assert turned.tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(TrainingError, match="holds no trained model"):
        single.attack_run(tmp_path, "digits", device=torch.device("cpu"))


def test_a_network_of_one_class_is_not_attacked(tmp_path, monkeypatch):
    for task, words in (
        (Task(), "a network of one class is always right"),
        (Task("tags", "multilabel"), "trained for 'tags', of kind multilabel; only classifiers"),
    ):
        alone = SimpleNamespace(num_classes=1, image_shape=(3, 32, 32), task=task)
        monkeypatch.setattr(single, "load_trained", lambda run_dir, alone=alone: alone)
        with pytest.raises(ConfigError, match=words):
            single.attack_run(tmp_path, "digits", device=torch.device("cpu"))
