import json
import subprocess
from itertools import islice

import forked
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgeprune import open_source
from edgeprune.work.image_store import ImageStore
from edgeprune_benchmarks.cli import command as cli
from edgeprune_benchmarks.device import copies as copies_of
from edgeprune_benchmarks.device import exports, int8, latency, minutes, power_loss, recipe, training_memory
from edgeprune_benchmarks.harness.pixel_loader import PixelLoader, Stretched
from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_runtime import PackLoader


@pytest.fixture
def data(tmp_path):
    """A data folder of noise: CIFAR-10 without loss and as JPEG files, in a few images."""
    import io

    from PIL import Image

    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (80, 32, 32, 3)).astype(np.uint8), np.arange(80) % 4
    folder = tmp_path / "data"
    folder.mkdir()
    arrays = {"x_train": pixels, "y_train": labels, "x_test": pixels[:20], "y_test": labels[:20]}
    np.savez(folder / "cifar10-lossless-6k.npz", **arrays)
    files = {}
    for split, count in (("train", 80), ("test", 20)):
        encoded = []
        for picture in pixels[:count]:
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "JPEG", quality=95)
            encoded.append(stream.getvalue())
        files[f"{split}_bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
        files[f"{split}_offsets"] = np.cumsum([0, *map(len, encoded)])
        files[f"{split}_labels"] = labels[:count]
    np.savez(folder / "cifar10-jpeg.npz", **files)
    return folder


def invoke(*arguments):
    result = CliRunner().invoke(cli, [str(word) for word in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def loader(data):
    def make(seed=0, **options):
        source = open_source(f"npz:{data / 'cifar10-lossless-6k.npz'}")
        store = ImageStore(source, np.arange(len(source)), torch.device("cpu"))
        return PixelLoader(store, 16, ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)), seed=seed, **options)

    return make


def content(batches):
    return [(images.sum().item(), labels.tolist()) for images, labels in batches]


def test_pixels_are_shuffled_normalized_and_resumed(loader):
    one, other = loader(), loader()
    first = list(one)
    assert len(first) == len(one) == 5
    images, labels = (torch.cat(parts) for parts in zip(*first, strict=True))
    assert images.shape == (80, 3, 32, 32)
    assert torch.bincount(labels).tolist() == [20] * 4
    for channel, (mean, std) in enumerate(zip((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), strict=True)):
        assert images[:, channel].mean().item() == pytest.approx((0.5 - mean) / std, abs=0.03)
    assert content(loader(1)) != content(first)
    one.set_epoch(1)
    other.set_epoch(1)
    expected = content(one)
    assert expected != content(first)
    assert content(islice(iter(other), 2)) == expected[:2]
    third = loader()
    third.load_state_dict(json.loads(json.dumps(other.state_dict())))
    assert content(third) == expected[2:]


def test_a_number_of_steps_goes_through_the_images_again_without_a_rest(loader):
    whole = loader(steps=7)
    assert len(whole) == 7
    batches = list(whole)
    seen = np.concatenate([images.sum(dim=(1, 2, 3)).numpy() for images, _ in batches])
    assert len(seen) == 7 * 16
    assert torch.bincount(torch.cat([labels for _, labels in batches])[:80]).tolist() == [20] * 4
    later = loader(steps=7)
    later.load_state_dict({"epoch": 0, "batch": 4})
    assert content(later) == content(batches)[4:]


def test_an_epoch_without_a_batch_is_refused(data):
    source = open_source(f"npz:{data / 'cifar10-lossless-6k.npz'}")
    store = ImageStore(source, np.arange(8), torch.device("cpu"))
    with pytest.raises(ConfigError, match="fewer images than a batch takes"):
        Stretched(PixelLoader(store, 16, None, seed=0), 3)


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 11])
def test_one_long_epoch_of_many_resumes(loader, stop):
    whole = content(Stretched(loader(), 12))
    assert len(whole) == 12
    assert len({str(batch) for batch in whole}) == 12
    begun = Stretched(loader(), 12)
    assert content(islice(iter(begun), stop)) == whole[:stop]
    later = Stretched(loader(), 12)
    later.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert content(later) == whole[stop:]


