"""Training on the command line, from the start or after an interruption."""

import json
import signal

import forked
import numpy as np
import pytest

# The paper's layout, in place of the default.
SPARSE = ("--codec", "sparse-f32")


@pytest.mark.slow
def test_a_test_set_with_other_classes_is_refused(edgeprune, npz, tmp_path):
    edgeprune("build", *SPARSE, npz, "-o", tmp_path / "p.h5", "-q")
    images = np.zeros((3, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "other.npz", x=images, y=[0, 1, 2])
    arguments = [
        "train",
        tmp_path / "p.h5",
        "-o",
        tmp_path / "run",
        "--test",
        f"npz:{tmp_path / 'other.npz'}",
    ]
    code, _, err = edgeprune(*arguments)
    assert code == 2
    assert "classes that the training pack lacks: 2" in err


@pytest.mark.slow
def test_training_writes_a_run_and_tests_on_pack_or_source_alike(edgeprune, npz, tmp_path):
    train, test = tmp_path / "p.h5", tmp_path / "t.h5"
    edgeprune("build", *SPARSE, npz, "--freq-prune", 0, "-o", train, "-q")
    edgeprune("build", *SPARSE, npz, "--freq-prune", 0, "--split", "test", "-o", test, "-q")
    losses = []
    for name, tested in (("a", test), ("b", npz)):
        options = ["--model", "resnet8", "--epochs", 2, "--batch-size", 8, "--device", "cpu"]
        code, out, err = edgeprune("train", train, *options, "--test", tested, "-o", tmp_path / name)
        assert code == 0, err
        assert out.splitlines()[-1].startswith(f"{tmp_path / name / 'model.safetensors'}: resnet8, 2 epochs")
        metrics = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [m["epoch"] for m in metrics] == [1, 2]
        losses.append([m["test_loss"] for m in metrics])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_training_says_how_to_go_on_and_does(npz, tmp_path, edgeprune, number, status):
    pack, run = tmp_path / "p.h5", tmp_path / "run"
    edgeprune("build", *SPARSE, npz, "-o", pack, "-q")
    options = ["--model", "resnet8", "--epochs", "400", "--batch-size", "8", "--device", "cpu"]
    with forked.command("train", pack, "-o", run, *options) as process:
        # The checkpoint of an epoch is there before its line.
        assert process.stdout.readline().startswith("cpu; ")
        assert process.stdout.readline().startswith("epoch ")
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status
    # What was asked for is no error.
    assert err.startswith(f"edgeprune: {run}: interrupted after step ")
    assert err.endswith("; go on with --resume\n")
    assert len(err.splitlines()) == 1
    code, _, err = edgeprune("train", pack, "-o", run, *options)
    assert code == 2
    assert "--resume" in err


@pytest.mark.slow
def test_a_training_killed_by_kill_9_resumes_to_the_same_weights(npz, tmp_path, edgeprune):
    pack = tmp_path / "p.h5"
    edgeprune("build", *SPARSE, npz, "-o", pack, "-q")
    options = ["--model", "resnet8", "--epochs", "9", "--batch-size", "8"]
    # Images become larger between the two kills.
    options += ["--device", "cpu", "--ema", "0.9", "--resolution-schedule", "8:1,12:2"]
    for epochs in (1, 4):
        with forked.command("train", pack, *options, "-o", tmp_path / "killed", "--resume") as process:
            if epochs == 1:
                assert "nothing to resume; begins resnet8, 9 epochs" in process.stdout.readline()
            assert process.stdout.readline().startswith("cpu; 1 thread; ")
            for _ in range(epochs):
                assert process.stdout.readline().startswith("epoch ")
            process.kill()
        assert process.returncode == -signal.SIGKILL
    for name in ("killed", "whole"):
        assert edgeprune("train", pack, *options, "-o", tmp_path / name, "--resume")[0] == 0
    killed, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert killed == whole
    epochs = [
        json.loads(line)["epoch"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    ]
    assert epochs == list(range(1, 10))


@pytest.mark.slow
def test_train_mixes_packs_and_resumes_with_the_same_only(edgeprune, npz, tmp_path):
    for name, options in (("a", ["--freq-prune", 0.5]), ("b", ["--codec", "quantized"])):
        assert edgeprune("build", *SPARSE, npz, "-q", *options, "-o", tmp_path / f"{name}.h5")[0] == 0
    one, two, run = tmp_path / "a.h5", tmp_path / "b.h5", tmp_path / "run"
    options = ["--model", "resnet8", "--epochs", 1, "--batch-size", 16, "--device", "cpu", "-o", run]
    code, out, err = edgeprune("train", one, two, *options, "--test", npz)
    assert code == 0, err
    assert out.splitlines()[1].startswith("epoch   1/1  train loss ")
    record = json.loads((run / "config.json").read_text())
    assert record["provenance"]["pack packs"] == ["a.h5, 40 images", "b.h5, 40 images"]
    assert edgeprune("train", one, two, *options, "--test", npz, "--resume")[0] == 0
    code, _, err = edgeprune("train", one, *options, "--test", npz, "--resume")
    assert code == 2
    assert err.startswith("edgeprune: error: ")
    assert len(err.splitlines()) == 1


def test_train_names_packs_that_do_not_mix(edgeprune, npz, make_pack, tmp_path):
    assert edgeprune("build", *SPARSE, npz, "-q", "-o", tmp_path / "a.h5")[0] == 0
    other, _ = make_pack("b.h5", samples=9)
    code, _, err = edgeprune("train", tmp_path / "a.h5", other, "-o", tmp_path / "run")
    assert code == 2
    assert f"{other}: images of 32x32, and those of {tmp_path / 'a.h5'} are 16x16" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_damaged_network_names_resume_which_makes_it_again(train, edgeprune, pack, tmp_path):
    code, _, err, run = train("run", "--epochs", 1)
    assert code == 0, err
    model = run / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-7])
    export = ["export", run, "-o", tmp_path / "m.onnx"]
    for words in (["predict", run, pack], ["evaluate", run, pack], export):
        code, _, err = edgeprune(*words)
        assert (code, len(err.splitlines())) == (1, 1)
        assert err.startswith(f"edgeprune: error: {model}: not a model of a run, or damaged (")
        assert err.endswith("; train with --resume to make it again from the checkpoint beside it\n")
    code, _, err = edgeprune("train", pack, "-o", run, "--resume")
    assert (code, len(err.splitlines())) == (0, 1)
    assert err.startswith(f"edgeprune: {model} is damaged (")
    assert err.endswith("); made again from the checkpoint\n")
    assert model.read_bytes() == whole
