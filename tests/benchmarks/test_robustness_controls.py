"""Every control fails a report on a planted fault, and passes one without."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attack_reports import BRIEF, evaluate, failed
from victims import linear_victim, own_images, short_searches

from edgeprune_benchmarks.robustness.attacks.budgets import CURVE, HEADLINE
from edgeprune_benchmarks.robustness.attacks.gradient import fgsm, pgd, sign_noise
from edgeprune_benchmarks.robustness.attacks.table import ATTACKS
from edgeprune_benchmarks.robustness.controls import CONTROLS, Evidence, judge
from edgeprune_benchmarks.robustness.evaluation import Evaluator
from edgeprune_benchmarks.robustness.report import cross_check, interval, make_report
from edgeprune_benchmarks.robustness.verdicts import read_verdicts, write_verdicts

# The sound report, which nearly all of them need, takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def quick():
    with short_searches():
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return folder, evaluate(linear_victim(), folder)


@pytest.fixture
def stored(sound, tmp_path):
    """The sound report's folder, to tamper with."""
    return Path(shutil.copytree(sound[0], tmp_path / "stored"))


@pytest.fixture
def plant(monkeypatch, stored):
    """Put other stages in the place of attacks; gives a folder of what the rest of a sound report found."""

    def put(stages, *names):
        for name in names:
            monkeypatch.setitem(ATTACKS, name, replace(ATTACKS[name], stages=stages))
        for path in list(stored.rglob("*.safetensors")):
            if read_verdicts(path).facts["attack"] in names:
                path.unlink()
        return stored

    return put


def ascent(perturb):
    """The single stage of an attack that takes the victim, the size of the budget and the batch."""
    return lambda at: [("ascent", lambda images, labels: perturb(at, images, labels))]


def test_a_sound_report_passes_every_control(sound):
    folder, report = sound
    assert failed(report) == {}
    assert report["valid"]
    assert [control["name"] for control in report["controls"]] == list(CONTROLS)
    assert json.loads((folder / "report.json").read_text()) == report


@pytest.mark.parametrize("classes", [2, 3])
def test_a_sound_report_of_few_classes_passes_every_control(tmp_path, classes):
    victim = linear_victim(classes=classes)
    images, labels = own_images(victim, 12)
    run = Evaluator(victim, images, labels, tmp_path, torch.device("cpu"), batch_size=12, effort=BRIEF.effort)
    report = make_report(run, BRIEF, natural=True, say=lambda line: None)
    assert failed(report) == {}
    stages = report["rows"]
    assert stages
    found = cross_check(run, BRIEF)
    assert (found["images"], found["differ"]) == (6, 0)


def test_a_report_on_one_image(tmp_path):
    victim = linear_victim()
    images, labels = own_images(victim, 1)
    run = Evaluator(victim, images, labels, tmp_path, torch.device("cpu"), batch_size=12, effort=BRIEF.effort)
    report = make_report(run, replace(BRIEF, images=1, slow_images=1), natural=True, say=lambda line: None)
    assert report["images"] == 1


def test_rows_have_intervals_and_costs(sound):
    rows = {(row["attack"], row["eps"]): row for row in sound[1]["rows"]}
    row = rows["PGD-20", HEADLINE.size]
    assert (row["images"], row["accuracy"], row["interval"]) == (12, 0.0, interval(0, 12))
    assert row["seconds"] > 0
    assert row["forwards"] >= 12
    assert rows["Square", CURVE[3].size]["images"] == 6
    near = rows["C&W L2", None]
    assert 0 < near["median_size"] < 0.5
    assert near["within"]["accuracy"] == 0.0


def test_wilson_interval():
    # Brown, Cai and DasGupta (2001), eq. 4, worked by hand for 0 of 100: z^2 / (n + z^2).
    low, high = interval(0, 100)
    assert low == 0
    assert high == pytest.approx(3.8415 / 103.8415, abs=1e-4)


def test_an_interrupted_report_says_that_it_is_not_valid(tmp_path):
    class Stop(Exception):
        pass

    images, labels = own_images(linear_victim(), 12, spread=0.03)
    run = Evaluator(linear_victim(), images, labels, tmp_path, torch.device("cpu"), effort=BRIEF.effort)
    said = []

    def say(line):
        said.append(line)
        if len(said) == 3:
            raise Stop

    with pytest.raises(Stop):
        make_report(run, BRIEF, natural=True, say=say)
    early = json.loads((tmp_path / "report.json").read_text())
    assert not early["valid"]
    assert len(early["rows"]) == 2


