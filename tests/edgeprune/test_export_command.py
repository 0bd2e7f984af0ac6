import json
from dataclasses import replace

import exported_models
import h5py
import numpy as np
import onnx
import plain_commands
import pytest
import tensorrt_rules
import torch
from exported_models import MEAN, STD, finished_run

from edgeprune.inference import export
from edgeprune.inference.export import ExportConfig, export_run
from edgeprune.sources import open_source
from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.onnx import check as onnx_check
from edgeprune_runtime.onnx.session import open_onnx
from edgeprune_runtime.training import load_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return exported_models.trained(tmp_path_factory)


def facts(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.slow
def test_a_run_becomes_a_model_that_knows_its_classes(edgeprune, trained, tmp_path):
    path = tmp_path / "model.onnx"
    code, out, err = edgeprune("export", trained / "run", "-o", path)
    assert (code, err) == (0, "")
    first, second = out.splitlines()
    assert first == f"{path}: resnet8, float32, {path.stat().st_size / 1e6:.2f} MB"
    assert second.startswith("  float32 against torch  outputs up to ")
    assert second.endswith(" at most, 10 images")
    assert json.loads(facts(path)["class_names"]) == ["0", "1", "2"]
    pixels = open_source(f"npz:{trained / 'images.npz'}").read(np.arange(9))
    header = open_pack(trained / "pack.h5").header
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (header.mean, header.std))
    normalized = torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)
    with torch.no_grad():
        expected = load_model(trained / "run")(normalized).numpy()
    found = open_onnx(path).logits(pixels.astype(np.float32) / 255)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("int8", "runtime", "quantized_for"),
    [
        (False, None, None),
        (False, "tensorrt==8.5", None),
        (True, None, "onnxruntime"),
        (True, "tensorrt==8.5", "tensorrt"),
        ("tensorrt", None, "tensorrt"),
        ("tensorrt", "onnxruntime==1.15", "tensorrt"),
    ],
)
def test_int8_alone_is_for_the_runtime(int8, runtime, quantized_for):
    assert ExportConfig(int8=int8, runtime=runtime).quantized_for == quantized_for


def test_a_number_of_images_without_int8_is_refused(edgeprune, tmp_path):
    code, _, err = edgeprune("export", tmp_path, "-o", tmp_path / "x.onnx", "--calibrate", 256)
    assert (code, err.count("--calibrate has no effect without --int8; leave it out")) == (2, 1)


def test_int8_of_an_unknown_runtime_is_refused():
    with pytest.raises(ConfigError, match="`int8` is 'tflite'; it must be True, False, onnxruntime or"):
        ExportConfig(int8="tflite")


@pytest.mark.slow
def test_for_an_older_tensorrt(edgeprune, trained, tmp_path):
    path = tmp_path / "model.onnx"
    options = ["--int8", "--for", "tensorrt==8.5", "--pack", trained / "pack.h5", "--calibrate", 16]
    code, out, err = edgeprune("export", trained / "run", "-o", path, "--with-decoder", *options)
    assert code == 0, err
    first, second, *_ = out.splitlines()
    assert first.startswith(f"{path}: resnet8, int8 for tensorrt with decoder, ")
    assert second == "  for tensorrt==8.5: opset 17, IR version 8"
    model = onnx.load(path)
    assert model.opset_import[0].version == 17
    assert tensorrt_rules.problems(model) == []


@pytest.mark.slow
def test_int8_tells_its_accuracy_beside_float32s(edgeprune, trained, tmp_path):
    path, spec = tmp_path / "model.onnx", f"npz:{trained / 'images.npz'}"
    options = ["--int8", "--pack", trained / "pack.h5", "--calibrate", 40, "--test", trained / "pack.h5"]
    code, out, err = edgeprune("export", trained / "run", "-o", path, *options)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith(f"{path}: resnet8, int8, ")
    assert lines[1].endswith(" at most, 74 images")
    assert lines[2].startswith("  int8 against float32   the same class for ")
    assert lines[2].endswith("% of 40 images")
    assert lines[3].endswith(f"%, 96 images of {trained / 'pack.h5'}")
    report = export_run(
        trained / "run", tmp_path / "other.onnx", ExportConfig(int8=True), pack=trained / "pack.h5", test=spec
    )
    labels = open_source(spec, split="test").labels
    pixels = open_source(spec, split="test").read(np.arange(len(labels)))
    classes = open_onnx(tmp_path / "other.onnx").logits(pixels.astype(np.float32) / 255).argmax(axis=1)
    assert report.tested == len(labels)
    assert report.accuracy["int8"] == (classes == labels).mean()
    assert report.accuracy["float32"] > 0.9
    assert report.accuracy["int8"] > 0.9 * report.accuracy["float32"]
    assert report.calibrated == 96


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_with_decoder_the_pack_is_read_by_h5py_alone(edgeprune, trained, tmp_path, int8):
    path = tmp_path / "model.onnx"
    more = ["--int8", "--pack", trained / "pack.h5"] if int8 else []
    code, out, err = edgeprune("export", trained / "run", "-o", path, "--with-decoder", *more)
    assert code == 0, err
    assert f"{path}: resnet8, {'int8' if int8 else 'float32'} with decoder, " in out
    with h5py.File(trained / "pack.h5", locking=False) as file:
        model = open_onnx(path)
        logits = model.logits_of_coefficients(file["samples/values"][:], file["samples/indices"][:])
        right = (logits.argmax(axis=1) == file["labels"][:]).mean()
    assert right > 0.9


