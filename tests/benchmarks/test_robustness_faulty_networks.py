"""Controls see the faults of a network itself."""

import pytest
import torch
from attack_reports import BRIEFEST, evaluate, failed
from victims import Around, linear_victim, short_searches

# A report takes seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def quick():
    with short_searches():
        yield


def evaluate_anew(victim, folder, natural=True):
    """Evaluate a victim that is itself the fault: nothing of the sound report is of use."""
    return evaluate(victim, folder, natural, BRIEFEST)


def test_a_network_that_returns_probabilities_is_seen(tmp_path):
    class Softmax(Around):
        def forward(self, images):
            return self.inner(images).softmax(1)

    report = evaluate_anew(Softmax(), tmp_path)
    assert not report["valid"]
    assert "probability distribution" in failed(report)["AutoAttack's flags"]


@pytest.mark.parametrize("block", ["detach", "quantize"])
def test_a_gradient_that_is_cut_is_seen(block, tmp_path):
    class Cut(Around):
        def forward(self, images):
            cut = images.detach() + 0 * images if block == "detach" else (images * 255).round() / 255
            return self.inner(cut)

    report = evaluate_anew(Cut(), tmp_path)
    assert not report["valid"]
    found = failed(report)
    assert "is zero at 100.0% of the images" in found["gradients"]
    assert {"curve", "natural falls"} & set(found)


def test_a_network_in_training_mode_is_seen(tmp_path):
    victim = linear_victim()
    victim.model.norm.train()
    report = evaluate_anew(victim, tmp_path)
    assert not report["valid"]
    found = failed(report)
    assert "model.norm is in training mode" in found["evaluation mode"]
    # Its statistics moved while it was attacked.
    assert "other weights" in found["rescored"]


def test_a_network_that_draws_at_random_is_seen(tmp_path):
    class Noisy(Around):
        def forward(self, images):
            return self.inner(images + 0.01 * torch.randn_like(images))

    found = failed(evaluate_anew(Noisy(), tmp_path))
    assert "the same images give other logits" in found["evaluation mode"]
    assert "randomized defense" in found["AutoAttack's flags"]


def test_an_attack_that_is_no_more_than_noise_is_seen(tmp_path):
    class Deaf(Around):
        """Sees a coarse grid alone: any change of that size turns it, in any direction."""

        def forward(self, images):
            logits = self.inner(0 * images + 0.5)
            moved = (images - 0.5).abs().amax((1, 2, 3)) > 0.055
            return torch.where(moved[:, None], -logits, logits)

    assert "noise" in failed(evaluate_anew(Deaf(), tmp_path))


def test_a_natural_network_that_stands_is_seen(tmp_path):
    class Flat(Around):
        """So short a slope that no perturbation of 8/255 reaches another class."""

        def forward(self, images):
            return self.inner(0.5 + 0.1 * (images - 0.5))

    found = failed(evaluate_anew(Flat(), tmp_path))
    assert found["natural falls"].endswith("% at Linf 8/255")
    # The same verdicts, of a network that was trained to stand.
    assert "natural falls" not in failed(evaluate_anew(Flat(), tmp_path, natural=False))


def test_a_gradient_that_points_anywhere_is_seen(tmp_path):
    class Shattered(Around):
        """A steep ripple on the input: gradients point anywhere, and the value itself hardly changes."""

        def forward(self, images):
            return self.inner(images + 2e-4 * torch.sin(1e5 * images))

    report = evaluate_anew(Shattered(), tmp_path)
    assert not report["valid"]
    assert {"natural falls", "curve"} <= set(failed(report))
