import json

import numpy as np
import pytest


@pytest.mark.slow
def test_a_profile_adds_up(edgeprune, pack):
    options = ["--model", "resnet8", "--batch-size", 8, "--device", "cpu", "--steps", 3, "--ema", 0.9]
    code, out, err = edgeprune("profile", pack, *options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["step"] == pytest.approx(sum(found["phases"].values()))
    assert list(found["phases"]) == [
        "wait for the batch", "to the device", "forward", "backward", "optimizer", "average"
    ]  # fmt: skip
    assert (found["images"], found["steps"], len(found["operators"])) == (8, 3, 8)
    seconds = [operator["seconds"] for operator in found["operators"]]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(seconds) > 0
    assert any("convolution" in operator["name"] for operator in found["operators"])
    code, out, _ = edgeprune("profile", pack, *options)
    assert code == 0
    assert out.startswith("resnet8, cpu, ")
    assert "step on a batch that is ready" in out
    code, _, err = edgeprune("profile", pack, *options, "--memory", "1KB")
    assert code == 2
    assert "raise --memory, or lower --batch-size" in err
    code, _, err = edgeprune("profile", pack, *options, "--threads", 99999)
    assert code == 2
    assert "--threads" in err
    code, _, err = edgeprune("profile", pack, *options, "--steps", 0)
    assert (code, err) == (2, "edgeprune: error: cannot measure 0 steps and list 8 operators\n")


@pytest.mark.parametrize("target", ["size", "tags"])
def test_a_profile_of_another_target_and_of_images_without_classes(edgeprune, tmp_path, target):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    columns = {"size": random.normal(size=(12, 2)), "tags": random.integers(0, 2, (12, 3))}
    np.savez(tmp_path / "s.npz", x_train=images, **{f"{name}_train": one for name, one in columns.items()})
    options = ["--target", "size:value", "--target", "tags:multilabel", "-o", tmp_path / "p.h5", "-q"]
    assert edgeprune("build", f"npz:{tmp_path / 's.npz'}", *options)[0] == 0
    options = ["--model", "resnet8", "--batch-size", 4, "--steps", 1, "--operators", 0, "--json"]
    code, out, err = edgeprune("profile", tmp_path / "p.h5", "--target", target, *options)
    assert (code, err) == (0, "")
    assert json.loads(out)["target"] == target
    code, _, err = edgeprune("profile", tmp_path / "p.h5", *options)
    assert code == 2
    assert "has no target 'label'; those it has: " in err
