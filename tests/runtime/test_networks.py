"""Networks beyond the short names: torchvision's, timm's, and those that code of the user's builds."""

import importlib
import importlib.util
import re
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import own_networks
import pytest
import torch
import torchvision
from torch import nn
from training_runs import CLASSES, SHAPE, TEST, TINY, MemoryLoader, assert_same_run, run

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks import code
from edgeprune_runtime.networks.code import allow_code
from edgeprune_runtime.networks.layers import head_of
from edgeprune_runtime.networks.models import MODEL_NAMES, create_model
from edgeprune_runtime.networks.names import ONE_STEM
from edgeprune_runtime.networks.shapes import multiplications, shaped_network, smallest_batch, stem_cost
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.onnx.check import check_export, check_structure
from edgeprune_runtime.onnx.export import export_network
from edgeprune_runtime.onnx.quantize import quantize
from edgeprune_runtime.training import TrainConfig, load_model, train
from edgeprune_runtime.training.memory import step_memory
from edgeprune_runtime.training.run_folder.description import read_description
from edgeprune_runtime.training.run_folder.results import save_model
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

pytestmark = pytest.mark.usefixtures("one_thread")
needs_timm = pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")


@pytest.fixture(autouse=True)
def nothing_allowed():
    code.forget_code()
    yield
    code.forget_code()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision:squeezenet1_1", (3, 32, 32)),
        pytest.param("torchvision:mnasnet0_5", (2, 40, 32), marks=pytest.mark.slow),
        pytest.param("torchvision:googlenet", (3, 32, 32), marks=pytest.mark.slow),
        pytest.param("torchvision:vit_b_32", (1, 64, 64), marks=pytest.mark.slow),
        # It computes with values as it is built, which the meta device does not have.
        pytest.param("torchvision:regnet_y_400mf", (5, 32, 32), marks=pytest.mark.slow),
        pytest.param("timm:resnet10t", (4, 32, 32), marks=needs_timm),
        pytest.param("timm:vit_tiny_patch16_224", (3, 48, 48), marks=[needs_timm, pytest.mark.slow]),
    ],
)
def test_networks_of_libraries(name, shape):
    state = torch.get_rng_state()
    shaped, _ = shaped_network(name, 7, shape)
    assert torch.equal(torch.get_rng_state(), state)
    model = create_model(name, 7, min(shape[1:]), shape[0])
    assert model.training
    assert model(torch.randn(2, *shape)).shape == (2, 7)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in shaped.state_dict().items()
    }
    head = head_of(model, 7)[1]
    assert 7 in (head.weight.shape[0], getattr(head, "out_features", None))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "torchvision:resnet19",
            "torchvision has no network 'resnet19' that classifies images; choose one such",
        ),
        ("torchvision:fcn_resnet50", "torchvision has no network 'fcn_resnet50' that classifies images"),
        ("torchvision:xyz", "torchvision's list_models() lists them"),
        pytest.param("timm:resnet10tt", "timm has no network 'resnet10tt'", marks=needs_timm),
        # It would be downloaded.
        pytest.param(
            "timm:hf-hub:timm/resnet18", "timm has no network 'hf-hub:timm/resnet18'", marks=needs_timm
        ),
        ("keras:resnet18x y", "unknown model 'keras:resnet18x y'"),
        ("vgg", "unknown model 'vgg'; choose one of shufflenet_v2"),
    ],
)
def test_names_that_there_are_not(name, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        create_model(name, 4, 16)


def test_timm_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm:resnet18 needs timm; pip install 'edgeprune\[timm\]'"):
        create_model("timm:resnet18", 4, 16)


@pytest.mark.first_are_quick
@pytest.mark.parametrize(
    ("name", "shape"), [("torchvision:alexnet", (3, 32, 32)), ("torchvision:inception_v3", (3, 48, 48))]
)
def test_images_that_a_network_does_not_take(tmp_path, name, shape):
    message = rf'`model="{name}"`: does not take images of 3 x {shape[1]} x {shape[1]} \(RuntimeError: '
    with pytest.raises(ConfigError, match=message):
        shaped_network(name, 4, shape)
    with pytest.raises(ConfigError, match=message):
        step_memory(TrainConfig(model=name), 4, shape)


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ("resnet8", "resnet18") else pytest.mark.slow) for n in MODEL_NAMES],
)
@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_layer_takes_other_channels(name, channels):
    torch.manual_seed(0)
    model = create_model(name, 3, 16, channels)
    assert model.eval()(torch.zeros(2, channels, 16, 16)).shape == (2, 3)
    torch.manual_seed(0)
    of_rgb = create_model(name, 3, 16)
    (first, ours), (_, theirs) = (
        next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d)) for net in (model, of_rgb)
    )
    # The variance of what comes out of it, and all other layers, are those of the network for RGB images.
    ratio = ours.weight.var().item() * channels / theirs.weight.var().item() / 3
    assert ratio == pytest.approx(1, rel=0.3)
    for key, value in model.state_dict().items():
        assert key == f"{first}.weight" or torch.equal(value, of_rgb.state_dict()[key])


