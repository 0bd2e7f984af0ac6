import math
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from victims import (
    MEAN,
    STD,
    few_queries,
    linear_victim,
    nearest,
    short_searches,
)

from edgeprune_benchmarks.robustness.attacks.budgets import CURVE, HEADLINE, Budget, perturbation_size
from edgeprune_benchmarks.robustness.attacks.gradient import (
    carlini_wagner,
    cross_entropy,
    fgsm,
    margin,
    pgd,
    sign_noise,
)
from edgeprune_benchmarks.robustness.attacks.pruned_inference import attack_pruned
from edgeprune_benchmarks.robustness.attacks.sparse import sparse_pgd, sparse_rs
from edgeprune_benchmarks.robustness.attacks.table import ATTACKS, get_attack
from edgeprune_benchmarks.robustness.attacks.victim import PrunedVictim, Victim, weights_hash
from edgeprune_benchmarks.robustness.verdicts import read_verdicts
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError

TWO = Budget("Linf", 2.4 / 255)


def resist(victim, moved, labels):
    return victim(moved).argmax(1) == labels


def test_normalization_is_inside_the_victim(victim):
    images = torch.rand(2, 3, 8, 8)
    normalized = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(victim(images), victim.model(normalized), atol=1e-6)
    assert not any(part.training for part in victim.modules())


@pytest.mark.slow
@pytest.mark.parametrize("eps", [2.3])
@pytest.mark.parametrize("attack", ["FGSM", "PGD-100 margin", "AutoAttack Linf"])
def test_verdicts_under_linf_are_those_of_the_exact_distance(evaluator, victim, images, attack, eps):
    exact = nearest(victim, *images, 1) > eps / 255
    with short_searches(few_queries):
        found = replace(evaluator, batch_size=12).run(attack, Budget("Linf", eps / 255)).robust
    # None breaks what cannot be broken; a single step, or the class that leads, need not find all that can.
    assert not (exact & ~found).any()
    assert (found & ~exact).sum() <= {"FGSM": 24, "PGD-100 margin": 2, "AutoAttack Linf": 0}[attack]


@pytest.mark.slow
def test_carlini_wagner_comes_near_the_exact_distance(victim, images):
    moved = carlini_wagner(victim, *images, steps=200, lr=0.005)
    assert not resist(victim, moved, images[1]).any()
    ratio = perturbation_size(moved, images[0], "L2") / nearest(victim, *images, 2)
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() < 1.05


