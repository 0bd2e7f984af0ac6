import numpy as np
import pytest
import torch

from edgeprune.masks.learner import fse_loss


def test_the_loss_of_a_hand_worked_example():
    # Softmax of (ln 3, 0) is (3/4, 1/4), of (0, 0) it is (1/2, 1/2).
    logits = torch.tensor([[np.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float32)
    loss, entropy, probability = fse_loss(logits, torch.tensor([1, 0]), 0.1)
    entropies = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), np.log(2)
    assert float(entropy) == pytest.approx(sum(entropies) / 2, rel=1e-6)
    assert float(probability) == pytest.approx((0.25 + 0.5) / 2, rel=1e-6)
    assert float(loss) == pytest.approx(sum(entropies) / 2 - 0.1 * 0.375, rel=1e-6)


def test_the_loss_of_certain_predictions_is_finite_in_value_and_gradient():
    logits = torch.tensor([[1000.0, -1000.0, 0.0]], requires_grad=True)
    loss, entropy, probability = fse_loss(logits, torch.tensor([0]), 0.5)
    loss.backward()
    assert [figure.tolist() for figure in (loss, entropy, probability)] == [-0.5, 0.0, 1.0]
    assert logits.grad.isfinite().all()
    assert fse_loss(logits.detach().bfloat16(), torch.tensor([0]), 0.5)[0].dtype == torch.float32