@pytest.mark.parametrize("number", [0, -1])
def test_channels_below_one(number):
    with pytest.raises(ConfigError, match=f"channels is {number}"):
        create_model("resnet8", 4, 16, number)


@pytest.mark.slow
def test_stems():
    states = {
        (stem, size): create_model("resnet18", 4, size, stem=stem).conv1.kernel_size[0]
        for stem in ("auto", "small", "imagenet")
        for size in (32, 64)
    }
    assert states == {
        ("auto", 32): 3,
        ("auto", 64): 7,
        ("small", 32): 3,
        ("small", 64): 3,
        ("imagenet", 32): 7,
        ("imagenet", 64): 7,
    }
    with pytest.raises(ConfigError, match="`stem` is 'large'; it must be one of auto, imagenet, small"):
        create_model("resnet18", 4, 32, stem="large")
    for name in MODEL_NAMES:
        small, imagenet = (str(create_model(name, 4, 32, stem=stem)) for stem in ("small", "imagenet"))
        assert (small == imagenet) == (name in ONE_STEM)
    with pytest.raises(
        ConfigError, match=r"`stem` is a choice of shufflenet_v2.*; leave it out for torchvision:"
    ):
        create_model("torchvision:resnet18", 4, 32, stem="small")


@pytest.mark.slow
def test_what_a_stem_costs():
    # Counted by hand: 3x3 convolutions of resnet8 at 8x8, 4x4 and 2x2 pixels, and the shortcuts and the head.
    first = 64 * 9 * 3 * 16
    stages = [64 * 9 * (16 * 16 * 2), 16 * 9 * (16 * 32 + 32 * 32), 4 * 9 * (32 * 64 + 64 * 64)]
    rest = 16 * 16 * 32 + 4 * 32 * 64 + 64 * 2
    assert multiplications("resnet8", (3, 8, 8)) == first + sum(stages) + rest
    assert stem_cost("resnet8", (3, 8, 8)) == stem_cost("torchvision:resnet18", (3, 8, 8)) == 1
    # All but the first layers see 16 times as many pixels.
    assert 9 < stem_cost("mobilenet_v2", (3, 64, 64)) < 16


@pytest.mark.slow
def test_a_stem_is_kept_with_the_network(tmp_path):
    config = replace(TINY, model="resnet18", epochs=1, ema=None, stem="imagenet")
    run(tmp_path, config, test=None)
    assert load_model(tmp_path).conv1.kernel_size == (7, 7)
    with pytest.raises(ConfigError, match="stem was 'imagenet' and is now 'auto'"):
        run(tmp_path, replace(config, stem="auto"), test=None, resume=True)


def test_code_runs_only_where_it_is_named():
    name = "own_networks:tiny"
    own_networks.CALLS.clear()
    with pytest.raises(ConfigError, match=f"code, {name}, which runs only where you name it; .*trust_model="):
        create_model(name, 4, 16)
    assert not own_networks.CALLS
    assert allow_code(name) == name
    assert create_model(name, 4, 16, 2).first[0].in_channels == 2
    assert own_networks.CALLS == [(4, 2)]