def test_carlini_wagner_gives_back_the_image_that_it_cannot_turn():
    class Constant(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([1.0, 0.0]).repeat(len(images), 1) + 0 * images.mean((1, 2, 3))[:, None]

    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(
        carlini_wagner(Constant(), images, torch.zeros(2, dtype=torch.int64), searches=2), images
    )


def test_fgsm_moves_every_pixel_by_eps_along_the_gradient(victim, images):
    moved = fgsm(victim, *images, TWO.size)
    assert torch.allclose((moved - images[0]).abs(), torch.full_like(moved, TWO.size), atol=1e-6)
    assert (cross_entropy(victim(moved), images[1]) > cross_entropy(victim(images[0]), images[1])).all()


def test_more_steps_of_pgd_never_break_fewer(victim, images):
    few, many = (resist(victim, pgd(victim, *images, TWO.size, steps=n, seed=3), images[1]) for n in (3, 30))
    assert not (many & ~few).any()
    assert many.sum() < len(many)


def test_pgd_that_does_not_stop_goes_on_where_it_broke(victim, images):
    eps = HEADLINE.size
    stopped, whole = (pgd(victim, *images, eps, steps=40, seed=3, stops=stops) for stops in (True, False))
    assert not resist(victim, stopped, images[1]).any()
    broken, further = (cross_entropy(victim(moved), images[1]) for moved in (stopped, whole))
    assert (further > 2 * broken).all()
    assert torch.allclose((whole - images[0]).abs().amax((1, 2, 3)), torch.tensor(eps))


def test_pgd_ends_where_every_image_is_broken(victim, images):
    sizes = []
    hook = victim.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    pgd(victim, *images, HEADLINE.size, steps=40, seed=3)
    hook.remove()
    assert min(sizes) > 0
    assert len(sizes) < 40


def test_pgd_takes_a_budget_for_each_channel(victim, images):
    budget = TWO.size * victim.std
    moved = pgd(victim, *images, budget, steps=5, seed=0) - images[0]
    assert (moved.abs() <= budget + 1e-6).all()
    # Broken ones are left where they broke, the others reach the edge.
    assert (moved.abs().amax((0, 2, 3)) / budget.flatten() > 0.99).all()


def test_noise_is_signs_of_eps(images):
    moved = sign_noise(images[0], 0.01, seed=0) - images[0]
    assert torch.allclose(moved.abs(), torch.full_like(moved, 0.01), atol=1e-6)
    assert abs(float(moved.mean())) < 0.001


@pytest.mark.parametrize("pixels", [1, 4])
def test_sparse_attacks_keep_their_budget_and_the_box(victim, images, pixels):
    results = [
        sparse_pgd(victim, *images, pixels, steps=30, seed=0, projected=True),
        sparse_pgd(victim, *images, pixels, steps=30, seed=0, projected=False),
        sparse_rs(victim, *images, pixels, queries=200, seed=0),
    ]
    for moved in results:
        assert perturbation_size(moved, images[0], "L0").max() <= pixels
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert resist(victim, moved, images[1]).float().mean() < (1 if pixels == 1 else 0.5)


def test_sparse_search_finds_what_a_single_pixel_can_do(victim, images):
    """Against every pixel and every corner of the color cube."""
    image, label = images[0][:1], images[1][:1]
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    tried = image.repeat(64 * 8, 1, 1, 1)
    for pixel in range(64):
        tried[8 * pixel : 8 * pixel + 8, :, pixel // 8, pixel % 8] = corners
    possible = bool((victim(tried).argmax(1) != label).any())
    moved = sparse_rs(victim, image, label, 1, queries=3000, seed=0)
    assert possible
    assert victim(moved).argmax(1) != label


def test_margin_is_positive_where_wrong():
    logits = torch.tensor([[1.0, 3.0], [2.0, 0.5]])
    assert margin(logits, torch.tensor([0, 0])).tolist() == [2.0, -1.5]


def test_sizes():
    images, moved = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    moved[0, 0, 0, 0], moved[0, 1, 0, 0], moved[0, 2, 1, 1] = 0.3, -0.4, 0.1
    found = {
        norm: round(float(perturbation_size(moved, images, norm)), 6) for norm in ("Linf", "L2", "L1", "L0")
    }
    assert found == {"Linf": 0.4, "L2": round(math.sqrt(0.26), 6), "L1": 0.8, "L0": 2.0}


def test_gradient_through_pruning_is_the_gradient():
    class Smooth(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear_victim()

        def forward(self, images):
            return torch.tanh(self.inner(images))

    victim = PrunedVictim(Smooth(), 3, 3)
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(victim(image)[0, 0], image)
    step = 1e-3
    with torch.no_grad():
        slope = (victim(image + step * direction) - victim(image - step * direction))[0, 0] / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=0.02)


def test_pruning_of_a_victim_is_that_of_a_pack():
    from edgeprune.masks.components import energy_mask
    from edgeprune.masks.torch_dct import dct2, idct2

    images = torch.rand(2, 3, 8, 8)
    spectra = dct2(images)
    kept = spectra * torch.from_numpy(energy_mask(spectra.numpy(), 5))
    assert torch.allclose(PrunedVictim(linear_victim(), 5, 5).prune(images), idct2(kept), atol=1e-6)


def test_what_was_found_is_not_looked_for_again(evaluator, victim):
    first = evaluator.run("PGD-20", TWO)

    def overdue():
        raise AssertionError

    again = replace(evaluator, overdue=overdue).run("PGD-20", TWO)
    assert torch.equal(first.robust, again.robust)
    assert again.facts["weights"] == weights_hash(victim)


def test_verdicts_of_other_weights_or_settings_are_refused(evaluator):
    evaluator.run("FGSM", TWO)
    with pytest.raises(ArtifactError, match=r"FGSM_Linf_2\.4-255\..*: made with weights .*remove it"):
        replace(evaluator, victim=linear_victim(1)).run("FGSM", TWO)
    with pytest.raises(ArtifactError, match="made with seed 0, not 1"):
        replace(evaluator, seed=1).run("FGSM", TWO)
    path = evaluator.path("FGSM", TWO)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="damaged"):
        evaluator.run("FGSM", TWO)


@pytest.mark.slow
def test_bfloat16_first_breaks_no_fewer(evaluator, tmp_path):
    plain = evaluator.run("PGD-20", TWO)
    both = replace(evaluator, precision="bfloat16", folder=tmp_path / "both").run("PGD-20", TWO)
    assert list(both.facts["stages"]) == ["clean", "bfloat16-ascent", "ascent"]
    assert not (both.robust & ~plain.robust).any()
    # What it broke is broken in float32.
    kept = both.kept[~both.robust[both.kept]]
    moved = both.adversarial[~both.robust[both.kept]]
    assert (evaluator.victim(moved).argmax(1) != evaluator.labels[kept]).all()
    exact = replace(evaluator, precision="bfloat16", folder=tmp_path / "exact").run("APGD", TWO)
    assert exact.facts["precision"] == "float32"


@pytest.mark.slow
def test_every_attack_runs_and_keeps_its_budget(quick, evaluator):
    sizes = {"Linf": HEADLINE.size, "L2": 0.1, "L1": 1.0, "L0": 2.0}
    for name, attack in ATTACKS.items():
        if name == "PGD-100 unaware":
            continue
        verdicts = evaluator.run(name, Budget(attack.norm, sizes[attack.norm]))
        if name != "C&W L2":
            assert verdicts.sizes.max() <= sizes[attack.norm] * (1 + 2e-5)
        assert verdicts.outside.max() <= 1e-6
        kept = read_verdicts(evaluator.path(name, Budget(attack.norm, sizes[attack.norm])))
        assert (kept.facts["forwards"] > 0) == (name != "noise")
        assert kept.facts["versions"]["pyautoattack"] == version("pyautoattack")


def test_misuse_is_told(evaluator):
    with pytest.raises(ConfigError, match="unknown attack 'PGD'; choose one of noise, FGSM"):
        get_attack("PGD")
    with pytest.raises(ConfigError, match="FGSM has budgets in Linf, not L2"):
        evaluator.run("FGSM", Budget("L2", 0.5))
    pruned = PrunedVictim(linear_victim(), 3, 3)
    with pytest.raises(ConfigError, match="normalized units"):
        replace(evaluator, victim=pruned).run("PGD-20 normalized", HEADLINE)
    with pytest.raises(ConfigError, match="needs a victim that prunes"):
        evaluator.run("PGD-100 unaware", HEADLINE)


@pytest.mark.slow
def test_an_attack_through_pruning_finds_what_an_unaware_one_misses(evaluator, victim, tmp_path):
    """Two classes told apart by the highest frequency alone where nothing is pruned: gone where it is."""
    pruned = PrunedVictim(victim, 3, 3)
    images = evaluator.images
    with torch.no_grad():
        run = replace(evaluator, victim=pruned, labels=pruned(images).argmax(1), folder=tmp_path / "pruned")
    result = attack_pruned(run, pruned)
    assert result["valid"], result["controls"]
    clean, *rows = result["rows"]
    assert (clean["eps"], clean["unaware"], clean["adaptive"], clean["images"]) == (0.0, 1.0, 1.0, 12)
    assert [row["eps"] for row in rows] == [budget.size for budget in CURVE[1:6]]
    assert all(row["adaptive"] <= row["unaware"] for row in rows)
    assert rows[-1]["adaptive"] < rows[-1]["unaware"]


def test_budgets_read_as_people_write_them():
    assert [str(b) for b in (*CURVE[:2], Budget("L2", 0.5), Budget("L0", 20.0), Budget("L2", math.inf))] == [
        "Linf 0.25/255",
        "Linf 0.5/255",
        "L2 0.5",
        "L0 20",
        "L2, no budget",
    ]


def test_victims_keep_no_gradient_of_their_weights():
    assert not any(p.requires_grad for p in Victim(torch.nn.Linear(2, 2), MEAN, STD).parameters())
