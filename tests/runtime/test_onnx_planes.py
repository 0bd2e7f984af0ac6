"""Exported networks of images that are not RGB, alone and with the inverse transform inside."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune_runtime.networks.trained import TrainedNetwork
from edgeprune_runtime.normalization import Normalization
from edgeprune_runtime.onnx.check import check_export
from edgeprune_runtime.onnx.decoder import with_decoder
from edgeprune_runtime.onnx.export import export_network

pytestmark = pytest.mark.usefixtures("one_thread")


class Tiny(torch.nn.Module):
    """A convolution of C planes, and logits of three classes."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.head = torch.nn.Conv2d(channels, 4, 3), torch.nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.convolution(images).relu().mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 5])
def test_graphs_of_planes_agree_with_torch(channels):
    network = TrainedNetwork(
        path=Path("run"),
        model=Tiny(channels).eval(),
        name="resnet8",
        image_shape=(channels, 12, 20),
        num_classes=3,
        class_names=None,
        normalization=Normalization((0.4,) * channels, (0.3,) * channels),
    )
    model = export_network(network)
    images = np.random.default_rng(1).random((4, channels, 12, 20), np.float32)
    assert check_export(model, network, images).difference < 1e-4
    assert check_export(with_decoder(model, network.image_shape), network, images).difference < 1e-4