@pytest.mark.slow
def test_the_pack_names_classes_that_a_run_does_not_know(trained, tmp_path):
    run = finished_run(tmp_path / "run", size=(12, 12), provenance={"mean": MEAN, "std": STD})
    with pytest.raises(ConfigError, match="does not know the names of its classes; give `pack` as well"):
        export_run(run, tmp_path / "m.onnx", ExportConfig(), test=str(trained / "pack.h5"))
    export_run(run, tmp_path / "m.onnx", ExportConfig(), pack=trained / "pack.h5")
    assert json.loads(facts(tmp_path / "m.onnx")["class_names"]) == ["0", "1", "2"]


@pytest.mark.slow
def test_nothing_appears_when_the_check_fails(edgeprune, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_check, "TOLERANCE", 0)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier one")
    code, out, err = edgeprune("export", trained / "run", "-o", path, "--force")
    assert (code, out) == (1, "")
    assert "differs from torch by" in err
    assert path.read_bytes() == b"an earlier one"
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


def test_misuse_is_one_line_before_anything_is_done(edgeprune, trained, tmp_path, make_pack):
    run, path, pack = trained / "run", tmp_path / "model.onnx", trained / "pack.h5"
    other_size, _ = make_pack("size.h5", samples=9)
    (tmp_path / "there.onnx").touch()
    (tmp_path / "empty").mkdir()
    cases = [
        ([run, "-o", tmp_path / "model.h5"], 2, "model.h5: name a file that ends in .onnx"),
        ([run, "-o", path, "--int8"], 2, "--int8 needs images to calibrate with; give --pack"),
        ([run, "-o", path, "--int8", "--pack", pack, "--calibrate", 0], 2, "calibrate is 0"),
        (["--int8", run, "-o", path], 2, "--int8 needs images to calibrate with; give --pack"),
        ([run, "-o", path, "--int8", "openvino"], 2, "--int8 takes one of onnxruntime, tensorrt or nothing"),
        ([run, "-o", path, "--int8=openvino"], 2, "'openvino' is not one of onnxruntime, tensorrt"),
        ([run, "-o", path, "--int8", "onnxruntime", "--for", "tensorrt"], 2, "give --int8 tensorrt"),
        ([run, "-o", path, "--for", "onnxruntime==1.6"], 2, "it needs onnxruntime 1.7 or later"),
        ([run, "-o", path, "--for", "tensorrt==8.2", "--with-decoder"], 2, "it needs tensorrt 8.4 or later"),
        ([run, "-o", path, "--for", "openvino"], 2, "--for is openvino; it must be onnxruntime or tensorrt"),
        ([run, "-o", path, "--for", ""], 2, "it must be onnxruntime or tensorrt"),
        ([run, "-o", path, "--pack", other_size], 2, "has images (3, 32, 32), and"),
        ([run, "-o", path, "--test", other_size], 2, "has images (3, 32, 32), the training pack"),
        ([run, "-o", tmp_path / "there.onnx"], 2, "exists; pass --force to replace it"),
        ([run, "-o", tmp_path / "no" / "model.onnx"], 1, "there is no folder"),
        ([tmp_path / "empty", "-o", path], 1, "holds no trained model; name the folder of a run"),
        (
            [run, "-o", path, "--pack", trained / "images.npz"],
            1,
            "images.npz: this is a zip or npz archive",
        ),
    ]
    for arguments, status, message in cases:
        code, out, err = edgeprune("export", *arguments)
        assert (code, out) == (status, ""), err
        assert message in err
        assert len(err.splitlines()) == 1
        assert not path.exists()


@pytest.mark.slow
def test_a_pack_of_other_classes_is_refused(trained, tmp_path):
    run = finished_run(tmp_path / "run", size=(12, 12))
    torch_model = load_model(run)
    assert torch_model.fc.out_features == 3
    export_run(run, tmp_path / "m.onnx", ExportConfig(), pack=trained / "pack.h5")
    # The run's own names count.
    assert json.loads(facts(tmp_path / "m.onnx")["class_names"]) == list(exported_models.NAMES)
    with pytest.raises(ConfigError, match="has images of classes that the training pack lacks: 0, 1, 2"):
        export_run(run, tmp_path / "n.onnx", ExportConfig(), test=str(trained / "pack.h5"))


def test_images_of_a_pack_with_fewer_classes_do_for_a_network_that_knows_its_own(trained, tmp_path):
    network = load_trained(finished_run(tmp_path / "run", size=(12, 12)))
    assert export._open_images(trained / "pack.h5", replace(network, num_classes=5)).header.samples
    with pytest.raises(ConfigError, match=r"has 3 classes, and .* was trained on 5"):
        export._open_images(trained / "pack.h5", replace(network, num_classes=5, class_names=None))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line(tmp_path, package):
    done = plain_commands.edgeprune("export", tmp_path, "-o", tmp_path / "m.onnx", absent=[package])
    assert done.returncode == 2
    assert done.stderr == f"edgeprune: error: exporting needs {package}; pip install 'edgeprune[onnx]'\n"
