import importlib.util

import pytest
import torch
from torch import nn

from edgeprune.commands.packs import score
from edgeprune.commands.training import train
from edgeprune_formats import ConfigError
from edgeprune_runtime.networks import models
from edgeprune_runtime.networks.layers import head_of, scale_head
from edgeprune_runtime.networks.models import MODEL_NAMES, create_model
from edgeprune_runtime.networks.shapes import smallest_batch

needs_timm = pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")

# Published by torchvision for 1000 classes.
TORCHVISION = {
    "shufflenet_v2": 2_278_604,
    "mobilenet_v2": 3_504_872,
    "efficientnet_b0": 5_288_548,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
}
# Residual blocks in each stage of He et al.'s networks for CIFAR-10.
CIFAR = {"resnet8": 1, "resnet20": 3}


def feature_map(name: str, size: int) -> tuple[int, int]:
    """The size of what the last BatchNorm2d sees: the feature map before pooling."""
    model = create_model(name, 10, size)
    seen: list[tuple[int, int]] = []
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, args, out: seen.append(tuple(out.shape[2:])))
    with torch.no_grad():
        assert model.eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)
    return seen[-1]


def test_every_name_is_covered():
    assert {*TORCHVISION, *CIFAR, "resnet9"} == set(MODEL_NAMES)


def test_the_names_that_are_known_without_torch_are_those_of_the_networks():
    assert tuple(models._MODELS) == MODEL_NAMES


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("side", [4, 5, 8, 9])
def test_the_smallest_batch_trains_and_none_smaller(name, side):
    least = smallest_batch(name, (3, side, side))
    model = create_model(name, 3, side)
    assert model(torch.randn(least, 3, side, side)).shape == (least, 3)
    if least == 2:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(torch.randn(1, 3, side, side))


@pytest.mark.parametrize("command", [score.command, train.command])
def test_the_commands_offer_every_name(command):
    (option,) = [option for option in command.params if option.name == "model"]
    assert tuple(option.type.choices) == MODEL_NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_small_images_are_reduced_by_8(name):
    assert feature_map(name, 32) == (4, 4)
    assert feature_map(name, 20) == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_large_images_are_reduced_by_32(name):
    assert feature_map(name, 64) == (2, 2)


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("name", TORCHVISION)
def test_untouched_networks_have_torchvisions_parameters(name):
    assert sum(p.numel() for p in create_model(name, 1000, 64).parameters()) == TORCHVISION[name]


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize(("size", "reduced"), [(32, 8), (20, 5), (64, 16), (9, 3), (1, 1)])
def test_cifar_networks_reduce_by_4_whatever_the_size(name, size, reduced):
    assert feature_map(name, size) == (reduced, reduced)


@pytest.mark.parametrize(("size", "reduced"), [(32, 3), (20, 2), (64, 7), (9, 1), (1, 1)])
def test_resnet9_reduces_by_8_whatever_the_size(size, reduced):
    assert feature_map("resnet9", size) == (reduced, reduced)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_networks_take_large_images_that_are_no_squares(name):
    model = create_model(name, 7, 160).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 160)).shape == (1, 7)


def convolution(width_in, width, size):
    # Without bias, followed by a batch norm's weight and bias.
    return size * size * width_in * width + 2 * width


def cifar_parameters(blocks, classes):
    """He et al. (2016), section 4.2, with a 1x1 convolution where the shape changes (their option B)."""
    count, width_in = convolution(3, 16, 3), 16
    for width in (16, 32, 64):
        count += convolution(width_in, width, 3) + (2 * blocks - 1) * convolution(width, width, 3)
        count += convolution(width_in, width, 1) if width != width_in else 0
        width_in = width
    return count + 64 * classes + classes


@pytest.mark.parametrize(("name", "blocks"), CIFAR.items())
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_cifar_networks_have_the_published_parameters(name, blocks, classes):
    count = sum(p.numel() for p in create_model(name, classes, 32).parameters())
    assert count == cifar_parameters(blocks, classes)
    if classes == 10:
        # He et al.'s table 6 has 0.27 M for ResNet-20; MLPerf Tiny's ResNet-8 has about 78 k.
        assert round(count / 1e6, 2) == {"resnet8": 0.08, "resnet20": 0.27}[name]


@pytest.mark.parametrize(("name", "blocks"), CIFAR.items())
def test_cifar_networks_have_6n_plus_2_layers(name, blocks):
    model = create_model(name, 10, 32)
    shortcuts = [key for key, _ in model.named_modules() if key.endswith("downsample.0")]
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert shortcuts == ["layer2.0.downsample.0", "layer3.0.downsample.0"]
    assert len(layers) - len(shortcuts) == 6 * blocks + 2
    assert name == f"resnet{6 * blocks + 2}"


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_networks_are_the_same_at_every_size(name):
    torch.manual_seed(0)
    small = create_model(name, 10, 32).state_dict()
    torch.manual_seed(0)
    large = create_model(name, 10, 224).state_dict()
    assert all(torch.equal(small[key], large[key]) for key in small)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_networks_keep_the_scale_of_their_input(name):
    """As weights that are drawn by He's rule should."""
    torch.manual_seed(0)
    model = create_model(name, 10, 32)
    logits = model(torch.randn(16, 3, 32, 32))
    assert 0.1 < logits.std() < 3
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_stem_keeps_names_and_shapes(name):
    large, small = (create_model(name, 10, size).state_dict() for size in (64, 63))
    changed = {key for key in large if large[key].shape != small[key].shape}
    assert list(large) == list(small)
    assert changed == ({"conv1.weight"} if name in ("resnet18", "resnet34") else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_seed_decides_the_weights(name):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in create_model(name, 10, 32).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vgg", 10, 32), "unknown model 'vgg'; choose one of shufflenet_v2"),
        (("resnet18", 0, 32), "num_classes is 0"),
        (("resnet18", 10, 0), "image_size is 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        create_model(*arguments)


def spread(model):
    """The root mean square of a head's weights, where 1 is that of torch's linear layers."""
    _, head = head_of(model)
    return float(head.weight.detach().square().mean().sqrt()) * (3 * head.in_features) ** 0.5


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", pytest.param("timm:efficientnet_lite0", marks=needs_timm)]
)
def test_a_head_is_not_drawn_wider_for_few_classes(name):
    assert spread(create_model(name, 10, 32)) == pytest.approx(1)
    # For 1,000 the libraries' own start stays.
    assert spread(create_model(name, 1000, 32)) == pytest.approx(1280**0.5 / 1000**0.5, abs=0.02)


def test_heads_of_other_networks_and_what_is_no_linear_layer_stay():
    own = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 3))
    for factor in (0.0, 0.01, 1.9):
        own[2].weight = nn.Parameter(torch.full((3, 4), factor / 12**0.5))
        scale_head(own)
        assert spread(own) == pytest.approx(factor)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 1))
    convolution[0].weight.data.fill_(9)
    for model in (convolution, nn.Sequential(nn.ReLU())):
        scale_head(model)
    assert (convolution[0].weight == 9).all()
