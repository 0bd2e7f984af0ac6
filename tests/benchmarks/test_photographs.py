"""``edgeprune bench photographs`` on a few images."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from own_networks import Tiny
from PIL import Image
from safetensors.torch import load_file, save_file

from edgeprune import BuildConfig, build_pack
from edgeprune.options.parameters import with_flags
from edgeprune.training.setup import Setup
from edgeprune_benchmarks.cli import command as cli
from edgeprune_benchmarks.harness.images import held_out_trashnet, unpack_trashnet
from edgeprune_benchmarks.photographs import clock as clock_module
from edgeprune_benchmarks.photographs.clock import Clock
from edgeprune_formats import ConfigError
from edgeprune_runtime.networks import code

PICTURES = {"train": 10, "test": 4}


@pytest.fixture
def data(tmp_path):
    """An archive of two classes, dark and light."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "trashnet.zip", "w") as archive:
        for part, count in PICTURES.items():
            for number in range(2 * count):
                pixels = random.integers(0, 100, (70, 90, 3)) + 150 * (number % 2)
                file = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
                name = ("dark", "light")[number % 2]
                archive.writestr(f"trashnet/{part}/{name}/{number}.jpg", file.getvalue())
    return tmp_path


def test_a_clock_counts_all_but_what_it_is_told_not_to(monkeypatch):
    now = iter((160.0, 190.0, 250.0, 310.0))
    monkeypatch.setattr(clock_module.time, "time", lambda: next(now))
    clock = Clock(started=100.0)
    assert clock.minutes == 1
    with clock.stopped():
        pass
    assert clock.minutes == pytest.approx(3.5 - 1)


def test_the_held_out_part_is_a_fifth_of_each_class_of_the_training_images(data):
    whole = unpack_trashnet(data, data / "whole")
    held_out = held_out_trashnet(whole, data / "held-out")
    counts = {
        (part, name): len(list((held_out / part / name).iterdir()))
        for part in PICTURES
        for name in ("dark", "light")
    }
    assert counts == {
        ("train", "dark"): 8,
        ("train", "light"): 8,
        ("test", "dark"): 2,
        ("test", "light"): 2,
    }
    found = sorted(path.name for path in held_out.glob("*/*/*"))
    assert found == sorted(path.name for path in (whole / "train").glob("*/*"))


@pytest.mark.parametrize(
    ("model", "size", "wanted"),
    [
        ("shufflenet_v2", 224, (176, 232, 224)),
        ("shufflenet_v2", 96, (75, 99, 96)),
        ("mobilenet_v2", 224, (224, 256, 224)),
        ("mobilenet_v2", 96, (96, 110, 96)),
    ],
)
def test_the_folder_is_cropped_and_scaled_as_torchvision_does_for_the_network(model, size, wanted):
    from edgeprune_benchmarks.photographs import folder

    recipe = folder.RECIPES[model]
    crop = folder._augmented(recipe, size).transforms[0]
    scale, center = folder._plain(recipe, size).transforms[:2]
    assert (crop.size, scale.size, center.size) == ((wanted[0],) * 2, [wanted[1]], (wanted[2],) * 2)


def test_each_side_goes_first_in_turn():
    from edgeprune_benchmarks.photographs.run import Wanted

    wanted = Wanted(("mobilenet_v2",), ("scratch",), ("folder", "pack"), (1.0,), "48:6", {"epochs": None}, 4)
    turns = [[side for _, _, side, of in wanted.places() if of == seed] for seed in range(4)]
    assert turns[:3] == [
        ["folder", "pack", "sizes 48:6"],
        ["pack", "sizes 48:6", "folder"],
        ["sizes 48:6", "folder", "pack"],
    ]
    assert turns[3] == turns[0]


