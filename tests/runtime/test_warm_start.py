import json
import math
import re
import signal
from dataclasses import replace
from importlib.util import find_spec

import own_networks
import pytest
import strange_files
import torch
import torchvision
from safetensors.torch import load_file, save, save_file
from training_runs import CLASSES, SHAPE, TINY, assert_same_run, run, send

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.input_files import input_problem
from edgeprune_runtime.networks.models import MODEL_NAMES, create_model, head_of
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.networks.warm_start import load_weights
from edgeprune_runtime.training import TrainingInterrupted, load_model

pytestmark = pytest.mark.usefixtures("one_thread")

TORCHVISION = {
    "shufflenet_v2": torchvision.models.shufflenet_v2_x1_0,
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "resnet18": torchvision.models.resnet18,
}


@pytest.mark.first_are_quick
@pytest.mark.parametrize("name", TORCHVISION)
def test_weights_of_imagenet_shape_but_for_head_and_stem(tmp_path, name):
    original = TORCHVISION[name](weights=None).state_dict()
    # As files of old versions of torch, which do not count batches.
    given = {key: value for key, value in original.items() if not key.endswith("num_batches_tracked")}
    save_file(given, tmp_path / "imagenet.safetensors")
    model = create_model(name, CLASSES, 16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fresh = load_weights(model, tmp_path / "imagenet.safetensors")
    head, _ = head_of(model)
    assert set(fresh) == {f"{head}.weight", f"{head}.bias"} | (
        {"conv1.weight"} if name == "resnet18" else set()
    )
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in fresh else original[key]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_weights_of_the_same_classes_are_taken_whole(tmp_path, name):
    save_file(create_model(name, CLASSES, 16).state_dict(), tmp_path / "own.safetensors")
    model = create_model(name, CLASSES, 16)
    assert load_weights(model, tmp_path / "own.safetensors") == ()
    given = load_file(tmp_path / "own.safetensors")
    assert all(torch.equal(value, given[key]) for key, value in model.state_dict().items())


def test_weights_of_another_network(tmp_path):
    save_file(create_model("resnet8", CLASSES, 16).state_dict(), tmp_path / "a.safetensors")
    for name in ("resnet20", "mobilenet_v2"):
        with pytest.raises(ConfigError, match=r"a\.safetensors: .* so it is of another network; choose"):
            load_weights(create_model(name, CLASSES, 16), tmp_path / "a.safetensors")
    wide = torchvision.models.mobilenet_v2(weights=None, width_mult=1.4).state_dict()
    save_file(wide, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"is \(.*\), not \(.*\), so it is of another network"):
        load_weights(create_model("mobilenet_v2", CLASSES, 16), tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"{}", bytes(100)])
def test_weights_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "a.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.safetensors: "):
        run(tmp_path / "run", init=path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", strange_files.WORDS)
def test_weights_that_are_none_are_named_for_what_they_are(tmp_path, kind):
    path = strange_files.make(kind, tmp_path / "a.safetensors")
    # Weights to begin with may be a file of torch.save; a run's network may not.
    begin = [] if "pickle" in kind else [lambda: run(tmp_path / "run", init=path)]
    for load in (*begin, lambda: load_trained(path)):
        with pytest.raises(TrainingError, match=re.escape(strange_files.WORDS[kind])) as caught:
            load()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["resnet8", "torchvision:squeezenet1_1"])
def test_a_first_layer_of_rgb_weights_is_made_for_the_planes(tmp_path, name, channels):
    given = create_model(name, CLASSES, 32)
    torch.save(given.state_dict(), tmp_path / "a.pth")
    model = create_model(name, CLASSES, 32, channels)
    told = []
    assert load_weights(model, tmp_path / "a.pth", tell=told.append) == ()
    first, conv = next((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d))
    rgb = given.get_submodule(first).weight
    if channels == 1:
        assert told == [f"{first}.weight of these weights is for RGB images: summed for one channel"]
        gray = torch.randn(2, 1, 32, 32)
        torch.testing.assert_close(model.eval()(gray), given.eval()(gray.expand(2, 3, 32, 32)))
    else:
        ending = f"repeated for {channels} channels, scaled by 3/{channels}"
        assert told == [f"{first}.weight of these weights is for RGB images: {ending}"]
        for plane in range(channels):
            torch.testing.assert_close(conv.weight[:, plane], rgb[:, plane % 3] * 3 / channels)


def test_a_first_layer_for_other_planes_stays_fresh(tmp_path):
    torch.save(create_model("resnet8", CLASSES, 16, 4).state_dict(), tmp_path / "a.pth")
    assert load_weights(create_model("resnet8", CLASSES, 16, 4), tmp_path / "a.pth") == ()
    for channels in (1, 3, 5):
        fresh = load_weights(create_model("resnet8", CLASSES, 16, channels), tmp_path / "a.pth")
        assert fresh == ("conv1.weight",)


@pytest.mark.first_are_quick
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("torchvision:squeezenet1_1", "classifier.1"),
        pytest.param(
            "timm:resnet10t", "fc", marks=pytest.mark.skipif(not find_spec("timm"), reason="no timm")
        ),
    ],
)
def test_weights_of_libraries_with_other_classes(tmp_path, name, head):
    save_file(create_model(name, 9, 32).state_dict(), tmp_path / "a.safetensors")
    model = create_model(name, CLASSES, 32)
    assert set(load_weights(model, tmp_path / "a.safetensors", CLASSES)) == {f"{head}.weight", f"{head}.bias"}


