"""Learning from labels and, beside them, from the probabilities of a teacher that a pack holds.

The loss of an image is ``(1 - a) H(y, S(x)) + a T^2 H(q_T, S_T(x))`` (Hinton et al., 2015, sec. 2): ``y`` is
the label, ``q`` what the teacher says, ``H`` the cross entropy, ``S_T`` the softmax of the network's logits
over T. The teacher's logits over T would give ``q_T``, which is ``q^(1/T)`` scaled to sum to 1.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .losses import Reduction

__all__ = ["DistillationLoss"]


class DistillationLoss:
    """The loss of images whose labels come with the probabilities of a teacher, see
    `edgeprune_runtime.training.taught.TaughtBatches`.

    Parameters
    ----------
    share : float
        The ``a`` above, in [0, 1].
    temperature : float
        The ``T`` above, at least 1.
    label_smoothing : float
        Share of each label, but not of the teacher's probabilities, that is spread evenly over all classes.
    class_weights : float32 [classes], optional
        Factors on the losses of images, by their labels; both terms have them.
    """

    def __init__(
        self,
        share: float,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: torch.Tensor | None = None,
    ) -> None:
        self._share, self._temperature = share, temperature
        self._label_smoothing, self._class_weights = label_smoothing, class_weights

    def __call__(self, outputs: torch.Tensor, wanted: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        """Return the loss, in nats; `wanted` is float32 [n, 2 classes]: labels, then the teacher's."""
        labels, taught = wanted.tensor_split(2, dim=1)
        temperature = self._temperature
        if temperature != 1:
            taught = taught.pow(1 / temperature)
            taught = taught / taught.sum(1, keepdim=True)
        hard = functional.cross_entropy(
            outputs, labels, reduction="none", label_smoothing=self._label_smoothing
        )
        soft = functional.cross_entropy(outputs / temperature, taught, reduction="none")
        each = (1 - self._share) * hard + self._share * temperature**2 * soft
        if self._class_weights is not None:
            each = each * (labels @ self._class_weights)
        return each.mean() if reduction == "mean" else each.sum()
