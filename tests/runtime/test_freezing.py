"""Training the last layer alone, or the last blocks."""

import signal
from dataclasses import replace

import own_networks
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from training_runs import CLASSES, SHAPE, TINY, assert_same_run, run, send

from edgeprune_formats import ConfigError
from edgeprune_runtime.networks.freezing import blocks_of, freeze, set_training
from edgeprune_runtime.networks.layers import head_of
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.training import TrainingInterrupted
from edgeprune_runtime.training.memory import step_memory
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

# Residual blocks, inverted residuals and the like, by the papers; first and last convolutions are blocks too.
BLOCKS = {
    "resnet8": 1 + 3,
    "resnet9": 1 + 3,
    "resnet20": 1 + 9,
    "resnet18": 1 + 8,
    "resnet34": 1 + 16,
    "mobilenet_v2": 1 + 17 + 1,
    "efficientnet_b0": 1 + 16 + 1,
    "shufflenet_v2": 1 + 16 + 1,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name):
    with torch.device("meta"):
        model = create_model(name, CLASSES, 32)
    blocks = blocks_of(model)
    assert len(blocks) == BLOCKS[name]
    held = [p for _, modules in blocks for m in modules for p in m.parameters()]
    head = list(head_of(model)[1].parameters())
    assert [id(p) for p in (*held, *head)] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("torchvision:squeezenet1_1", ["features.11", "features.12"]),
        ("torchvision:vgg11_bn", ["classifier.0", "classifier.3"]),
        ("torchvision:convnext_tiny", ["features.7.1", "features.7.2"]),
        ("torchvision:densenet121", ["features.transition3", "features.denseblock4"]),
        pytest.param(
            "torchvision:vit_b_16",
            ["encoder.layers.encoder_layer_10", "encoder.layers.encoder_layer_11"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_blocks_of_other_networks(name, last):
    with torch.device("meta"):
        model = create_model(name, CLASSES, 64)
    assert [block for block, _ in blocks_of(model)][-2:] == last


def test_norms_belong_to_the_block_before_them_and_the_head_to_none():
    model = own_networks.Tiny(CLASSES, 3)
    assert [(name, len(modules)) for name, modules in blocks_of(model, CLASSES)] == [
        ("first.0", 2),
        ("second.0", 2),
    ]
    wrapped = nn.Sequential(nn.Identity(), nn.ModuleDict({"body": model}))
    assert [name for name, _ in blocks_of(wrapped, CLASSES)] == ["1.body.first.0", "1.body.second.0"]


@pytest.mark.parametrize(("name", "k"), [("resnet8", 1), ("resnet8", 3), ("mobilenet_v2", 4)])
def test_what_is_frozen_gets_no_gradient_and_keeps_its_statistics(name, k):
    torch.manual_seed(0)
    model = create_model(name, CLASSES, 16)
    trained = {id(p) for _, modules in blocks_of(model)[-k:] for m in modules for p in m.parameters()}
    trained |= {id(p) for p in head_of(model)[1].parameters()}
    freeze(model, k)
    set_training(model, k)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    kept = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, _, out: kept.append((m, out.requires_grad)))
    model(torch.randn(8, *SHAPE)).square().sum().backward()
    for parameter in model.parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained)
    # Nothing is kept for a backward pass of what is frozen: that is what makes it cheaper.
    assert all(needed == (id(module.weight) in trained) for module, needed in kept)
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    changed = [not torch.equal(m.running_mean, before[f"{n}.running_mean"]) for n, m in norms]
    assert changed == [id(m.weight) in trained for _, m in norms]
    assert any(changed)
    assert not all(changed)


def test_what_a_network_holds_fixed_stays_fixed():
    model = create_model("resnet9", CLASSES, 16)
    fixed = [p for p in model.parameters() if not p.requires_grad]
    freeze(model, 2)
    assert fixed
    assert not any(p.requires_grad for p in fixed)
    assert model.group3.conv1.weight.requires_grad
    assert not model.group1.conv1.weight.requires_grad


@pytest.mark.slow
def test_less_memory_the_more_is_frozen():
    of = [
        step_memory(replace(TINY, model="resnet20", freeze=how), 10, (3, 32, 32)).image_bytes
        for how in (True, 1, 3, 6, False)
    ]
    assert of == sorted(of)
    assert len(set(of)) == 5


