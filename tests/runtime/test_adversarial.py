import math
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from training_runs import CLASSES, SHAPE, TEST, TINY, MemoryLoader, assert_same_run, metrics, run, send

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.normalization import Normalization
from edgeprune_runtime.training import TrainingInterrupted, load_model
from edgeprune_runtime.training.objectives.adversarial import Objective, Perturbation, Teacher
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.settings import Adversary, TrainConfig
from edgeprune_runtime.training.step import Learner

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SCALING = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
# Images of `MemoryLoader` are about within [-8, 8]; normalized so, all of it is inside [0, 1].
WIDE = Normalization((0.5,) * 3, (1 / 32,) * 3)


def normalized(pixels, scaling=SCALING):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (scaling.mean, scaling.std))
    return (pixels - mean) / std


def pixels_of(images):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SCALING.mean, SCALING.std))
    return images * std + mean


class Linear(nn.Module):
    """The gradient with regard to the images is the same whatever they are: that of one weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, images):
        return (images * self.weight).flatten(1).sum(1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run that says how its images are normalized, and how that is."""
    own = Normalization((0.45, 0.5, 0.55), (0.3, 0.2, 0.1))
    run_dir = tmp_path_factory.mktemp("taught") / "teacher"
    said = {"mean": own.mean, "std": own.std, "class_names": ["a", "b", "c", "d"]}
    run(run_dir, replace(TINY, epochs=1), provenance=said)
    return run_dir, own


@pytest.fixture
def pixels():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def weight():
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))


def perturbed(method, eps, pixels, weight):
    move = Perturbation(Adversary(method, eps), SCALING, CPU)
    return pixels_of(move(Linear(weight), normalized(pixels), lambda logits: logits.sum()))


def test_pgd_ends_in_the_corner_of_the_ball_that_the_gradient_points_to(pixels, weight):
    moved = perturbed("pgd", 8, pixels, weight)
    expected = (pixels + 8 / 255 * weight.sign()).clamp(0, 1)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_n_fgsm_is_noise_of_twice_the_budget_and_a_step_of_the_whole(pixels, weight):
    torch.manual_seed(5)
    moved = perturbed("n-fgsm", 8, pixels, weight)
    torch.manual_seed(5)
    noise = 2 * torch.rand_like(pixels) - 1
    start = (pixels + 16 / 255 * noise).clamp(0, 1)
    expected = (start + 8 / 255 * weight.sign()).clamp(0, 1)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
    # It is not cut back to the ball of the budget.
    assert ((moved - pixels).abs() > 8.5 / 255).any()


@pytest.mark.parametrize("method", ["n-fgsm", "pgd"])
def test_perturbed_pixels_stay_in_range_even_of_images_that_ring_out_of_it(method, weight):
    pixels = 1.4 * torch.rand(6, *SHAPE) - 0.2
    moved = perturbed(method, 8, pixels, weight)
    assert moved.min() >= -1e-6
    assert moved.max() <= 1 + 1e-6


def test_a_perturbation_raises_the_loss_and_leaves_no_gradient_behind(pixels):
    config = replace(TINY, model="resnet8", precision="float32")
    torch.manual_seed(0)
    learner = Learner(config, place(config), CLASSES, 16)
    learner.train()
    images, labels = normalized(pixels), torch.arange(6) % CLASSES
    loss = Objective()._loss(images, labels)
    before = loss(learner.model(images)).item()
    for method in ("n-fgsm", "pgd"):
        moved = Perturbation(Adversary(method, 8), SCALING, CPU)(learner.model, images, loss)
        assert loss(learner.model(moved)).item() > before + 0.01
        assert not moved.requires_grad
        assert all(p.grad is None for p in learner.model.parameters())


@pytest.mark.parametrize(
    ("text", "expected"), [("pgd", ("pgd", 8.0)), ("n-fgsm:4", ("n-fgsm", 4.0)), ("pgd:0.5", ("pgd", 0.5))]
)
def test_names_of_adversaries(text, expected):
    adversary = Adversary.parse(text)
    assert (adversary.method, adversary.eps) == expected
    assert TrainConfig(adversarial=text).adversarial == text


