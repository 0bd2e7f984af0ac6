"""Beginning with weights of `torch.save`, of which no code is run."""

import math
import os

import pytest
import torch
from training_runs import CLASSES, run

from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.networks.warm_start import load_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "place",
    [None, "state_dict", "model_state_dict", "model", "net", "network"],
)
def test_weights_of_torch_save(tmp_path, new_format, place):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    content = {f"module.{name}": tensor for name, tensor in weights.items()}
    content = content if place is None else {"epoch": 3, "args": {"lr": 0.1}, place: content}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    model = create_model("resnet8", CLASSES, 16)
    assert load_weights(model, tmp_path / "a.pth") == ()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


class Planted:
    """What a stranger's file would have run."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


def whole_network():
    return create_model("resnet8", CLASSES, 16)


@pytest.mark.parametrize("content", [Planted, lambda: {"state_dict": Planted()}, whole_network])
@pytest.mark.parametrize("new_format", [True, False])
def test_torch_save_of_more_than_weights_is_not_opened(tmp_path, monkeypatch, content, new_format):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    with path.open("wb") as file:
        torch.save(content(), file, _use_new_zipfile_serialization=new_format)
    words = r"a\.pth: holds more than weights, which could run code and is not opened; .* torch\.save\("
    with pytest.raises(TrainingError, match=words) as caught:
        run(tmp_path / "run", init=path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "planted").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no state dict of tensors, by itself or as state_dict, model_state_dict"),
        ([torch.zeros(2)], "holds no state dict of tensors"),
        (torch.zeros(2), "holds no state dict of tensors"),
    ],
)
def test_torch_save_of_no_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(TrainingError, match=message):
        load_weights(create_model("resnet8", CLASSES, 16), tmp_path / "a.pth")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("size", [10, 300, -1000, -1])
def test_torch_save_that_was_cut(tmp_path, new_format, size):
    path = tmp_path / "a.pth"
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TrainingError, match=r"a\.pth: ") as caught:
        load_weights(create_model("resnet8", CLASSES, 16), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_torch_save_of_weights_that_are_not_finite(tmp_path, value):
    weights = create_model("resnet8", CLASSES, 16).state_dict()
    weights["fc.bias"][1] = value
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(TrainingError, match=r"a\.pth: fc\.bias holds NaN or infinity; take"):
        load_weights(create_model("resnet8", CLASSES, 16), tmp_path / "a.pth")