@pytest.mark.parametrize("how", [4, 9])
def test_more_blocks_than_there_are(tmp_path, how):
    save_file(create_model("resnet8", CLASSES, 16).state_dict(), tmp_path / "a.safetensors")
    message = f"`freeze={how}` would freeze nothing: the network has 4 blocks; give fewer"
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", replace(TINY, freeze=how), init=tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=message):
        step_memory(replace(TINY, freeze=how), CLASSES, SHAPE)
    assert not (tmp_path / "run").exists()


def test_a_network_without_a_last_layer():
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.Flatten())
    for how in (True, 1):
        with pytest.raises(ConfigError, match="does not end in one linear layer or convolution"):
            freeze(model, how)
    freeze(model, False)
    assert all(p.requires_grad for p in model.parameters())


def test_a_first_layer_that_stays_fresh_may_be_trained_but_not_frozen(tmp_path):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    weights["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"has no conv1\.weight .* `freeze` would keep it random"):
        run(tmp_path / "run", replace(TINY, freeze=3), init=tmp_path / "a.safetensors")


def test_the_last_layer_alone_is_another_run_than_one_block(tmp_path):
    save_file(create_model("resnet8", CLASSES, 16).state_dict(), tmp_path / "a.safetensors")
    config, options = replace(TINY, epochs=1, freeze=True), {"init": tmp_path / "a.safetensors"}
    run(tmp_path / "run", config, **options)
    with pytest.raises(ConfigError, match="freeze was True and is now 1; resume with the former"):
        run(tmp_path / "run", replace(config, freeze=1), resume=True, **options)


@pytest.mark.slow
def test_blocks_are_trained_and_resumed(tmp_path):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    save_file(weights, tmp_path / "a.safetensors")
    config, options = replace(TINY, freeze=1), {"init": tmp_path / "a.safetensors"}
    run(tmp_path / "whole", config, **options)
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "parts", config, on_batch=send(signal.SIGTERM, (1, 1)), **options)
    run(tmp_path / "parts", config, resume=True, **options)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    tensors = load_checkpoint(tmp_path / "whole").tensors
    changed = {
        key.partition(".")[0] for key in weights if not torch.equal(weights[key], tensors[f"model.{key}"])
    }
    assert changed == {"layer3", "fc"}


@pytest.mark.slow
def test_a_first_layer_that_would_stay_random_is_refused(tmp_path):
    save_file(create_model("resnet18", 7, 224).state_dict(), tmp_path / "a.safetensors")
    words = r"a\.safetensors: has no conv1\.weight .* `freeze` would keep it random"
    with pytest.raises(ConfigError, match=words):
        run(tmp_path / "run", replace(TINY, model="resnet18", freeze=True), init=tmp_path / "a.safetensors")
    assert not (tmp_path / "run").exists()


def test_layers_that_no_file_gives_are_not_frozen(tmp_path):
    with pytest.raises(ConfigError, match="`freeze` keeps layers as `init` gives them; give `init`"):
        run(tmp_path / "run", replace(TINY, freeze=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("model", ["mobilenet_v2", "resnet8"])
def test_only_the_head_is_trained(tmp_path, model, ema):
    weights = create_model(model, CLASSES, 16).state_dict()
    save_file(weights, tmp_path / "a.safetensors")
    config = replace(TINY, model=model, freeze=True, ema=ema)
    run(tmp_path / "run", config, init=tmp_path / "a.safetensors")
    tensors = load_checkpoint(tmp_path / "run").tensors
    head, _ = head_of(create_model(model, CLASSES, 16))
    changed = {key for key, value in weights.items() if not torch.equal(value, tensors[f"model.{key}"])}
    assert changed == {f"{head}.weight", f"{head}.bias"}
    assert {name for name in tensors if name.startswith("momentum")} == {
        f"momentum.{name}" for name in changed
    }


@pytest.mark.slow
def test_a_frozen_run_resumes(tmp_path, whole_run):
    config, init = replace(TINY, freeze=True), whole_run.run_dir / "model.safetensors"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, config, init=init)
    with pytest.raises(TrainingInterrupted):
        run(parts, config, init=init, on_batch=send(signal.SIGTERM, (1, 1)))
    run(parts, config, init=init, resume=True)
    assert_same_run(parts, whole)