GRADIENT = ("FGSM", "PGD-20", "PGD-100", "PGD-100 margin", "AutoAttack Linf", "APGD")


def test_a_budget_in_normalized_units_is_seen(plant):
    def normalized(at, images, labels):
        return pgd(at.victim, images, labels, at.eps * at.victim.std, steps=20, seed=at.seed)

    report = evaluate(linear_victim(), plant(ascent(normalized), *GRADIENT))
    assert not report["valid"]
    found = failed(report)
    assert "of the budget" in found["budget reached"]
    assert "natural falls" in found


def change(path, **values):
    verdicts = read_verdicts(path)
    write_verdicts(path, replace(verdicts, **values))


def test_stale_perturbed_images_are_seen(stored):
    path = stored / "PGD-20_Linf_8-255.safetensors"
    verdicts = read_verdicts(path)
    # As if another network's had been kept: here the images before the attack.
    images, _ = own_images(linear_victim(), 12, spread=0.03)
    change(path, adversarial=images[verdicts.kept])
    found = failed(evaluate(linear_victim(), stored))
    assert found == {"rescored": "PGD-20 at Linf 8/255: 12 of 12 verdicts differ"}


def test_perturbed_images_of_other_weights_are_seen(stored, monkeypatch):
    from edgeprune_benchmarks.robustness import evaluation

    path = stored / "PGD-20_Linf_8-255.safetensors"
    change(path, facts={**read_verdicts(path).facts, "weights": "0" * 64})
    # Even where nobody checks when the file is read for its verdicts.
    read = evaluation.read_verdicts
    monkeypatch.setattr(evaluation, "read_verdicts", lambda path, expected=None: read(path))
    found = failed(evaluate(linear_victim(), stored))
    assert found == {"rescored": "PGD-20 at Linf 8/255: made for other weights than the victim's"}


def test_perturbations_beyond_the_budget_are_seen(plant):
    beyond = ascent(lambda at, images, labels: fgsm(at.victim, images, labels, 1.01 * at.eps))
    found = failed(evaluate(linear_victim(), plant(beyond, "FGSM")))
    assert list(found) == ["bound"]
    assert "FGSM at Linf 0.25/255: +1.00% over the budget" in found["bound"]


@pytest.mark.parametrize("value", [-0.001, 1.001, float("nan")])
def test_pixels_out_of_range_are_seen(plant, value):
    def outside(at, images, labels):
        moved = fgsm(at.victim, images, labels, at.eps)
        moved[:, 0, 0, 0] = value
        return moved

    assert "range" in failed(evaluate(linear_victim(), plant(ascent(outside), "FGSM")))


def test_a_longer_attack_that_is_weaker_is_seen(plant):
    weak = ascent(lambda at, images, labels: (images + at.eps * images.sign()).clamp(0, 1))
    found = failed(evaluate(linear_victim(), plant(weak, "PGD-100")))
    assert "PGD-100 leaves 12 more than PGD-20" in found["ordering"]
    assert "resist PGD-100 at Linf 32/255" in found["curve"]
    assert "noise" in found


def test_a_curve_that_rises_is_seen(plant):
    def backwards(at, images, labels):
        small = CURVE[4].size ** 2 / at.eps
        moved = pgd(at.victim, images, labels, small, steps=20, seed=0)
        return images + (moved - images).clamp(-at.eps, at.eps)

    found = failed(evaluate(linear_victim(), plant(ascent(backwards), "PGD-100")))
    assert "PGD-100 leaves more at" in found["curve"]


def test_a_seed_that_does_not_fix_the_attack_is_seen(plant):
    def unseeded(at, images, labels):
        flip = torch.rand(len(images)) < 0.5
        moved = pgd(at.victim, images, labels, at.eps, steps=20, seed=0)
        return torch.where(flip.view(-1, 1, 1, 1), moved, images)

    found = failed(evaluate(linear_victim(), plant(ascent(unseeded), "PGD-20")))
    assert "verdicts differ" in found["seed"]


def test_warnings_of_the_library_are_kept(plant):
    """Zero gradients of a component, which the library tells to its log."""
    import logging

    stages = ATTACKS["AutoAttack L2"].stages

    def warning(at):
        def tell(images, labels):
            logging.getLogger("auto-attack").warning("there are 3 points with zero gradient!")
            return images

        return [("apgd-t", tell), *stages(at)]

    found = failed(evaluate(linear_victim(), plant(warning, "AutoAttack L2")))
    assert found["AutoAttack's flags"] == "AutoAttack L2 at L2 0.5: there are 3 points with zero gradient!"