def test_a_head_that_is_not_the_last_layer_held(tmp_path):
    save_file(own_networks.Tiny(9, 3).state_dict(), tmp_path / "a.safetensors")
    model = own_networks.Tiny(CLASSES, 3)
    assert load_weights(model, tmp_path / "a.safetensors", CLASSES) == ("head.weight", "head.bias")


def test_a_folder_in_the_place_of_weights(tmp_path):
    with pytest.raises(TrainingError, match="not a regular file, but a folder; name a file in it"):
        run(tmp_path / "run", init=tmp_path)


def test_a_header_whose_length_looks_like_a_pickle_is_none(tmp_path):
    for size in (0x0280, 0x0480, 0x4B50):
        path = tmp_path / f"{size}.safetensors"
        tensors = {"a": torch.zeros(1)}
        bare = len(save(tensors, {"pad": ""})) - 4 - 8
        path.write_bytes(save(tensors, {"pad": "x" * (size - bare)}))
        assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK")
        assert input_problem(path) is None


PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.module.model.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_names_that_wrappers_have_prefixed(tmp_path, prefix):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    extra = {"criterion.weight": torch.ones(3), "n_averaged": torch.tensor(4)}
    save_file({prefix + name: tensor for name, tensor in weights.items()} | extra, tmp_path / "a.safetensors")
    model = create_model("resnet8", CLASSES, 16)
    assert load_weights(model, tmp_path / "a.safetensors") == ()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_names_that_some_wrappers_have_prefixed_within(tmp_path):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    given = {name.replace("layer2.", "layer2._orig_mod."): tensor for name, tensor in weights.items()}
    save_file(given, tmp_path / "a.safetensors")
    model = create_model("resnet8", CLASSES, 16)
    assert load_weights(model, tmp_path / "a.safetensors") == ()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_weights_of_two_networks_in_a_file(tmp_path):
    student, teacher = (create_model("resnet8", CLASSES, 16).state_dict() for _ in range(2))
    module = {f"module.{name}": tensor for name, tensor in teacher.items()}
    save_file(module | {f"model.{name}": t for name, t in student.items()}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=r"model\.fc\.bias and module\.fc\.bias are of two networks"):
        load_weights(create_model("resnet8", CLASSES, 16), tmp_path / "a.safetensors")
    save_file(module | student, tmp_path / "a.safetensors")
    model = create_model("resnet8", CLASSES, 16)
    load_weights(model, tmp_path / "a.safetensors")
    assert torch.equal(model.fc.weight, student["fc.weight"])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision(tmp_path, kind):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    given = {name: t.to(kind) if t.is_floating_point() else t for name, t in weights.items()}
    save_file(given, tmp_path / "a.safetensors")
    model = create_model("resnet8", CLASSES, 16)
    load_weights(model, tmp_path / "a.safetensors")
    for name, value in model.state_dict().items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, given[name].to(value.dtype))


@pytest.mark.first_are_quick(3)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["conv1.weight", "layer3.0.bn1.running_var", "fc.bias"])
def test_weights_that_are_not_finite(tmp_path, name, value):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    weights[name].view(-1)[-1] = value
    facts = {"model": "resnet8", "num_classes": CLASSES, "image_shape": list(SHAPE)}
    save_file(weights, tmp_path / "model.safetensors", {"edgeprune": json.dumps(facts)})
    with pytest.raises(TrainingError, match=rf"model\.safetensors: {name} holds NaN or infinity; take"):
        run(tmp_path / "run", replace(TINY, model="resnet8"), init=tmp_path / "model.safetensors")
    assert not (tmp_path / "run").exists()
    with pytest.raises(TrainingError, match=rf"{name} has values that are not finite"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["conv1.weight", "fc.bias", "bn1.num_batches_tracked"])
def test_weights_of_another_type(tmp_path, name):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    kind = torch.int8 if weights[name].is_floating_point() else torch.float32
    save_file(weights | {name: weights[name].to(kind)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=f"{name} is of type (int8|float32); give weights as they"):
        load_weights(create_model("resnet8", CLASSES, 16), tmp_path / "a.safetensors")


@pytest.fixture
def init(whole_run):
    return whole_run.run_dir / "model.safetensors"


@pytest.mark.slow
def test_a_run_that_begins_with_weights(tmp_path, init, whole_run):
    events = []
    config = replace(TINY, seed=5, lr=1e-12, epochs=1, ema=None)
    run(tmp_path, config, init=init, on_event=events.append)
    assert [event["fresh"] for event in events if event["event"] == "init"] == [()]
    began, ended = load_model(whole_run.run_dir), load_model(tmp_path)
    for (name, before), after in zip(began.named_parameters(), ended.parameters(), strict=True):
        torch.testing.assert_close(after, before, msg=name)


@pytest.mark.slow
def test_a_run_that_begins_with_weights_resumes(tmp_path, init):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, init=init)
    with pytest.raises(TrainingInterrupted):
        run(parts, init=init, on_batch=send(signal.SIGTERM, (1, 1)))
    other = tmp_path / "other.safetensors"
    save_file(create_model("resnet8", CLASSES, 16).state_dict(), other)
    with pytest.raises(ConfigError, match=r"init was '[0-9a-f]{64}' and is now '[0-9a-f]{64}'"):
        run(parts, resume=True, init=other)
    # The first step alone needs the weights.
    run(parts, resume=True)
    run(parts, resume=True, init=init)
    assert_same_run(parts, whole)
