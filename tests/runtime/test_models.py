import pytest
import torch

from edgeprune_formats import ConfigError
from edgeprune_runtime.models import MODEL_NAMES, create_model, final_feature_map

# Published by torchvision for 1000 classes.
PARAMETERS = {
    "shufflenet_v2": 2_278_604,
    "mobilenet_v2": 3_504_872,
    "efficientnet_b0": 5_288_548,
    "resnet18": 11_689_512,
}


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
    assert set(PARAMETERS) == set(MODEL_NAMES)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_small_images_are_reduced_by_8(name):
    assert feature_map(name, 32) == (4, 4) == final_feature_map((3, 32, 32))
    assert feature_map(name, 20) == (3, 3) == final_feature_map((3, 20, 20))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_large_images_are_reduced_by_32(name):
    assert feature_map(name, 64) == (2, 2) == final_feature_map((3, 64, 64))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_untouched_networks_have_torchvisions_parameters(name):
    assert sum(p.numel() for p in create_model(name, 1000, 64).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_the_stem_keeps_names_and_shapes(name):
    large, small = (create_model(name, 10, size).state_dict() for size in (64, 63))
    changed = {key for key in large if large[key].shape != small[key].shape}
    assert list(large) == list(small)
    assert changed == ({"conv1.weight"} if name == "resnet18" else set())


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
