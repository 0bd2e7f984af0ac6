"""AutoAttack, of which the library does the attacking."""

from dataclasses import replace

import pytest
import torch
from victims import linear_victim, nearest, own_images, shortened

from edgeprune_benchmarks.harness.deadline import OutOfTimeError
from edgeprune_benchmarks.robustness.attacks import auto_attack
from edgeprune_benchmarks.robustness.attacks.budgets import Budget
from edgeprune_benchmarks.robustness.evaluation import Evaluator

TWO = Budget("Linf", 2.4 / 255)


def settings(library):
    parts = library.apgd, library.apgd_targeted, library.fab, library.square
    return [{k: v for k, v in vars(part).items() if isinstance(v, int | float | str)} for part in parts]


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 2.4 / 255), ("L2", 0.11), ("L1", 0.5)])
def test_auto_attack_is_the_library_s(quick, evaluator, victim, images, norm, eps):
    """The same verdicts as a direct call, with its own batches and order of components."""
    from pyautoattack import AutoAttack

    library = shortened(AutoAttack(victim, norm=norm, eps=eps, seed=5, version="standard", device="cpu"))
    few = images[0][:4], images[1][:4]
    moved, seen = library.run_standard_evaluation(*few, batch_size=3)
    run = replace(evaluator, seed=5, batch_size=3, images=few[0], labels=few[1])
    verdicts = run.run(f"AutoAttack {norm}", Budget(norm, eps))
    assert torch.equal(verdicts.robust, seen == few[1])
    assert 0 < verdicts.robust.sum() < len(verdicts.robust)
    broken = ~verdicts.robust[verdicts.kept]
    assert torch.equal(verdicts.adversarial[broken], moved[verdicts.kept][broken])


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_settings_of_auto_attack_are_the_library_s(victim, norm):
    from pyautoattack import AutoAttack

    library = AutoAttack(victim, norm=norm, eps=0.1, seed=5, version="standard", device="cpu")
    ours = auto_attack._library(victim, norm, 0.1, 5, torch.device("cpu"), 10)
    assert settings(ours) == settings(library)
    assert settings(library) != settings(shortened(library))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "names", "targets"),
    [
        (2, ["apgd-ce", "fab-t", "square"], (1, 1)),
        (3, ["apgd-ce", "apgd-dlr", "fab-t", "square"], (2, 2)),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"], (3, 3)),
        (6, ["apgd-ce", "apgd-t", "fab-t", "square"], (5, 5)),
        (10, ["apgd-ce", "apgd-t", "fab-t", "square"], (9, 9)),
        (1000, ["apgd-ce", "apgd-t", "fab-t", "square"], (9, 9)),
    ],
)
def test_auto_attack_takes_what_the_classes_allow(classes, names, targets):
    victim, cpu = linear_victim(classes=classes), torch.device("cpu")
    library = auto_attack._library(victim, "Linf", 8 / 255, 0, cpu, classes)
    assert library.attacks_to_run == names
    assert (library.apgd_targeted.n_target_classes, library.fab.n_target_classes) == targets
    assert [name for name, _ in auto_attack.auto_attack_stages(victim, "L1", 12, 0, cpu, classes)] == names
    images, labels = own_images(victim, 4)
    assert auto_attack.flags_before(victim, images, labels) == []


@pytest.mark.first_are_quick
@pytest.mark.parametrize(
    ("classes", "norm"),
    [
        (2, "Linf"),
        (3, "Linf"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in ((5, "Linf"), (2, "L1"), (3, "L2"), (9, "L1"))
        ),
    ],
)
def test_auto_attack_of_few_classes_breaks_what_can_be_broken(quick, tmp_path, classes, norm):
    victim = linear_victim(classes=classes)
    images, labels = own_images(victim, 8)
    order, sizes = {"Linf": (1, (0.1, 2)), "L2": (2, (0.1, 2)), "L1": (torch.inf, (0.05, 6))}[norm]
    distance = nearest(victim, images, labels, order)
    run = Evaluator(victim, images, labels, tmp_path, torch.device("cpu"), batch_size=5)
    for share in sizes:
        size = share * float(distance.max() if share > 1 else distance.min())
        found = run.run(f"AutoAttack {norm}", Budget(norm, size))
        assert not found.robust.any() if share > 1 else found.robust.all()


@pytest.mark.slow
def test_auto_attack_leaves_torch_s_random_numbers_alone(quick, evaluator):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    evaluator.run("AutoAttack Linf", TWO)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_an_attack_that_was_stopped_goes_on_where_it_was(quick, evaluator, tmp_path):
    whole = replace(evaluator, folder=tmp_path / "whole").run("AutoAttack Linf", TWO)
    calls = []

    def overdue():
        calls.append(None)
        if len(calls) % 3 == 0:
            raise OutOfTimeError

    run = replace(evaluator, folder=tmp_path / "parts", overdue=overdue)
    stops = 0
    while True:
        try:
            verdicts = run.run("AutoAttack Linf", TWO)
            break
        except OutOfTimeError:
            stops += 1
    assert stops >= 2
    # Every batch was run once, however often the attack was stopped.
    assert len(calls) == stops + sum(-(-n // 5) for n in list(whole.facts["stages"].values())[:-1])
    assert torch.equal(verdicts.robust, whole.robust)
    assert torch.equal(verdicts.adversarial, whole.adversarial)
    assert verdicts.facts["forwards"] == whole.facts["forwards"]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["AutoAttack_Linf_2.4-255.safetensors"]