def test_what_a_function_is_called_with():
    for function in ("of_rgb", "by_name", "counting"):
        allow_code(f"own_networks:{function}")
        model = create_model(f"own_networks:{function}", 5, 16, 2)
        assert model.eval()(torch.zeros(1, 2, 16, 16)).shape == (1, 5)
    assert model.image_size == 16
    allow_code("torchvision.models:resnet18")
    assert create_model("torchvision.models:resnet18", 5, 16).fc.out_features == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.nets:tiny", "there is no module nowhere; install it, or run in the folder that holds it"),
        ("own_networks.nets:tiny", "there is no module own_networks.nets; install it"),
        ("needs_other:tiny", "importing needs_other needs the module nowhere_else; install it"),
        ("fails:tiny", "importing fails raised ZeroDivisionError: division by zero"),
        ("own_networks:small", "own_networks has no small"),
        ("own_networks:number", "it is of type int; name a function that builds a network"),
        ("own_networks:raises", "building it raised ValueError: no weights for you"),
        ("own_networks:text", "gives str, not a torch.nn.Module"),
        ("own_networks:thousand", "gives [n, 1000], not logits [n, 4]"),
        ("own_networks:pair", "gives tuple, not logits [n, 4]"),
        ("own_networks:empty", "has no weights to train"),
    ],
)
def test_code_that_builds_no_network(tmp_path, monkeypatch, name, message):
    (tmp_path / "needs_other.py").write_text("import nowhere_else\n")
    (tmp_path / "fails.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(f'`model="{name}"`: {message}')) as caught:
        run(tmp_path / "run", model=name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_module_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "nets_of_here.py").write_text("from own_networks import of_rgb\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    allow_code("nets_of_here:of_rgb")
    assert create_model("nets_of_here:of_rgb", 4, 16)(torch.zeros(2, *SHAPE)).shape == (2, 4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "`model` is a network; pass the function that builds it"),
        (3, "`model` is int; pass a name, or a function"),
        ("vgg", "unknown model 'vgg'"),
    ],
)
def test_no_function(tmp_path, model, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", model=model)


@pytest.mark.first_are_quick
@pytest.mark.parametrize("model", [own_networks.tiny, partial(own_networks.Tiny, channels=3)])
def test_a_function_trains_resumes_and_is_loaded(tmp_path, model):
    config = replace(TINY, epochs=1)
    run(tmp_path / "whole", replace(config, epochs=2), model=model)
    run(tmp_path / "run", replace(config, epochs=2), model=model, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    name = read_description(tmp_path / "run")["config"]["model"]
    assert name == f"own_networks:{'tiny' if model is own_networks.tiny else 'Tiny'}"
    # As in another process, which has not named it.
    code.forget_code()
    with pytest.raises(
        ConfigError, match=f"model.safetensors: the network is built by code, {name}, which runs"
    ):
        load_trained(tmp_path / "run")
    loaded = load_trained(tmp_path / "run", trust_model=model)
    assert (loaded.name, loaded.num_classes, loaded.image_shape) == (name, CLASSES, SHAPE)
    with pytest.raises(ConfigError, match="already holds a run"):
        run(tmp_path / "run", config, model=model)


@pytest.mark.parametrize("model", [own_networks.valued, own_networks.Tied])
def test_networks_that_need_values_or_share_tensors(tmp_path, model):
    config = replace(TINY, epochs=1)
    assert step_memory(replace(config, model=allow_code(model)), CLASSES, SHAPE).image_bytes > 0
    run(tmp_path, config, model=model)
    images = TEST[0][0]
    assert load_model(tmp_path)(images).isfinite().all()


def test_planes_train(tmp_path):
    class Planes(MemoryLoader):
        def __iter__(self):
            return ((images[:, [0, 1, 2, 0, 1]], labels) for images, labels in super().__iter__())

    train(
        Planes(batch_size=8),
        replace(TINY, epochs=1),
        tmp_path,
        num_classes=CLASSES,
        image_shape=(5, *SHAPE[1:]),
    )
    assert load_trained(tmp_path).image_shape == (5, *SHAPE[1:])
    assert load_model(tmp_path).conv1.in_channels == 5
    with pytest.raises(ConfigError, match="the networks take 1 to 32 channels"):
        train(MemoryLoader(), TINY, tmp_path / "b", num_classes=CLASSES, image_shape=(33, 16, 16))


@pytest.mark.slow
def test_a_network_of_code_is_exported_and_quantized(tmp_path):
    name, shape = allow_code(own_networks.tiny), (1, 16, 16)
    record = {
        "config": {"model": name},
        "num_classes": CLASSES,
        "image_shape": list(shape),
        "provenance": {"mean": [0.5], "std": [0.2]},
    }
    save_model(tmp_path, create_model(name, CLASSES, 16, 1), record)
    network = open_run_network(tmp_path)
    model, images = export_network(network), np.random.default_rng(0).random((5, *shape), np.float32)
    assert check_export(model, network, images).difference < 1e-5
    check_structure(quantize(model, lambda: [images]))


def test_the_smallest_batch_of_any_network():
    assert smallest_batch("torchvision:squeezenet1_1", (3, 32, 32)) == 1
    assert smallest_batch("torchvision:resnet18", (3, 32, 32)) == 2
    allow_code(own_networks.valued)
    assert smallest_batch("own_networks:valued", (3, 8, 8)) == 1
    assert smallest_batch("own_networks:valued", (3, 1, 1)) == 2


def test_a_file_that_names_a_large_network_is_refused_before_it_is_built(tmp_path, monkeypatch):
    run(tmp_path, replace(TINY, epochs=1, ema=None), test=None, model=own_networks.tiny)
    built = []
    monkeypatch.setattr(
        torchvision.models,
        "get_model",
        lambda *a, **k: built.append(torch.zeros(1).device.type) or nn.Linear(2, 2),
    )
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b"own_networks:tiny", b"torchvision:vgg11"))
    with pytest.raises(TrainingError, match="not a model of a run, or damaged"):
        load_trained(tmp_path)
    assert built == ["meta"]
