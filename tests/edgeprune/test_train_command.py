import json

import numpy as np
import pytest
import torch
from PIL import Image
from trained_weights import NETWORK, config, same, weights

from edgeprune.training import reports as training_reports
from edgeprune.training.evaluation import TestImages
from edgeprune_runtime.training.progress.lines import step_line
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint


def test_it_says_with_what_it_computes(train):
    code, out, err, folder = train("a", "--epochs", 1, "--memory", "20MB", "--threads", 1)
    assert (code, err) == (0, "")
    assert out.startswith(
        "cpu; 1 thread; float32, channels_last; batches of 8, 5 steps an epoch; at most 20.00 MB for "
        "loaders, 2 batches"
    )
    assert config(folder)["notes"] == {"memory_bytes": 20_000_000, "threads": 1, "on_corrupt": "fail"}
    assert config(folder)["provenance"]["class_names"] == ["0", "1"]


@pytest.mark.slow
def test_smaller_images_in_the_first_epochs_are_for_the_whole_run(train):
    code, out, err, folder = train("a", "--epochs", 2, "--resolution-schedule", "8:1", "--resume")
    assert (code, err) == (0, "")
    assert f"{folder}: nothing to resume; begins " in out
    assert "; batches of 8, 5 steps an epoch; sizes 8:1, then full; " in out
    assert config(folder)["config"]["resolution_schedule"] == "8:1"
    code, out, _, _ = train("a", "--resume")
    assert (code, "nothing to resume" in out) == (0, False)
    code, out, err, _ = train("a", "--resume", "--resolution-schedule", "8:2")
    assert (code, out.count("\n")) == (2, 0)
    assert "resolution_schedule was '8:1' and is now '8:2'; resume with the former" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "1kB"], "0 MB of memory are too little: batches of 8 images and the chunks"),
        (["--skip-bad"], "--skip-bad has no effect without --test; leave it out"),
        (["--memory", "much"], "Invalid value for '--memory': 'much' is no size"),
        (["--batch-size", "many"], "Invalid value for '--batch-size': 'many' is neither a number nor auto"),
        (["--batch-size", "0"], "--batch-size is 0; it must be at least 1"),
        (["--batch-size", "auto", "--accumulate", "2"], "--batch-size auto chooses --accumulate"),
        (["--accumulate", "5"], "--accumulate is 5; it leaves parts of one image of 8"),
        (
            ["--checkpoint-minutes", "0"],
            "the time between two checkpoints must be positive; raise --checkpoint-minutes",
        ),
        (
            ["--checkpoint-steps", "-1"],
            "the steps between two checkpoints must be positive; raise --checkpoint-steps",
        ),
        (["--threads", "0"], "Invalid value for '--threads'"),
        (["--init", "nowhere.safetensors"], "Invalid value for '--init'"),
        (["--adversarial", "fgsm"], "no adversary fgsm:8; choose one of n-fgsm, pgd, with a budget"),
        (["--adversarial", "pgd:8/255"], "the budget of 'pgd:8/255' is not a number"),
        (["--teacher", "nowhere"], "Invalid value for '--teacher'"),
        (["--resolution-schedule", "8"], "--resolution-schedule is '8'; it is SIZE:EPOCHS, or several"),
        (["--resolution-schedule", "8:31"], "--resolution-schedule has 31 epochs, and --epochs is 30; give"),
        (["--resolution-schedule", "24:1"], "--resolution-schedule has 24x24, and images have 16x16 pixels"),
        (
            ["--resolution-schedule", "8:1", "--teacher", "."],
            "and --resolution-schedule has smaller ones",
        ),
    ],
)
def test_options_that_make_no_sense(train, options, message):
    code, out, err, folder = train("a", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not folder.exists()


@pytest.mark.slow
def test_perturbed_images_and_a_teacher(train, tmp_path):
    code, out, err, teacher = train("a", "--epochs", 1, "--adversarial", "pgd:4")
    assert (code, err) == (0, "")
    assert "batches of 8, 5 steps an epoch; perturbed by pgd:4; " in out
    assert config(teacher)["config"]["adversarial"] == "pgd:4"
    code, _, err, folder = train("b", "--epochs", 1, "--adversarial", "n-fgsm", "--teacher", teacher)
    assert (code, err) == (0, "")
    assert len(config(folder)["teacher"]) == 64
    assert not same(folder, train("c", "--epochs", 1, "--adversarial", "n-fgsm")[3])
    (tmp_path / "empty").mkdir()
    code, _, err, _ = train("e", "--teacher", teacher, "--distill", 0.5)
    assert (code, "--distill has its answers from the pack; leave one out" in err) == (2, True)
    code, _, err, folder = train("d", "--teacher", tmp_path / "empty")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "empty holds no trained model; name the folder of a run of edgeprune train" in err
    assert not folder.exists()


@pytest.mark.slow
def test_a_warm_start_and_the_head_alone(train):
    code, _, _, first = train("a", "--epochs", 1)
    assert code == 0
    code, _, err, second = train("b", "--epochs", 1, "--init", first / "model.safetensors", "--freeze")
    assert code == 0, err
    changed = {
        name for name, value in weights(first).items() if not torch.equal(value, weights(second)[name])
    }
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.slow
def test_weights_that_do_not_fit_leave_no_folder(train, tmp_path):
    _, _, _, first = train("a", "--epochs", 1)
    other = [*NETWORK, "--model", "resnet20"]
    code, _, err, folder = train("b", "--init", first / "model.safetensors", network=other)
    assert code == 2
    assert "so it is of another network; choose the --model that it is of" in err
    assert not folder.exists()


@pytest.mark.slow
def test_an_empty_name_is_not_the_current_folder(edgeprune, pack, tmp_path, monkeypatch):
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    code, out, err = edgeprune("train", pack, *NETWORK, "-o", "")
    assert (code, out) == (2, "")
    assert "Invalid value for '-o' / '--output': the name is empty; name what is to be written" in err
    assert not list(here.iterdir())


def test_a_damaged_pack_leaves_no_folder_behind(edgeprune, pack, tmp_path):
    content = bytearray(pack.read_bytes())
    # In the middle of the values, the largest dataset.
    for place in range(len(content) // 3, len(content) - 4096, 4096):
        content[place] ^= 0xFF
    pack.write_bytes(content)
    code, _, err = edgeprune("train", pack, *NETWORK, "-o", tmp_path / "run")
    assert code == 1
    assert err.splitlines()[-1].startswith("edgeprune: error: ")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def photos(tmp_path):
    """A folder of test images for the pack, one of which is none."""
    for label in ("0", "1"):
        folder = tmp_path / "photos" / "test" / label
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (90 * number, 60, 10)).save(folder / f"{number}.png")
    (tmp_path / "photos" / "test" / "1" / "1.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_a_bad_test_image_is_named_before_training(train, photos):
    code, out, err, folder = train("a", "--epochs", 1, "--test", f"imagefolder:{photos}")
    assert (code, out) == (1, "")
    assert err.startswith(f"edgeprune: error: {photos / 'test' / '1' / '1.png'}: is not an image")
    assert err.endswith("pass --skip-bad to leave such test images out\n")
    assert not folder.exists()


@pytest.mark.first_are_quick
@pytest.mark.parametrize("is_kept", [True, False])
def test_bad_test_images_are_left_out_where_asked(train, photos, is_kept, monkeypatch):
    if not is_kept:
        batches = TestImages.batches
        monkeypatch.setattr(TestImages, "batches", lambda self, size, _, ahead: batches(self, size, 1, ahead))
    options = ["--epochs", 1, "--test", f"imagefolder:{photos}", "--skip-bad"]
    code, _, err, folder = train("a", *options)
    assert code == 0, err
    assert err.startswith(f"warning: skipped {photos / 'test' / '1' / '1.png'}: is not an image")
    assert config(folder)["provenance"]["test_images_skipped"] == 1
    (last,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert last["test_accuracy"] * 5 == pytest.approx(round(last["test_accuracy"] * 5))


@pytest.mark.parametrize("kind", ["source", "pack"])
def test_it_warns_where_the_test_images_are_those_of_the_pack(edgeprune, photos, tmp_path, kind):
    (photos / "test" / "1" / "1.png").unlink()
    flat, pack = f"imagefolder:{photos / 'test'}", tmp_path / "flat.h5"
    assert edgeprune("build", flat, "--codec", "sparse-f16", "-o", pack)[0] == 0
    test = flat if kind == "source" else pack
    options = ["--test", test, "--epochs", 1, "--batch-size", 2, "-o", tmp_path / "run"]
    code, _, err = edgeprune("train", pack, *NETWORK[:2], *options)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(f"warning: {test}: has images that the pack was built from; accuracy on them ")


def test_a_trained_network_without_its_checkpoints_is_not_trained_anew(train):
    _, _, _, folder = train("a", "--epochs", 1)
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err, _ = train("a", "--epochs", 2, "--resume")
    assert (code, "nothing to resume" in out) == (2, False)
    assert err.startswith(
        f"edgeprune: error: {folder} holds a trained network, and no checkpoint to go on from; "
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("test.h5", "a pack, such as one of: edgeprune build SOURCE --split test -o "),
        ("photos", "a pack or a source, such as imagefolder:"),
    ],
)
def test_test_images_that_are_not_there_have_a_remedy(train, tmp_path, name, remedy):
    code, _, err, folder = train("a", "--test", tmp_path / name)
    assert (code, folder.exists()) == (2, False)
    assert err.endswith(f"{tmp_path / name}: no such file; --test takes {remedy}{tmp_path / name}\n")


def test_parts_of_a_split_share_no_images(edgeprune, tmp_path):
    pack, options = tmp_path / "d.h5", ["--epochs", 1, "--batch-size", 64, *NETWORK[:2]]
    assert edgeprune("build", "digits", "--sample-prune", 0.9, "-o", pack)[0] == 0
    assert edgeprune("split", pack, "-n", 2, "-o", tmp_path / "{part}.h5")[0] == 0
    parts = sorted({*tmp_path.glob("*.h5")} - {pack})
    for test, warnings in ((parts[1], 0), (pack, 1)):
        code, _, err = edgeprune("train", parts[0], "--test", test, *options, "-o", tmp_path / f"{warnings}")
        assert (code, err.count("says little of others")) == (0, warnings)
    code, _, err = edgeprune("train", *parts, "--test", parts[1], *options, "-o", tmp_path / "both")
    assert (code, err.count("says little of others")) == (0, 1)
    code, _, err = edgeprune("train", parts[0], pack, parts[0], *options, "-o", tmp_path / "twice")
    assert (code, err.count(f"{parts[0]} is named 2 times; its images come as often in each epoch")) == (0, 1)
    for run, test, warnings in (
        ("0", parts[0], 1),
        ("0", parts[1], 0),
        ("0", pack, 1),
        ("both", parts[1], 1),
    ):
        code, _, err = edgeprune("evaluate", tmp_path / run, test)
        assert (code, err.count("says little of others")) == (0, warnings)


def test_a_damaged_test_pack_is_found_before_training(train, pack, tmp_path):
    content = bytearray(pack.read_bytes())
    for place in range(len(content) // 3, len(content) - 4096, 4096):
        content[place] ^= 0xFF
    (tmp_path / "test.h5").write_bytes(content)
    code, out, err, folder = train("a", "--epochs", 1, "--test", tmp_path / "test.h5")
    assert (code, out) == (1, "")
    assert "test.h5" in err
    assert "checksum" in err
    assert not folder.exists()


@pytest.mark.slow
def test_checkpoints_between_epochs(train):
    _, _, _, folder = train("a", "--epochs", 2, "--checkpoint-steps", 2)
    # Of steps 2 and 4 of 5, and at the end of each epoch.
    assert (folder / "checkpoint-0007.json").exists()
    assert load_checkpoint(folder).state["step"] == 10


@pytest.mark.slow
def test_a_full_disk_is_told_and_waited_for(train, monkeypatch, capsys):
    monkeypatch.setattr("edgeprune_runtime.training.run_folder.full_disk._RETRY_SECONDS", 0.0)
    from edgeprune_runtime import output_files

    original, calls = output_files.save_file, []

    def save_file(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        original(*arguments)

    monkeypatch.setattr(output_files, "save_file", save_file)
    code, out, err, _ = train("a", "--epochs", 3)
    assert code == 0
    paused, continued = err.splitlines()
    assert paused.startswith("edgeprune: paused: ")
    assert "checkpoint-0002.safetensors: cannot be written (No space left on device)" in paused
    assert paused.endswith("then go on with --resume; waiting for room (Ctrl-C leaves)")
    assert continued == "edgeprune: there is room again; going on"
    assert len(out.splitlines()) == 5


def test_the_live_line():
    event = {
        "event": "step", "epoch": 2, "epochs": 30, "step": 1200, "steps": 9000, "loss": 1.23456,
        "accuracy": 0.4567, "images_per_second": 1234.5, "eta_seconds": 125.4, "memory_bytes": 412_000_000,
        "device_memory_bytes": None,
    }  # fmt: skip
    line = "epoch 2/30 step 1,200/9,000 loss 1.235 accuracy 45.7% 1,234 images/s ETA 2:05 412 MB"
    assert step_line(event) == line
    event |= {"memory_bytes": None}
    assert step_line(event) == line.removesuffix(" 412 MB")
    event |= {"memory_bytes": 5_000, "device_memory_bytes": 2_000_000_000}
    assert step_line(event).endswith(" 5.00 kB + 2.00 GB")


@pytest.mark.slow
def test_curves_for_tensorboard(train, npz):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, _, err, folder = train("a", "--epochs", 2, "--tensorboard", "--test", npz)
    assert code == 0, err
    curves = loading.EventAccumulator(str(folder / "tensorboard"))
    curves.Reload()
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "test_accuracy", "peak_memory_bytes"):
        written = [(event.step, event.value) for event in curves.Scalars(f"epoch/{name}")]
        assert written == [(line["epoch"], pytest.approx(line[name])) for line in metrics]


@pytest.mark.slow
def test_what_is_not_installed(train, edgeprune, monkeypatch, tmp_path):
    without = lambda *names: lambda name: None if name in names else object()  # noqa: E731
    monkeypatch.setattr(training_reports.importlib.util, "find_spec", without("tensorboard", "matplotlib"))
    code, _, err, folder = train("a", "--tensorboard")
    assert code == 2
    assert err == "edgeprune: error: --tensorboard needs TensorBoard; pip install 'edgeprune[watch]'\n"
    assert not folder.exists()
    code, _, err = edgeprune("plot", tmp_path)
    assert (code, err) == (2, "edgeprune: error: plot needs Matplotlib; pip install 'edgeprune[watch]'\n")


@pytest.mark.slow
def test_early_stopping_and_what_is_done_to_the_loss(train, npz):
    options = ["--test", npz, "--patience", 1, "--label-smoothing", 0.1, "--sampling", "balanced"]
    # So small a rate that no test becomes better.
    options += ["--clip-norm", 1, "--epochs", 9, "--lr", 1e-30, "--weight-decay", 0]
    code, out, err, folder = train("a", *options)
    assert code == 0, err
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = lines[-1]["best_epoch"]
    assert len(lines) == best + 1 < 9
    assert f"stopped after epoch {best + 1} of 9: no better test since epoch {best}, whose weights" in err
    assert f"weights of epoch {best}, the best, test accuracy" in out.splitlines()[-1]
    assert train("b", "--class-weights", "balanced", "--epochs", 1)[0] == 0
    code, _, err, _ = train("c", "--teacher", folder, "--label-smoothing", 0.1)
    assert code == 2
    assert "a teacher's answers replace the labels; leave --label-smoothing and --class-weights out" in err
    code, _, err, _ = train("d", "--patience", 2)
    assert code == 2
    assert "--patience waits for a better test; give --test" in err


@pytest.mark.first_are_quick
@pytest.mark.parametrize("images", [2, 5])
def test_a_part_smaller_than_a_batch_is_trained_on(edgeprune, tmp_path, images):
    pixels = np.random.default_rng(0).integers(0, 256, (images, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "i.npz", x=pixels, y=np.arange(images) % 2)
    edgeprune("build", f"npz:{tmp_path / 'i.npz'}", "-o", tmp_path / "small.h5", "-q")
    code, _, err = edgeprune(
        "train",
        tmp_path / "small.h5",
        *NETWORK,
        "--epochs",
        2,
        "-o",
        tmp_path / "run",
        "--sampling",
        "balanced",
    )
    assert (code, err) == (0, "")
    assert load_checkpoint(tmp_path / "run").state["step"] == 2
    first, _ = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]), None
    assert first["train_loss"] > 0
