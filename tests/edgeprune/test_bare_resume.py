"""``train --resume`` without other options: what the run recorded counts."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from trained_weights import same, weights

from edgeprune_runtime.training.progress.schedule import learning_rate
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint

OPTIONS = ["--model", "resnet8", "--batch-size", 8, "--epochs", 2, "--lr", 0.02, "--ema", 0.9, "--seed", 3]
OPTIONS += ["--augment", "flip", "--device", "cpu", "--weight-decay", 0.001, "--threads", 1]


@pytest.fixture
def pack(edgeprune, npz, tmp_path):
    edgeprune("build", npz, "-o", tmp_path / "p.h5", "-q")
    return tmp_path / "p.h5"


def record(folder):
    return json.loads((folder / "config.json").read_text())


def interrupted(folder, epochs_kept=1):
    """Take a finished run back to its checkpoint after the first epoch."""
    (folder / "model.safetensors").unlink()
    newest = max(folder.glob("checkpoint-*.json"))
    for path in folder.glob(f"{newest.stem}.*"):
        path.unlink()
    assert len(load_checkpoint(folder).state["history"]) == epochs_kept


@pytest.mark.slow
def test_it_goes_on_with_what_was_recorded(edgeprune, pack, npz, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    code, _, err = edgeprune("train", pack, "-o", run, *OPTIONS, "--test", npz, "--on-corrupt", "skip")
    assert code == 0, err
    shutil.copytree(run, whole)
    interrupted(run)
    code, out, err = edgeprune("train", pack, "-o", run, "--resume")
    assert (code, err) == (0, "")
    assert "epoch   2/2" in out
    assert same(run, whole)
    assert record(run) == record(whole)
    interrupted(run)
    for name, value in (("lr", 0.1), ("augment", "none"), ("seed", 4), ("clip_norm", 2.0)):
        option = "--" + name.replace("_", "-")
        code, _, err = edgeprune("train", pack, "-o", run, "--resume", option, value)
        assert code == 2
        assert f"cannot be resumed: {name} was" in err
    assert "clip_norm was not set and is now 2.0;" in err
    other = tmp_path / "other.h5"
    assert edgeprune("build", npz, "-o", other, "--quality", 50)[0] == 0
    code, _, err = edgeprune("train", other, "-o", run, "--resume")
    assert code == 2
    assert (
        "cannot be resumed: it learned from another pack: its config quality was not set and is now 50.0;"
        in err
    )
    assert "{" not in err
    code, _, err = edgeprune("train", pack, "-o", run, "--resume", "--lr", 0.02, "--checkpoint-steps", 2)
    assert (code, err) == (0, "")
    assert same(run, whole)


def test_where_there_is_no_run_it_begins_one(edgeprune, pack, tmp_path):
    code, out, err = edgeprune("train", pack, "-o", tmp_path / "run", *OPTIONS, "--resume")
    assert (code, err) == (0, "")
    assert "epoch   1/2" in out


@pytest.mark.slow
def test_first_weights_and_a_frozen_run(edgeprune, pack, tmp_path):
    first, run = tmp_path / "first", tmp_path / "run"
    assert edgeprune("train", pack, "-o", first, *OPTIONS)[0] == 0
    weights_file = tmp_path / "w.safetensors"
    shutil.copy(first / "model.safetensors", weights_file)
    code, _, err = edgeprune("train", pack, "-o", run, *OPTIONS, "--init", weights_file, "--freeze")
    assert code == 0, err
    finished = weights(run)
    interrupted(run)
    weights_file.unlink()
    code, _, err = edgeprune("train", pack, "-o", run, "--resume")
    assert (code, err) == (0, "")
    assert all(torch.equal(value, finished[name]) for name, value in weights(run).items())


@pytest.fixture
def photos(tmp_path):
    for label in ("0", "1"):
        folder = tmp_path / "photos" / "test" / label
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (90 * number, 60, 10)).save(folder / f"{number}.png")
    (tmp_path / "photos" / "test" / "1" / "1.png").write_bytes(b"no image")
    return tmp_path / "photos"


@pytest.mark.slow
@pytest.mark.parametrize("as_pack", [False, True])
def test_a_test_set_that_moved_is_known_by_its_content(edgeprune, pack, photos, npz, tmp_path, as_pack):
    test, run, new = photos, tmp_path / "run", tmp_path / "elsewhere"
    if as_pack:
        test = tmp_path / "test.h5"
        assert edgeprune("build", npz, "--split", "test", "-o", test, "-q")[0] == 0
    kind = "" if as_pack else "imagefolder:"
    code, _, err = edgeprune("train", pack, "-o", run, *OPTIONS, "--skip-bad", "--test", f"{kind}{test}")
    assert code == 0, err
    before = record(run)
    interrupted(run)
    test.rename(new)
    code, out, err = edgeprune("train", pack, "-o", run, "--resume")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "if the test images were moved, --test takes their new place" in err
    code, _, err = edgeprune("train", pack, "-o", run, "--resume", "--test", f"{kind}{new}")
    assert code == 0, err
    assert record(run) == before
    interrupted(run)
    others = tmp_path / "others.npz"
    np.savez(others, x=np.zeros((4, 16, 16, 3), np.uint8), y=[0, 1, 0, 1])
    code, out, err = edgeprune("train", pack, "-o", run, "--resume", "--test", f"npz:{others}")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"not the test images of the run in {run}, by their SHA-256; name those with --test" in err
    small = tmp_path / "small.h5"
    assert edgeprune("build", npz, "--size", 8, "-o", small, "-q")[0] == 0
    code, out, err = edgeprune("train", small, "-o", run, "--resume", "--test", npz)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"the run in {run} learns images of 3x16x16, and the pack has 3x8x8; name its own pack" in err


@pytest.mark.slow
def test_a_run_of_before_digests_and_new_settings_goes_on(edgeprune, pack, npz, tmp_path):
    run = tmp_path / "run"
    assert edgeprune("train", pack, "-o", run, *OPTIONS, "--test", npz)[0] == 0
    interrupted(run)
    old = record(run)
    del old["provenance"]["test_sha256"]
    old["config"] = {
        name: old["config"][name]
        for name in (
            "model", "epochs", "batch_size", "accumulate", "freeze", "lr", "momentum", "nesterov",
            "weight_decay", "ema", "adversarial", "seed", "device", "precision",
        )
    }  # fmt: skip
    (run / "config.json").write_text(json.dumps(old))
    code, _, err = edgeprune("train", pack, "-o", run, "--resume")
    assert (code, err) == (0, "")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_longer_run_is_the_same_whenever_it_was_made_longer(edgeprune, pack, tmp_path):
    """A finished run, and one that had an epoch left of its first schedule, which is trained to its end."""
    one, other = tmp_path / "one", tmp_path / "other"
    assert edgeprune("train", pack, "-o", one, *OPTIONS)[0] == 0
    shutil.copytree(one, other)
    interrupted(other)
    for run in (one, other):
        code, out, err = edgeprune("train", pack, "-o", run, "--resume", "--epochs", 4)
        assert code == 0
        assert err.startswith(
            "edgeprune: epochs 3 to 4 are a new schedule: the learning rate rises to 0.02 and"
        )
        assert "epoch   4/4" in out
        assert record(run)["schedules"] == [2, 4]
    assert same(one, other)
    # Five steps an epoch.
    assert [line["lr"] for line in lines(one)] == [learning_rate(step, 10, 0.02) for step in (4, 9)] * 2
    interrupted(one, 3)
    assert edgeprune("train", pack, "-o", one, "--resume")[0] == 0
    assert same(one, other)
    code, _, err = edgeprune("train", pack, "-o", one, "--resume", "--epochs", 3)
    assert code == 2
    assert "epochs was 4 and is now 3" in err
    assert edgeprune("train", pack, "-o", one, "--resume", "--epochs", 5)[0] == 0
    assert record(one)["schedules"] == [2, 4, 5]


@pytest.mark.slow
def test_forged_schedules_are_refused(edgeprune, pack, tmp_path):
    run = tmp_path / "run"
    assert edgeprune("train", pack, "-o", run, *OPTIONS, "--epochs", 1)[0] == 0
    for ends in ([], [2, 1], [0, 1], ["1"], 1, [1, 1], [1, 2]):
        (run / "config.json").write_text(json.dumps(record(run) | {"schedules": ends}))
        code, _, err = edgeprune("train", pack, "-o", run, "--resume")
        assert (code, len(err.splitlines())) == (1, 1)
        assert "is not the record of a run" in err