def test_a_run_with_a_schedule_may_have_settings_of_its_own():
    from edgeprune_benchmarks.photographs.run import Settings

    common = {"lr": 0.05, "ema": 0.99, "label_smoothing": 0.1}
    others = {"size": 96, "batch_size": 32, "quality": 75.0, "augment": "crop+flip", "pretrain_steps": 1}
    settings = Settings(epochs=None, threads=1, held_out=False, **common, **others)
    assert settings.training("pack") == common
    assert settings.training("sizes 48:6") == common | {"resolution_schedule": "48:6"}
    own = "sizes 48:6 epochs=9 lr=0.01 ema=0.9"
    assert settings.training(own) == common | {"resolution_schedule": "48:6", "lr": 0.01, "ema": 0.9}
    sides = ("folder peer-lr=4", "pack", "short", "sizes 48:6", own)
    assert [settings.epochs_of("mobilenet_v2", side) for side in sides] == [16, 16, 6, 8, 9]


def test_each_learning_rate_of_the_folder_is_a_side():
    from edgeprune_benchmarks.photographs.run import Wanted

    own = {"epochs": 9, "lr": 0.0123456789, "ema": None}
    wanted = Wanted(("mobilenet_v2",), ("scratch",), ("folder", "pack"), (1.0, 4.0, 0.3), "48:6", own, 1)
    assert [side for _, _, side, _ in wanted.places()] == [
        "folder",
        "folder peer-lr=4",
        "folder peer-lr=0.3",
        "pack",
        "sizes 48:6 epochs=9 lr=0.0123456789",
    ]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("48", "--resolution-schedule is '48'; it is SIZE:EPOCHS"),
        ("48:9", "--resolution-schedule has 9 epochs, and --epochs is 8; give fewer"),
        (
            "72:1,97:1",
            "--resolution-schedule has 97x97, but the images have only 96x96 pixels; give smaller sizes",
        ),
        (
            "80x100:1",
            "--resolution-schedule has 80x100, but the images have only 96x96 pixels; give smaller sizes",
        ),
    ],
)
def test_a_schedule_that_does_not_do_is_refused_before_anything_is_trained(tmp_path, schedule, wanted):
    places = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "-o", str(tmp_path / "out")]
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(
            cli, ["photographs", *places, "--resolution-schedule", schedule], catch_exceptions=False
        )
    assert wanted in with_flags(str(error.value), [lambda: cli.commands["photographs"]])
    assert not list(tmp_path.iterdir())


class Now:
    """The time, which goes on by what a test says."""

    seconds = 0.0

    def time(self):
        return self.seconds

    def after(self, seconds, function):
        """Return a function that takes so long."""

        def slow(*arguments, **options):
            self.seconds += seconds
            return function(*arguments, **options)

        return slow


STEP_SECONDS, TEST_SECONDS = 6, 1000


@pytest.fixture
def now(monkeypatch):
    """Steps and tests that take a time that is known, with a network that is small."""
    now, forward = Now(), Tiny.forward

    def slow(self, images):
        if images.device.type == "cpu":
            now.seconds += STEP_SECONDS if self.training else TEST_SECONDS
        return forward(self, images)

    monkeypatch.setattr(Tiny, "forward", slow)
    monkeypatch.setattr(clock_module, "time", now)
    return now


@pytest.fixture
def task(data):
    """A cell whose weights do not move: its learning rate is too small."""
    torch.manual_seed(1)
    (data / "init").mkdir()
    save_file(Tiny(2, 3).state_dict(), data / "init" / "model.safetensors")
    images = str(unpack_trashnet(data, data / "whole"))
    counts = {"seed": 0, "size": 64, "epochs": 1, "batch_size": 8, "threads": 1}
    settings = {"peer_lr": 0.0, "augment": "crop+flip", "training": {"lr": 1e-30}}
    return {**counts, **settings, "images": images, "init": str(data / "init"), "folder": str(data / "run")}


def require_first_weights(found, task):
    wanted = load_file(Path(task["init"]) / "model.safetensors")
    for name in ("first.0.weight", "second.0.weight", "head.weight", "head.bias"):
        assert torch.equal(found[name], wanted[name]), name


def test_the_folder_begins_with_the_weights_given_and_its_tests_take_no_time(task, now, monkeypatch):
    from edgeprune_benchmarks.photographs import folder

    model = Tiny(2, 3)
    monkeypatch.setattr(folder.torchvision.models, "get_model", lambda name, **options: model)
    monkeypatch.setattr(folder, "_plain", now.after(TEST_SECONDS, folder._plain))
    row = folder.train_folder({**task, "model": "mobilenet_v2"}, Clock(0.0))
    require_first_weights(model.state_dict(), task)
    assert row["startup_minutes"] == 0
    assert [minutes for minutes, _ in row["curve"]] == [pytest.approx(2 * STEP_SECONDS / 60)]


