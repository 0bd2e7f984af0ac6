import json
import os
import shutil

import exported_models
import h5py
import numpy as np
import plain_commands
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgeprune.errors import SourceError
from edgeprune.inference.export import ExportConfig, export_run
from edgeprune.inference.prediction import predict
from edgeprune.inference.predictors import open_predictor
from edgeprune.sources import open_source
from edgeprune.sources.decoding.images import read_image
from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime.errors import ArtifactError, TrainingError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return exported_models.trained(tmp_path_factory)


@pytest.fixture(scope="module")
def models(trained):
    """The same network as a run, as an ONNX model of images and as one of coefficients: seconds of work."""
    folder = trained
    for name, decoder in (("images.onnx", False), ("decoder.onnx", True)):
        if not (folder / name).exists():
            export_run(folder / "run", folder / name, ExportConfig(decoder=decoder))
    return folder


@pytest.fixture
def photos(trained, tmp_path):
    """Images of the source as files, larger than the network takes; their classes, by file."""
    source = open_source(f"npz:{trained / 'images.npz'}")
    found = {}
    for row in (0, 1, 2, 5):
        name = tmp_path / "photos" / ("inner" if row == 5 else ".") / f"{row}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(source.read([row])[0].transpose(1, 2, 0)).resize((36, 24), Image.NEAREST)
        image.save(name)
        found[str(name)] = str(source.labels[row])
    (tmp_path / "photos" / ".hidden.png").touch()
    (tmp_path / "photos" / "notes.txt").touch()
    return found


