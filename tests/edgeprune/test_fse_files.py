import json
import re

import pytest
import strange_files
import torch
from photographs import photographs
from safetensors.torch import save_file
from torch import nn

from edgeprune.masks.fse_file import load_fse_net, save_fse_net
from edgeprune.masks.fse_net import FSENet
from edgeprune.masks.torch_dct import dct2
from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_runtime.errors import ArtifactError, TrainingError

RECORD = {"k": 30, "k_total": 102, "accuracy_weight": 0.05, "classifier": {"läuft": [1, None]}}


def trained_net():
    torch.manual_seed(0)
    net = FSENet(12, 20, max_inputs=100, reduction=3)
    nn.init.normal_(net.excite.weight)
    return net


@pytest.mark.parametrize("kind", strange_files.WORDS)
def test_a_file_that_is_no_fse_net_is_named_for_what_it_is(tmp_path, kind):
    path = strange_files.make(kind, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match=re.escape(f"as an FSE-Net ({strange_files.WORDS[kind]}")):
        load_fse_net(path)


def test_a_saved_network_comes_back(tmp_path):
    path = tmp_path / "fse.safetensors"
    net = trained_net()
    save_fse_net(path, net, RECORD)
    random_state = torch.get_rng_state()
    loaded, record = load_fse_net(str(path))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert record == RECORD
    assert (loaded.height, loaded.width, loaded.max_inputs, loaded.reduction) == (12, 20, 100, 3)
    spectra = dct2(photographs(2, 12, 20) / 255)
    assert torch.equal(loaded(spectra), net(spectra))
    loaded(spectra).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_equal_networks_give_equal_files(tmp_path):
    save_fse_net(tmp_path / "a", trained_net(), RECORD)
    save_fse_net(tmp_path / "b", trained_net(), dict(reversed(RECORD.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("entry", [float("nan"), object(), {1, 2}])
def test_a_record_that_json_cannot_hold_is_refused(tmp_path, entry):
    with pytest.raises(ConfigError, match="JSON"):
        save_fse_net(tmp_path / "fse", trained_net(), {"entry": entry})
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(TrainingError, match="cannot be written"):
        save_fse_net(tmp_path / "absent" / "fse", trained_net(), RECORD)


def described(**settings):
    values = {"height": 12, "width": 20, "max_inputs": 100, "reduction": 3} | settings
    return {"edgeprune": json.dumps({"fse_net": values, "record": {}})}


NET = trained_net().state_dict()
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a file of tensors"),
    "folder": lambda path: path.mkdir(),
    "cut off": lambda path: (save_fse_net(path, trained_net(), {}), path.write_bytes(path.read_bytes()[:-9])),
    "no metadata": lambda path: save_file(NET, path),
    "a classifier": lambda path: save_file(NET, path, {"edgeprune": json.dumps({"model": "resnet18"})}),
    "not JSON": lambda path: save_file(NET, path, {"edgeprune": "{"}),
    "a list": lambda path: save_file(NET, path, {"edgeprune": '["fse_net"]'}),
    "no record": lambda path: save_file(NET, path, {"edgeprune": json.dumps({"fse_net": {}})}),
    "another size": lambda path: save_file(NET, path, described(height=14)),
    "a huge size": lambda path: save_file(NET, path, described(height=10**9, width=10**9, max_inputs=10**18)),
    "a size of 0": lambda path: save_file(NET, path, described(width=0)),
    "a size in words": lambda path: save_file(NET, path, described(width="wide")),
    "a fraction": lambda path: save_file(NET, path, described(max_inputs=99.5)),
    "an unknown setting": lambda path: save_file(NET, path, described(depth=3)),
    "a tensor short": lambda path: save_file({"excite.bias": NET["excite.bias"]}, path, described()),
    "a tensor over": lambda path: save_file(NET | {"more": torch.zeros(1)}, path, described()),
    "not a number": lambda path: save_file(NET | {"excite.bias": NET["excite.bias"] / 0}, path, described()),
    "half precision": lambda path: save_file({k: v.half() for k, v in NET.items()}, path, described()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_an_fse_net_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "fse.safetensors"
    DAMAGES[damage](path)
    with pytest.raises(ArtifactError) as caught:
        load_fse_net(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "train it again" in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent: no such file; train an FSE-Net first"):
        load_fse_net(tmp_path / "absent")
    assert issubclass(ArtifactError, EdgePruneError)