@pytest.mark.parametrize("is_roomy", [True, False])
def test_the_pack_begins_with_the_weights_given_and_its_tests_take_no_time(
    task, now, monkeypatch, data, is_roomy
):
    from edgeprune_benchmarks.photographs import pack

    kept = []
    code.allow_code("own_networks:tiny")
    monkeypatch.setattr(pack, "open_test", now.after(TEST_SECONDS, pack.open_test))
    monkeypatch.setattr(pack, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(Setup, "is_roomy", is_roomy)
    build_pack(f"imagefolder:{task['images']}", data / "pack.h5", BuildConfig(size=64))
    row = pack.train_from_pack({**task, "model": "own_networks:tiny", "pack": data / "pack.h5"}, Clock(0.0))
    assert bool(kept) == is_roomy
    require_first_weights(load_file(data / "run" / "model.safetensors"), task)
    assert row["startup_minutes"] == 0
    assert [minutes for minutes, _ in row["curve"]] == [pytest.approx(2 * STEP_SECONDS / 60)]


def write_cifar10(path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    arrays = {
        f"{kind}_{part}": of for part in PICTURES for kind, of in (("x", pixels), ("y", np.arange(64) % 10))
    }
    path.parent.mkdir()
    np.savez(path, **arrays)


@pytest.mark.slow
def test_cells_are_given_the_same_weights_and_kept(data, monkeypatch):
    from edgeprune_benchmarks.photographs import run
    from edgeprune_benchmarks.photographs.cell import measure

    write_cifar10(data / "runs" / "cifar10-jpeg.npz")
    tasks = []

    def here(module, task, threads):
        tasks.append(task)
        return measure(task)

    monkeypatch.setattr(run, "pinned", here)
    places = ["--data", str(data), "-o", str(data / "out"), "--runs", str(data / "runs")]
    sizes = ["--size", "64", "--epochs", "1", "--batch-size", "8", "--pretrain-steps", "1", "--seeds", "1"]
    words = ["photographs", *places, *sizes, "--model", "shufflenet_v2", "--start", "pretrained"]
    words += ["--peer-lr", "4"]
    done = CliRunner().invoke(cli, [*words, "--side", "folder", "--side", "pack"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = json.loads((data / "out" / "photographs.json").read_text())["results"]
    assert (results["classes"], results["train_images"], results["test_images"]) == (2, 20, 8)
    assert [row["side"] for row in results["rows"]] == ["folder peer-lr=4", "pack"]
    assert tasks[0]["peer_lr"] == 4
    assert tasks[0]["init"] == tasks[1]["init"] is not None
    for row in results["rows"]:
        ((minutes, accuracy),) = row["curve"]
        assert 0 < row["startup_minutes"] < minutes
        assert (row["steps"], row["images_seen"]) == (2, 16)
        assert row["core_share"] > 0
        assert 8 * accuracy == round(8 * accuracy)
    # The cells that are there are not trained again, also where the folder of the runs is lost.
    for path in (data / "runs" / "photographs").glob("*.json"):
        path.unlink()
    others = ["--side", "pack", "--resolution-schedule", "32:1", "--schedule-epochs", "2"]
    others += ["--schedule-lr", "0.01", "--schedule-ema", "0.9"]
    done = CliRunner().invoke(cli, [*words, *others], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [task["epochs"] for task in tasks] == [1, 1, 2]
    assert tasks[-1]["side"] == "sizes 32:1 epochs=2 lr=0.01 ema=0.9"
    rows = json.loads((data / "out" / "photographs.json").read_text())["results"]["rows"]
    assert rows[:2] == results["rows"]
    assert len(rows) == 3


def test_settings_of_a_schedule_need_one(tmp_path):
    result = CliRunner().invoke(cli, ["photographs", "--data", str(tmp_path), "--schedule-lr", "0.1"])
    assert result.exit_code == 2
    assert "--schedule-lr and --schedule-ema need --resolution-schedule" in result.output