@pytest.mark.first_are_quick
@pytest.mark.parametrize("model", ["run", "images.onnx"])
def test_a_folder_is_classified_file_by_file(edgeprune, request, photos, tmp_path, model):
    folder = request.getfixturevalue("trained" if model == "run" else "models")
    code, out, err = edgeprune("predict", folder / model, tmp_path / "photos", "--json")
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["image"] for record in records] == sorted(photos)
    for record in records:
        probabilities = [entry["probability"] for entry in record["top"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert abs(sum(probabilities) - 1) < 1e-5
        assert "label" not in record


@pytest.mark.slow
def test_run_and_onnx_give_the_same_probabilities_of_images_as_build_scales_them(models, photos):
    paths = [models.parent / name for name in photos]
    run, exported = (
        np.stack([one.probabilities for one in predict(open_predictor(models / name), paths)])
        for name in ("run", "images.onnx")
    )
    np.testing.assert_allclose(run, exported, atol=1e-4)
    pixels = np.stack([read_image(path, 12).transpose(2, 0, 1) for path in paths]).astype(np.float32) / 255
    logits = open_predictor(models / "images.onnx").logits(pixels)
    by_hand = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(exported, by_hand, atol=1e-5)


@pytest.mark.slow
def test_text_has_the_likeliest_classes_first(edgeprune, models, photos):
    file = next(iter(photos))
    code, out, _ = edgeprune("predict", models / "images.onnx", file, "--top", 2)
    assert code == 0
    (line,) = out.splitlines()
    path, _, classes = line.rpartition(": ")
    assert path == file
    assert len(classes.split(", ")) == 2
    (prediction,) = predict(open_predictor(models / "images.onnx"), [models / file])
    best = int(prediction.probabilities.argmax())
    assert classes.startswith(f"{best} {prediction.probabilities[best]:.1%}")


@pytest.mark.slow
def test_a_pack_is_classified_by_all_three(models):
    found = {}
    for name in ("run", "images.onnx", "decoder.onnx"):
        predictions = list(predict(open_predictor(models / name), [models / "pack.h5"]))
        assert [one.image for one in predictions[:2]] == [f"{models / 'pack.h5'}[{row}]" for row in (0, 1)]
        labels = open_pack(models / "pack.h5").labels.tolist()
        assert [one.label for one in predictions] == [str(label) for label in labels]
        found[name] = np.stack([one.probabilities for one in predictions])
        assert (found[name].argmax(axis=1) == labels).mean() > 0.9
    np.testing.assert_allclose(found["images.onnx"], found["run"], atol=1e-4)
    np.testing.assert_allclose(found["decoder.onnx"], found["run"], atol=1e-4)


def test_an_image_and_its_mirror_image(edgeprune, photos, tmp_path):
    run = exported_models.finished_run(tmp_path / "run", size=(12, 12))
    plain, both = (open_predictor(run, tta=tta) for tta in ("none", "flip"))
    images = np.random.default_rng(0).random((2, 3, 12, 12), np.float32)
    mean = (plain.logits(images) + plain.logits(images[..., ::-1].copy())) / 2
    np.testing.assert_allclose(both.logits(images), mean, rtol=1e-5)
    assert np.abs(plain.logits(images) - mean).max() > 1e-4
    file = next(iter(photos))
    code, out, err = edgeprune("predict", run, file, "--tta", "flip", "--json")
    assert code == 0, err
    (told,) = predict(both, file)
    assert json.loads(out)["top"][0]["probability"] == pytest.approx(told.probabilities.max(), abs=1e-6)
    with pytest.raises(ConfigError, match="`tta` is 'both'; choose one of none, flip"):
        open_predictor(run, tta="both")


def test_classes_without_names_are_numbers(edgeprune, photos, tmp_path):
    known = {"mean": exported_models.MEAN, "std": exported_models.STD}
    run = exported_models.finished_run(tmp_path / "run", size=(12, 12), provenance=known)
    code, out, _ = edgeprune("predict", run, next(iter(photos)), "--top", 1)
    assert code == 0
    assert ": class " in out


@pytest.mark.slow
def test_what_cannot_be_classified_is_one_line(edgeprune, models, photos, tmp_path, make_pack):
    broken, empty = tmp_path / "broken.png", tmp_path / "empty"
    broken.write_bytes(b"no image")
    empty.mkdir()
    other, _ = make_pack("size.h5", samples=9)
    onnx = models / "images.onnx"
    cases = [
        ([onnx, broken], 1, "broken.png: is not an image"),
        ([onnx, empty], 1, "empty: no images in this folder"),
        ([onnx, other], 2, "has images (3, 32, 32), and"),
        ([models / "decoder.onnx", *photos], 2, "takes coefficients; give it packs"),
        ([models / "decoder.onnx", models / "pack.h5", "--tta", "flip"], 2, "leave --tta out, or export"),
        ([models / "images.npz", *photos], 2, "name a file that ends in .onnx, or the folder of a run"),
        ([empty, *photos], 1, "holds no trained model"),
        ([onnx, tmp_path / "nothing.png"], 2, "does not exist"),
        ([onnx], 2, "Missing argument"),
    ]
    for arguments, status, message in cases:
        code, out, err = edgeprune("predict", *arguments)
        assert (code, out) == (status, ""), err
        assert message in err
        assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_images_before_an_unreadable_one_are_told(edgeprune, models, photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    many = [next(iter(photos))] * 32
    code, out, err = edgeprune("predict", models / "images.onnx", *many, broken)
    assert code == 1
    assert len(out.splitlines()) == 32
    assert "broken.png" in err


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 3, 5])
def test_images_around_an_unreadable_one_are_told(edgeprune, models, photos, tmp_path, place):
    for name, content in (("broken.png", b"no image"), ("empty.jfif", b"")):
        (tmp_path / name).write_bytes(content)
    files = list(photos)
    files[place:place] = [tmp_path / "broken.png"]
    model = models / "images.onnx"
    code, out, err = edgeprune("predict", model, *files, tmp_path / "empty.jfif")
    assert code == 1
    assert [line.rpartition(": ")[0] for line in out.splitlines()] == list(photos)
    assert f"{tmp_path / 'broken.png'}: is not an image" in err
    assert "(and 1 more like it); pass --skip-bad" in err
    code, skipping, err = edgeprune("predict", model, *files, tmp_path / "empty.jfif", "--skip-bad")
    assert (code, skipping) == (0, out)
    first, second, last = err.splitlines()
    assert first.startswith(f"edgeprune: skipped {tmp_path / 'broken.png'}: ")
    assert second == f"edgeprune: skipped {tmp_path / 'empty.jfif'}: is empty"
    assert last == "edgeprune: 2 images could not be read, 4 images are told"


@pytest.mark.slow
def test_images_in_formats_that_are_not_read_are_counted(edgeprune, models, photos, tmp_path):
    for name in ("a.heic", "b.HEIC", "inner/c.jxl"):
        (tmp_path / "photos" / name).write_bytes(b"")
    code, out, err = edgeprune("predict", models / "images.onnx", tmp_path / "photos")
    assert (code, len(out.splitlines())) == (0, 4)
    assert err == (
        "edgeprune: images in formats that are not read: 2 .heic, 1 .jxl; convert them to JPEG or PNG\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["images.onnx", "decoder.onnx"])
def test_a_damaged_chunk_does_not_hide_the_others(edgeprune, models, make_pack, model):
    pack, _ = make_pack("three.h5", samples=50, size=(12, 12), components=30, chunk_samples=20)
    with h5py.File(pack) as file:
        place = file["samples/values"].id.get_chunk_info(1).byte_offset
    with pack.open("r+b") as file:
        file.seek(place + 100)
        file.write(b"broken")
    code, out, err = edgeprune("predict", models / model, pack, "--top", 1)
    assert code == 1
    rows = [int(line.partition("[")[2].partition("]")[0]) for line in out.splitlines()]
    assert rows == [*range(20), *range(40, 50)]
    assert "chunk 1" in err
    assert len(err.splitlines()) == 1
    code, skipping, err = edgeprune("predict", models / model, pack, "--skip-bad", "--top", 1)
    assert (code, skipping) == (0, out)
    # A chunk counts as its images.
    assert "20 images could not be read, 30 images are told" in err


@pytest.mark.slow
def test_a_damaged_pack_and_a_damaged_model(models, tmp_path):
    pack, model = tmp_path / "pack.h5", tmp_path / "model.onnx"
    shutil.copy(models / "pack.h5", pack)
    model.write_bytes((models / "images.onnx").read_bytes()[:-50])
    with pytest.raises(ArtifactError, match="damaged"):
        open_predictor(model)
    with pytest.raises(ConfigError, match="no such file"):
        open_predictor(tmp_path / "other.onnx")


@pytest.mark.slow
def test_a_quantized_pack_is_no_food_for_a_decoder(models, tmp_path):
    from edgeprune.packs.build import build_pack
    from edgeprune.packs.config import BuildConfig

    build_pack(
        f"npz:{models / 'images.npz'}", tmp_path / "q.h5", BuildConfig(codec="quantized", device="cpu")
    )
    with pytest.raises(
        ConfigError, match=r"takes sparse coefficients, not those of codec quantized; .*convert"
    ):
        list(predict(open_predictor(models / "decoder.onnx"), [tmp_path / "q.h5"]))
    assert len(list(predict(open_predictor(models / "images.onnx"), [tmp_path / "q.h5"]))) == 96


def test_images_that_are_no_squares_must_have_the_size(tmp_path):
    network = exported_models.finished_run(tmp_path / "run", size=(12, 20))
    for size in ((20, 12), (12, 20)):
        Image.new("RGB", size).save(tmp_path / f"{size[0]}.png")
    model = open_predictor(network)
    assert len(list(predict(model, [tmp_path / "20.png"]))) == 1
    with pytest.raises(SourceError, match=r"12\.png: has 12x20 pixels, and the model takes 20x12"):
        list(predict(model, [tmp_path / "12.png"]))


def test_logits_of_a_network_that_are_not_finite_are_an_error(tmp_path):
    network = exported_models.finished_run(tmp_path / "run")
    file = network / "model.safetensors"
    with safe_open(file, "pt") as content:
        facts = content.metadata()
    tensors = load_file(file)
    for name, tensor in tensors.items():
        # Each is finite, and no product of them is.
        tensors[name] = torch.full_like(tensor, 3e38) if tensor.is_floating_point() else tensor
    save_file(tensors, file, facts)
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match="its logits are not finite"):
        list(predict(open_predictor(network), [tmp_path / "a.png"]))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="not a regular file"):
        list(predict(open_predictor(exported_models.finished_run(tmp_path / "run")), [tmp_path / "pipe"]))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "images"), [("images.onnx", "photos"), ("decoder.onnx", "pack.h5")])
def test_an_onnx_model_needs_neither_torch_nor_onnx(models, photos, tmp_path, model, images):
    where = tmp_path / images if images == "photos" else models / images
    absent = ("torch", "torchvision", "safetensors", "onnx", "onnxscript")
    done = plain_commands.edgeprune("predict", models / model, where, absent=absent)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == (4 if images == "photos" else 96)