@pytest.mark.parametrize("text", ["", "fgsm", "pgd:", "pgd:0", "pgd:-1", "pgd:256", "pgd:nan", "pgd:8/255"])
def test_adversaries_that_are_none(text):
    with pytest.raises(ConfigError, match="such as n-fgsm:8"):
        TrainConfig(adversarial=text)


@pytest.mark.parametrize("std", [(0.2, 0.0, 0.3), (0.2, -1.0, 0.3), (0.2, math.nan, 0.3), (0.2, 0.3)])
def test_normalizations_that_are_none(std):
    with pytest.raises(ConfigError, match=r"and std .* finite and positive|and std 2; each needs"):
        Normalization((0.5, 0.4, 0.3), std)


def test_training_needs_to_know_what_a_pixel_is(tmp_path, whole_run):
    for options in ({"config": replace(TINY, adversarial="pgd")}, {"teacher": whole_run.run_dir}):
        with pytest.raises(ConfigError, match="need the normalization of the batches"):
            run(tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "adversarial", "learns"),
    [("mobilenet_v2", "n-fgsm", False), ("resnet8", "pgd:4", False), ("resnet8", "n-fgsm:4", True)],
)
def test_a_run_on_perturbed_images_resumes(tmp_path, taught, model, adversarial, learns):
    # The large one has dropout, which draws in each step: an epoch is enough for that.
    epochs = 1 if model == "mobilenet_v2" else 2
    config = replace(TINY, model=model, adversarial=adversarial, epochs=epochs)
    whole, parts = tmp_path / "whole", tmp_path / "parts"

    def go(run_dir, config, on_batch=lambda *now: None, **options):
        loader = MemoryLoader(16, on_batch=on_batch)
        run(run_dir, config, loader=loader, test=TEST[1:], normalization=WIDE, **options)

    options = {"teacher": taught[0] if learns else None}
    go(whole, config, **options)
    with pytest.raises(TrainingInterrupted, match=f"after step {2 * epochs - 1} of {2 * epochs}"):
        go(parts, config, send(signal.SIGTERM, (epochs - 1, 0)), **options)
    with pytest.raises(ConfigError, match=r"adversarial was .* and is now not set"):
        go(parts, replace(config, adversarial=None), **options, resume=True)
    go(parts, config, **options, resume=True)
    assert_same_run(parts, whole)
    # Of the same teacher, so that nothing but the perturbation differs.
    go(tmp_path / "plain", replace(config, adversarial=None), **options)
    assert metrics(tmp_path / "plain") != metrics(whole)


def test_another_teacher_is_another_run(tmp_path, taught):
    config = replace(TINY, model="resnet8", epochs=1)
    run(tmp_path / "first", config, normalization=WIDE, teacher=taught[0])
    with pytest.raises(ConfigError, match=r"teacher was '[0-9a-f]{64}' and is now not set"):
        run(tmp_path / "first", config, resume=True)


class FewPatterns(MemoryLoader):
    """A pattern that 8/255 turn into another's, and one that they do not: both tell the class."""

    def __init__(self):
        super().__init__(count=192, batch_size=32)
        random = torch.Generator().manual_seed(7)
        frail = torch.randn(CLASSES, *SHAPE, generator=random).sign() * 4 / 255
        self.labels = torch.randint(CLASSES, (192,), generator=random)
        marks = torch.zeros(CLASSES, *SHAPE)
        for label in range(CLASSES):
            marks[label, :, 4 * label : 4 * label + 4, :8] = 0.12
        pixels = 0.5 + frail[self.labels] + marks[self.labels]
        self.images = normalized(pixels + 0.03 * torch.randn(192, *SHAPE, generator=random), FLAT)


FLAT = Normalization((0.5,) * 3, (0.1,) * 3)


@pytest.mark.slow
def test_training_on_perturbed_images_makes_a_network_withstand_them(tmp_path):
    loader = FewPatterns()
    images, labels = loader.images, loader.labels
    accuracies = {}
    for name in (None, "n-fgsm:8"):
        config = TrainConfig(model="resnet8", epochs=6, batch_size=32, lr=0.1, device="cpu", adversarial=name)
        run(tmp_path / str(name), config, loader=FewPatterns(), test=None, normalization=FLAT)
        network = load_model(tmp_path / str(name))
        attack = Perturbation(Adversary("pgd", 8), FLAT, CPU)
        moved = attack(network, images, lambda logits: functional.cross_entropy(logits, labels))
        accuracies[name] = [
            float((network(some).argmax(1) == labels).float().mean()) for some in (images, moved)
        ]
    assert accuracies[None][0] > 0.95
    assert accuracies[None][1] < 0.2
    assert accuracies["n-fgsm:8"][1] > 0.7