@pytest.mark.parametrize("stop", [5, 6])
def test_one_long_epoch_over_a_pack_resumes(make_pack, stop):
    path, _ = make_pack(samples=40, components=20)

    def stretched():
        return Stretched(PackLoader(path, 8, True, device="cpu", augment=True), 12)

    whole = content(stretched())
    assert len({str(batch) for batch in whole}) == 12
    begun, later = stretched(), stretched()
    assert content(islice(iter(begun), stop)) == whole[:stop]
    later.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    assert content(later) == whole[stop:]


def test_a_loader_without_a_batch_is_stretched_to_nothing(make_pack):
    path, _ = make_pack(samples=7)
    with pytest.warns(UserWarning, match="7 images are fewer than a batch of 8"):
        empty = PackLoader(path, 8, drop_last=True)
    with pytest.raises(ConfigError, match="fewer images than a batch takes"):
        Stretched(empty, 12)


@pytest.mark.slow
def test_minutes_and_exports_of_what_they_trained(data, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(minutes, "MEASURED_STEPS", 1)
    runs, output = tmp_path / "runs", tmp_path / "out"
    words = ["minutes", "--data", data, "--runs", runs, "-o", output, "--model", "resnet8"]
    brief = ["--minutes", 0.004, "--batch-size", 16, "--device", "cpu"]
    invoke(*words, *brief)
    results = json.loads((output / "minutes-resnet8.json").read_text())["results"]
    assert [row["way"] for row in results["rows"]] == ["pixels", "pack"]
    for row in results["rows"]:
        assert row["steps"] == max(1, int(60 * 0.004 / row["step_seconds"]))
        assert row["passes"] == row["steps"] * 16 / 80
    before = (output / "minutes-resnet8.json").read_text()
    invoke(*words, *brief)
    again = json.loads((output / "minutes-resnet8.json").read_text())["results"]
    assert again == json.loads(before)["results"]
    assert minutes.minutes_table(results)[-1].startswith("| pack, half of the components | ")

    invoke("export", "--runs", runs, "-o", output)
    results = json.loads((output / "export.json").read_text())["results"]
    (row,) = results["rows"]
    assert row["tested"] == 20
    assert row["difference"] <= 1e-4 * max(1, row["largest_logit"])
    assert row["accuracy"]["float32"] == pytest.approx(again["rows"][1]["test_accuracy"], abs=0.051)
    assert exports.export_table(results)[-1].startswith("| resnet8 | ")
    with pytest.raises(ConfigError, match="has 0 files"):
        exports.run(output, data)


@pytest.mark.slow
def test_int8_of_what_it_trained(data, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(int8.RECIPES, "resnet8", {"epochs": 2, "batch_size": 16, "lr": 0.05, "stem": "auto"})
    words = ["int8", "--data", data, "--runs", tmp_path / "runs", "-o", tmp_path, "--model", "resnet8"]
    words += ["--images", 64, "--chosen", 16, "--tested", 10]
    invoke(*words)
    results = json.loads((tmp_path / "int8.json").read_text())["results"]
    assert [row["runtime"] for row in results["rows"]] == [None, "onnxruntime", "tensorrt"]
    assert [one["model"] for one in results["trained"]] == ["resnet8"]
    for row in results["rows"][1:]:
        assert row["in_float"] == "nothing"
        assert 10 * row["accuracy"]["test"] == pytest.approx(round(10 * row["accuracy"]["test"]))
        assert 0 <= row["same_class"]["choose"] <= 1
    lines = int8.int8_table(results)
    assert lines[-1].startswith("| resnet8 | auto | tensorrt | nothing | ")
    again = invoke(*words)
    assert "in float" not in again
    assert json.loads((tmp_path / "int8.json").read_text())["results"] == results


@pytest.mark.slow
def test_memory_of_training_processes(data, tmp_path, monkeypatch):
    with pytest.raises(EdgePruneError, match=r"the measured process failed: .*No module"):
        training_memory.memory_of([training_memory.sys.executable, "-m", "no_such_module"])
    monkeypatch.setattr(subprocess, "Popen", forked.popen)
    words = ["--megabytes", 0.1, "--batch-size", 16, "--model", "resnet8"]
    invoke("training-memory", "--data", data, "-o", tmp_path, *words)
    results = json.loads((tmp_path / "training-memory.json").read_text())["results"]
    names = [training_memory._name(row) for row in results["rows"]]
    assert names == [
        "pack, --memory 64MB",
        "pack, --memory 300MB",
        "pack",
        "uint8 in memory",
        "float32 in memory",
    ]
    for row in results["rows"]:
        assert row["peak_mib"] >= max(mib for _, mib in row["curve"])
        assert 1 <= len(row["curve"]) <= training_memory.POINTS
        assert row["peak_mib"] > 50
    assert results["imported_mib"] > 50
    lines = training_memory.training_memory_table(results)
    assert lines[2].count("|") == 8


@pytest.mark.slow
def test_latency_of_each_way(data, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    # For other threads to rest, which makes figures better and tells a test nothing.
    monkeypatch.setattr(latency, "PAUSE", 0.0)
    words = ["--model", "resnet8", "--size", "32x32", "--repeats", 20, "--threads", 1]
    invoke("latency", "--data", data, "-o", tmp_path, *words)
    results = json.loads((tmp_path / "latency.json").read_text())["results"]
    assert [(row["batch"], row["way"]) for row in results["rows"]] == [
        (batch, way)
        for batch in (1, 32)
        for way in (latency.TORCH, latency.FLOAT32, latency.INT8, latency.DECODER)
    ]
    for row in results["rows"]:
        assert row["calls"] == 20
        assert 0 < row["p50_ms"] <= row["p99_ms"]
    lines = latency.latency_table(results)
    assert lines[-1].startswith("| resnet8, 32x32 | 32 | ")
    assert lines[-1].count("x)") == 3


def test_calls_take_turns_in_blocks_and_end_in_time(monkeypatch):
    monkeypatch.setattr(latency, "PAUSE", 0.0)
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    found = latency.measure(calls, repeats=30, seconds=1e9)
    assert "".join(order) == (9 * "a" + 9 * "b") * 5
    assert [len(seconds) for seconds in found.values()] == [30, 30]
    assert len(latency.measure(calls, repeats=30, seconds=0.0)["a"]) == 20


@pytest.mark.slow
def test_kills_are_counted_and_do_no_harm(data, tmp_path, monkeypatch):
    with pytest.raises(EdgePruneError, match="ended before it was killed; give more --epochs"):
        power_loss._kill([power_loss.sys.executable, "-c", "pass"], tmp_path, 0.0)
    monkeypatch.setattr(subprocess, "Popen", forked.popen)
    settings = power_loss.Settings("resnet8", kills=2, epochs=8, batch_size=16, longest=0.05)
    assert invoke("power-loss", "--help").count("--kills") == 2
    power_loss.run(settings, data, tmp_path)
    results = json.loads((tmp_path / "power-loss.json").read_text())["results"]
    assert results["same"]
    assert results["steps"] == 40
    first, second = results["rows"]
    assert first["resumed_from"] == 0
    assert 0 < first["step"] == second["resumed_from"] < second["step"] < 40
    assert "bit for bit" in power_loss.power_loss_table(results)[0]
    assert "NOT those of" in power_loss.power_loss_table(results | {"same": False})[0]


@pytest.mark.slow
def test_the_recipe_of_a_network_is_measured_trained_and_tabled(data, tmp_path, monkeypatch):
    own = {"batch_size": 16, "label_smoothing": 0.2, "augment": "short"}
    monkeypatch.setattr(recipe, "defaults_of", lambda model: own)
    monkeypatch.setattr(recipe, "MEASURED_STEPS", 1)
    words = [
        "recipe",
        "--data",
        data,
        "--runs",
        tmp_path / "runs",
        "-o",
        tmp_path / "out",
        "--model",
        "resnet8",
    ]
    words += ["--minutes", 0.001, "--device", "cpu"]
    invoke(*words, "--measure")
    assert not (tmp_path / "out").exists()
    (steps,) = (tmp_path / "runs").glob("resnet8-*.json")
    steps.write_text(json.dumps({"steps": 7, "step_seconds": 0.5, "threads": 2}))
    invoke(*words)
    results = json.loads((tmp_path / "out" / "recipe-resnet8.json").read_text())["results"]
    assert (results["steps"], results["rows"][0]["passes"]) == (7, 7 * 16 / 80)
    lines = recipe.recipe_table(results)
    assert "as many steps as 0.001 minutes allow with 2 threads, 500 ms each; 1 seed." in lines[0]
    plain, mirrored = (f"{100 * results['rows'][0][of]:.2f}" for of in ("test_accuracy", "mirrored_accuracy"))
    assert mirrored in lines[-1]
    [sentence] = recipe.recipe_sentence(results)
    assert f"to {plain}% of the test images, or {mirrored}% with their mirror images, in 7 steps" in sentence
    assert sentence.endswith("as many as 0.001 minutes allow with 2 threads on quiet cores; 1 seed.")


def test_exact_pixels_and_copies_begin_alike_and_are_tested_on_both(tmp_path, monkeypatch):
    own = {"batch_size": 16, "augment": "short"}
    monkeypatch.setattr(recipe, "defaults_of", lambda model: own)
    random = np.random.default_rng(0)
    for name in ("cifar10-lossless-6k", "cifar10-lossless-3k-more"):
        pixels = random.integers(0, 256, (24, 3, 32, 32)).astype(np.uint8)
        arrays = {"x_train": pixels, "y_train": np.arange(24) % 4}
        np.savez(tmp_path / f"{name}.npz", **arrays, x_test=pixels, y_test=np.arange(24) % 4)
    words = ["copies", "--data", tmp_path, "--runs", tmp_path / "runs", "-o", tmp_path, "--model", "resnet8"]
    words += ["--steps", 2, "--seeds", 2, "--device", "cpu"]
    invoke(*words)
    path = tmp_path / "copies-resnet8.json"
    results = json.loads(path.read_text())["results"]
    assert (results["train_images"], results["test_images"], results["cells"]) == (48, 24, 4)
    # Noise of full range: 4:2:0 and quality 75 leave little of it.
    assert 8 < results["psnr_db"] < 20
    exact, copies = results["rows"][:2]
    assert (exact["images"], copies["images"]) == copies_of.KINDS
    assert copies["test_accuracy"] == copies["accuracy on JPEG copies"]
    assert exact["train_loss"] != copies["train_loss"] == pytest.approx(exact["train_loss"], rel=0.2)
    for cell in (tmp_path / "runs").glob("resnet8-*.json"):
        cell.write_text(cell.read_text().replace('"test_accuracy": ', '"test_accuracy": 1'))
    invoke(*words)
    kept = json.loads(path.read_text())["results"]
    assert all(row["test_accuracy"] >= 1 for row in kept["rows"])
    lines = copies_of.copies_table(results)
    assert "2 batches of 16, float32: each image is seen 0.7 times. 48 images" in lines[0]
    assert lines[-2].startswith("| exact pixels | 2 |")
    assert lines[-2].endswith("| - |")
    assert " ± " in lines[-1]
