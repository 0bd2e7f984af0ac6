"""The network for short training: its first layer, its convolutions, its optimizer and its defaults."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_runs import CLASSES, TINY, MemoryLoader, assert_same_run, run, send

from edgeprune_runtime.networks import resnet9
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.networks.resnet9 import whiten
from edgeprune_runtime.networks.winograd import WinogradConv2d, library
from edgeprune_runtime.training import TrainConfig, TrainingInterrupted, load_model
from edgeprune_runtime.training.defaults import DEFAULTS, defaults_of
from edgeprune_runtime.training.optimizers import make_optimizer, orthogonalized
from edgeprune_runtime.training.progress.schedule import learning_rate

pytestmark = pytest.mark.usefixtures("one_thread")
OWN = {name: value for name, value in defaults_of("resnet9").items() if name != "augment"}
SHORT = TrainConfig(**{**OWN, "model": "resnet9", "epochs": 2, "batch_size": 8, "device": "cpu"})


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# Channels that no kernel takes, a map too small for tiles, and those that go by tiles, many at a time.
@pytest.mark.parametrize(
    ("width_in", "width", "size", "count", "by_tiles"),
    [
        (3, 5, (4, 4), 2, False),
        (8, 16, (1, 3), 1, False),
        (24, 8, (31, 7), 5, True),
        (8, 40, (4, 4), 200, True),
        (16, 16, (45, 44), 2, True),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_convolutions_are_those_of_direct_sums(threads, width_in, width, size, count, by_tiles, number):
    threads(number)
    torch.manual_seed(0)
    conv = WinogradConv2d(width_in, width)
    images = torch.randn(count, width_in, *size, requires_grad=True)
    weights = torch.randn(count, width, *size)
    found = conv(images)
    if library() is not None:
        assert (type(found.grad_fn).__name__ == "_WinogradBackward") == by_tiles
    ours = torch.autograd.grad((found * weights).sum(), (images, conv.weight))
    exact, kernel = images.double(), conv.weight.double()
    right = functional.conv2d(exact, kernel, padding=1)
    theirs = torch.autograd.grad((right * weights).sum(), (exact, kernel))
    for one, other in zip((found, *ours, conv.eval()(images)), (right, *theirs, right), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5 * other.detach().abs().max().item())


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_the_first_layer_makes_patches_uncorrelated(channels):
    torch.manual_seed(0)
    model = create_model("resnet9", 4, 16, channels)
    smooth = functional.avg_pool2d(torch.randn(64, channels, 18, 18), 3, 1)
    whiten(model, smooth)
    found = functional.conv2d(smooth, model.whiten.weight).transpose(0, 1).flatten(1)
    half = min(12, 4 * channels)
    covariance = found @ found.T / found.shape[1]
    patches = functional.unfold(smooth, 2).transpose(1, 2).flatten(0, 1)
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)[:half]
    # What is left of a variance: all of a strong direction, little of a faint one.
    expected = torch.diag(variances / (variances + 0.1))
    torch.testing.assert_close(covariance[:half, :half], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[half : 2 * half], -found[:half])
    assert not found[2 * half :].any()
    assert not model.whiten.weight.requires_grad


@pytest.mark.parametrize("left", [0.0, 0.03])
def test_the_first_layer_hardly_amplifies_what_a_pack_has_lost(left):
    torch.manual_seed(0)
    coarse = functional.interpolate(torch.randn(64, 3, 8, 8), 32, mode="bicubic")
    detail = torch.randn_like(coarse)
    model = create_model("resnet9", 4, 32)
    whiten(model, coarse + left * detail)
    responses = functional.conv2d(coarse + 0.2 * detail, model.whiten.weight)
    # With airbench's 5e-4 it is 8 to 9 in the faintest directions, and 1 in the images learned from.
    assert 0.9 < responses.var(dim=(0, 2, 3)).max() < 1.1


def test_many_patches_are_looked_at_in_parts(monkeypatch):
    images = torch.rand(7, 3, 9, 10)
    found = []
    for values in (resnet9._VALUES, 3 * 4 * images[0].numel(), 1):
        monkeypatch.setattr(resnet9, "_VALUES", values)
        model = create_model("resnet9", 4, 9)
        whiten(model, images)
        found.append(model.whiten.weight)
    torch.testing.assert_close(found[1].abs(), found[0].abs(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[2].abs(), found[0].abs(), rtol=1e-3, atol=1e-4)


def test_a_network_that_is_not_resnet9_is_not_whitened():
    model = create_model("resnet8", 4, 16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whiten(model, torch.randn(2, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_run_is_whitened_once_and_goes_on_as_it_was(tmp_path):
    config = replace(SHORT, ema=0.9)
    run(tmp_path / "whole", config)
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "again", config, on_batch=send(signal.SIGTERM, (1, 1)))
    run(tmp_path / "again", config, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "again")
    network = load_model(tmp_path / "whole")
    first = next(iter(MemoryLoader(batch_size=8)))[0]
    other = create_model("resnet9", CLASSES, 16)
    whiten(other, first)
    assert torch.equal(network.whiten.weight, other.whiten.weight)
    warm = run(tmp_path / "warm", replace(TINY, model="resnet9", epochs=1), init=tmp_path / "whole")
    assert torch.equal(load_model(warm.run_dir).whiten.weight, other.whiten.weight)


def test_muon_takes_orthogonal_steps():
    torch.manual_seed(0)
    for shape in ((6, 20), (20, 6)):
        values = torch.linalg.svdvals(orthogonalized(torch.randn(shape)))
        assert values.min() > 0.4
        assert values.max() < 1.6
    model = create_model("resnet9", 4, 16)
    optimizer = make_optimizer(model, SHORT)
    rates = {id(p): group["rate"] for group in optimizer.param_groups for p in group["params"]}
    kernel, head, bias = model.group2.conv1.weight, model.fc.weight, model.group2.norm1.bias
    assert rates[id(bias)] == 64 * rates[id(head)]
    assert id(model.whiten.weight) not in rates
    before = kernel.detach().clone()
    model(torch.randn(4, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    moved = (kernel.detach() - before * len(before) ** 0.5 / before.norm()).flatten(1)
    assert torch.linalg.svdvals(moved).max() == pytest.approx(SHORT.lr, rel=0.5)
    assert optimizer.state[kernel]["momentum_buffer"].shape == kernel.shape


def test_defaults_are_settings():
    for model, own in DEFAULTS.items():
        TrainConfig(model=model, **{name: value for name, value in own.items() if name != "augment"})
    assert defaults_of("resnet8") == {}


def test_linear_schedules():
    assert [learning_rate(step, 4, 2.0, "linear", 0.0) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]
    rates = [learning_rate(step, 1000, 1.0, "linear", 0.2) for step in range(1000)]
    assert np.argmax(rates) == 199
    assert rates[600] == pytest.approx(0.5)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