def teacher_of(run_dir, scaling):
    return Teacher(run_dir, place(TINY), scaling, CLASSES, SHAPE)


@pytest.mark.slow
def test_a_teacher_sees_images_as_it_learned_to(taught, pixels):
    run_dir, own = taught
    answers = teacher_of(run_dir, SCALING)(normalized(pixels))
    with torch.no_grad():
        expected = load_model(run_dir)(normalized(pixels, own)).softmax(1)
    torch.testing.assert_close(answers, expected, atol=1e-5, rtol=1e-5)
    assert not answers.requires_grad
    assert load_trained(run_dir).std == own.std


@pytest.mark.slow
def test_the_loss_of_robust_distillation(taught, pixels):
    run_dir, _ = taught
    objective = Objective(Perturbation(Adversary("pgd", 8), SCALING, CPU), teacher_of(run_dir, SCALING))
    network = load_model(run_dir).eval()
    images, labels = normalized(pixels), torch.zeros(6, dtype=torch.int64)
    seen = []
    terms = list(objective.terms(lambda x: seen.append(x.detach()) or network(x), images, labels))
    assert len(seen) == 12  # ten steps, then the two terms
    wanted = objective.teacher(images)
    expected = [
        share * (wanted * (wanted.log() - network(x).log_softmax(1))).sum(1).mean()
        for share, x in zip((1 / 6, 5 / 6), seen[-2:], strict=True)
    ]
    assert torch.equal(seen[-2], images)
    torch.testing.assert_close(torch.stack([loss for loss, _ in terms]), torch.stack(expected))
    assert all(loss.requires_grad for loss, _ in terms)


def test_a_teacher_alone_replaces_the_labels(taught, pixels):
    run_dir, own = taught
    images = normalized(pixels, own)
    ((loss, _),) = Objective(teacher=teacher_of(run_dir, own)).terms(
        load_model(run_dir), images, torch.zeros(6, dtype=torch.int64)
    )
    assert abs(loss.item()) < 1e-5


@pytest.mark.slow
def test_terms_and_parts_of_a_batch_add_up_to_its_gradient(taught, pixels):
    run_dir, own = taught
    # With statistics that stay and without chance in the perturbation, parts do not change the step.
    fixed = {"model": "resnet8", "precision": "float32", "freeze": True, "ema": None, "batch_size": 6}
    results = []
    for accumulate in (1, 3):
        config = replace(TINY, **fixed, accumulate=accumulate)
        torch.manual_seed(0)
        objective = Objective(Perturbation(Adversary("pgd", 1e-9), own, CPU), teacher_of(run_dir, own))
        learner = Learner(config, place(config), CLASSES, 16, objective=objective)
        learner.train()
        loss, logits = learner.step(normalized(pixels, own), torch.zeros(6, dtype=torch.int64), 0.1, 0)
        results.append([loss, logits, *learner.model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_teachers_that_cannot_teach(tmp_path, whole_run, taught):
    run_dir, own = taught
    with pytest.raises(ConfigError, match=r"a teacher of 4 classes .* cannot teach 5 classes"):
        Teacher(run_dir, place(TINY), own, 5, SHAPE)
    with pytest.raises(ConfigError, match=r"images of \(3, 16, 16\) cannot teach .* \(3, 32, 32\)"):
        Teacher(run_dir, place(TINY), own, CLASSES, (3, 32, 32))
    names = {"class_names": ("b", "a", "c", "d")}
    with pytest.raises(ConfigError, match="the teacher's classes have other names, or another order"):
        run(tmp_path / "run", teacher=run_dir, normalization=own, provenance=names)
    run(tmp_path / "silent", replace(TINY, epochs=1))
    with pytest.raises(ConfigError, match="does not say how its images are normalized"):
        teacher_of(tmp_path / "silent", own)
    with pytest.raises(TrainingError, match="holds no trained model; name the folder of a run"):
        run(tmp_path / "run", teacher=tmp_path, normalization=own)
    assert not (tmp_path / "run").exists()
