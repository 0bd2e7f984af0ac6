import json

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