@pytest.fixture
def evidence(sound):
    """What the sound report's controls looked at."""
    images, labels = own_images(linear_victim(), 12, spread=0.03)
    device = torch.device("cpu")
    run = Evaluator(linear_victim(), images, labels, sound[0], device, batch_size=12, effort=BRIEF.effort)
    few = replace(run, images=images[:6], labels=labels[:6], folder=sound[0] / "first-6")
    cells = {key: run.run(*key) for key in BRIEF.cells()}
    slow = {(name, CURVE[3]): few.run(name, CURVE[3]) for name in ("APGD", "Square")}
    return Evidence(run, few, cells, slow, True)


def test_evidence_that_is_whole_passes(evidence):
    assert [control.name for control in judge(evidence) if not control.passed] == []


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (("noise", HEADLINE), {"noise"}),
        (("AutoAttack Linf", HEADLINE), {"ordering", "natural falls"}),
        (("FGSM", CURVE[0]), {"ordering"}),
        (("PGD-100", CURVE[7]), {"ordering", "curve"}),
        (("PGD-20", CURVE[2]), {"ordering", "seed", "gradients"}),
    ],
)
def test_what_was_not_run_fails(missing, told, evidence):
    cells = {key: verdicts for key, verdicts in evidence.cells.items() if key != missing}
    controls = judge(replace(evidence, cells=cells))
    found = {control.name for control in controls if control.detail.startswith("not run")}
    assert found == told
    assert not any(control.passed for control in controls if control.name in found)


def test_without_any_attack_nothing_passes_but_what_asks_for_none(evidence):
    controls = judge(replace(evidence, cells={}, slow={}))
    assert {control.name for control in controls if control.passed} == {"evaluation mode"}


def test_a_square_that_was_not_run_fails(evidence):
    controls = {control.name: control for control in judge(replace(evidence, slow={}))}
    assert controls["gradients"].detail == "not run: Square at Linf 2/255"


def test_a_file_that_is_gone_is_seen(evidence, stored):
    run, few = (replace(r, folder=f) for r, f in ((evidence.run, stored), (evidence.few, stored / "first-6")))
    (stored / "first-6" / "Square_Linf_2-255.safetensors").unlink()
    (control,) = judge(replace(evidence, run=run, few=few), ["rescored"])
    assert control.detail == "Square at Linf 2/255: its file is gone"


def test_square_that_beats_apgd_is_seen(plant):
    """By whatever means: here the two have changed their places."""
    plant(ascent(lambda at, images, labels: sign_noise(images, at.eps, seed=0)), "APGD")
    strong = ascent(lambda at, images, labels: pgd(at.victim, images, labels, 2 * at.eps, steps=20, seed=0))
    found = failed(evaluate(linear_victim(), plant(strong, "Square")))
    assert found["gradients"] == "at Linf 2/255 Square leaves 0.0%, APGD 100.0%"


def test_square_that_breaks_what_the_rest_of_auto_attack_left_is_seen(plant):
    def stages(at):
        square = lambda images, labels: pgd(at.victim, images, labels, at.eps, steps=20, seed=0)  # noqa: E731
        return [("apgd-ce", lambda images, labels: images), ("square", square)]

    found = failed(evaluate(linear_victim(), plant(stages, "AutoAttack Linf")))
    assert "AutoAttack Linf at Linf 8/255: Square lowers it by 100.00%" in found["AutoAttack's flags"]


def test_the_cross_check_compares_with_the_library(stored):
    images, labels = own_images(linear_victim(), 12, spread=0.03)
    device = torch.device("cpu")
    run = Evaluator(linear_victim(), images, labels, stored, device, batch_size=12, effort=BRIEF.effort)
    protocol = replace(BRIEF, slow_images=12, slow_budgets=(CURVE[3],))
    found = cross_check(run, protocol)
    assert found["differ"] == 0
    assert 0 < found["ours"] == found["direct"] < found["images"] == 12
    assert json.loads((stored / "cross-check.json").read_text()) == found
    # Verdicts that are not the library's.
    (stored / "cross-check.json").unlink()
    path = stored / "first-12" / "AutoAttack_Linf_2-255.safetensors"
    change(path, robust=~read_verdicts(path).robust)
    assert cross_check(run, protocol)["differ"] == 12
    assert cross_check(run, replace(protocol, slow_budgets=())) is None
