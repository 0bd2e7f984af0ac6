import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import exported_models
import numpy as np
import pytest
from PIL import Image

from edgeprune import ClassEvaluation, Prediction, evaluate, open_predictor, predict
from edgeprune.inference.evaluation_pictures import draw
from edgeprune.sources import open_source
from edgeprune.training.evaluation import may_be_trained_on
from edgeprune_formats import ConfigError
from edgeprune_runtime.task import Task


class Fixed:
    """A predictor that takes every image for the class that its first pixel says, of `names`."""

    takes_coefficients = False
    path = Path("fixed")
    task = Task()

    def __init__(self, names, side=8):
        self.class_names, self.image_shape = names, (3, side, side)

    def logits(self, images):
        told = np.rint(images[:, 0, 0, 0] * 255).astype(int)
        return (10 * np.eye(len(self.class_names or "abc"))[told]).astype(np.float32)


def write(path, told, labels, side=8):
    """A source whose images say by their first pixel what they are taken for."""
    images = np.zeros((len(told), side, side, 3), np.uint8)
    images[:, 0, 0] = np.array(told)[:, None]
    np.savez(path, x=images, y=labels)
    return f"npz:{path}"


@pytest.fixture
def small(tmp_path):
    """Classes 0, 1 and 2 with 4, 3 and 2 images; 2 of the first and 1 of the second are taken for others."""
    return write(tmp_path / "t.npz", [0, 0, 1, 2, 1, 1, 2, 2, 2], [0, 0, 0, 0, 1, 1, 1, 2, 2])


def test_scores_are_those_counted_by_hand(small):
    found = evaluate(Fixed(("0", "1", "2")), small)
    assert found.matrix().tolist() == [[2, 1, 1], [0, 2, 1], [0, 0, 2]]
    assert found.images == 9
    assert found.accuracy == pytest.approx(6 / 9)
    assert [one.recall for one in found.classes()] == pytest.approx([2 / 4, 2 / 3, 1])
    assert [one.precision for one in found.classes()] == pytest.approx([1, 2 / 3, 2 / 4])
    assert [one.f1 for one in found.classes()] == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert found.mean_recall == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    right, wrong = np.log(np.exp(10) + 2) - 10, np.log(np.exp(10) + 2)
    assert found.loss / 9 == pytest.approx((6 * right + 3 * wrong) / 9, rel=1e-5)
    assert found.confused() == [(0, 1, 1), (0, 2, 1), (1, 2, 1)]


def test_classes_are_matched_by_name_whatever_their_order(small):
    found = evaluate(Fixed(("none", "2", "1", "0")), small)
    assert found.matrix()[3].tolist() == [2, 1, 1, 0]
    assert [one.images for one in found.classes()] == [0, 2, 3, 4]
    absent = found.classes()[0]
    assert (absent.recall, absent.precision) == (None, 0.0)
    with pytest.raises(ConfigError, match="has images of classes that fixed lacks: 2"):
        evaluate(Fixed(("0", "1")), small)


def test_a_model_without_names_has_those_of_the_data_in_their_order(small, tmp_path):
    assert evaluate(Fixed(None), small).class_names == ("0", "1", "2")
    two = write(tmp_path / "two.npz", [0, 1], [0, 1])
    with pytest.raises(ConfigError, match="has 2 classes, fixed 3"):
        evaluate(Fixed(None), two)


def test_images_have_the_channels_that_the_model_takes(tmp_path):
    gray = (257 * np.array([[1, 1, 0, 1]])).astype(np.uint16)
    for label, told in enumerate(gray.T.tolist()):
        (folder := tmp_path / "test" / str(label // 2)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), told[0], np.uint16)).save(folder / f"gray{label}.png")
        Image.new("RGB", (8, 8), (label // 2, 0, 0)).save(folder / f"rgb{label}.png")
    found = evaluate(Fixed(("0", "1")), f"imagefolder:{tmp_path}")
    assert found.matrix().tolist() == [[2, 2], [1, 3]]


@pytest.mark.slow
def test_a_pack_and_its_source_give_the_same_as_predict(tmp_path_factory, edgeprune, tmp_path):
    folder = exported_models.trained(tmp_path_factory)
    model, pack = open_predictor(folder / "run"), folder / "pack.h5"
    told = [(p.label, str(p.probabilities.argmax())) for p in predict(model, [pack])]
    found = evaluate(model, pack)
    assert found.accuracy == np.mean([one == other for one, other in told])
    files = [tmp_path / name for name in ("e.json", "e.png")]
    code, out, err = edgeprune("evaluate", folder / "run", pack, "--json", files[0], "--plot", files[1])
    assert (code, err.count("built from the same images as the training pack")) == (0, 1)
    record = json.loads(files[0].read_text())
    assert record["images"] == len(told)
    assert record["accuracy"] == found.accuracy
    assert sum(entry["images"] for entry in record["confusion"]) == len(told)
    assert out.startswith(f"{len(told)} images: accuracy {found.accuracy:.2%}, mean recall")
    with Image.open(files[1]) as image:
        assert min(image.size) > 300


@pytest.mark.slow
def test_in_python_all_names_are_text(tmp_path_factory, tmp_path):
    folder = exported_models.trained(tmp_path_factory)
    network = open_predictor(str(folder / "run"))
    found = evaluate(network, str(folder / "pack.h5"))
    assert isinstance(found, ClassEvaluation)
    told = list(predict(network, str(folder / "pack.h5")))
    assert [one.row for one in told] == list(range(found.images))
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (file,) = predict(network, str(tmp_path / "a.png"))
    assert (file.image, file.row, file.label) == (str(tmp_path / "a.png"), None, None)
    (again,) = predict(network, [str(tmp_path)])
    assert again.image == file.image
    with pytest.raises(ConfigError, match="a folder has no labels"):
        evaluate(network, str(tmp_path))


def test_a_source_without_splits_that_was_trained_on_is_told_of(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8, 8, 3), np.uint8), y=[0, 1, 0])
    source = open_source(f"npz:{tmp_path / 'a.npz'}", split="test")
    known = {"source": {"spec": source.spec, "images": len(source), "sha256": "S"}}
    for change, expected in [({}, True), ({"images": 4}, False), ({"spec": "npz:b"}, False)]:
        record = {"source": known["source"] | change}
        (tmp_path / "config.json").write_text(json.dumps({"provenance": {"pack provenances": [record]}}))
        assert may_be_trained_on(source, tmp_path) is expected
        divided = replace(source, undivided=False)
        assert may_be_trained_on(divided, tmp_path) is False


SOUND = [{"source": {"sha256": "S"}}]


@pytest.mark.parametrize("several", [None, "abc", [1], [None], [{"source": 3}], SOUND])
def test_a_record_of_other_packs_may_say_anything(tmp_path, several):
    known = {"provenance": {"pack provenances": several, "pack source": ["S"]}}
    (tmp_path / "config.json").write_text(json.dumps(known))
    header = SimpleNamespace(provenance={"source": {"sha256": "S"}})
    assert bool(may_be_trained_on(header, tmp_path)) == (several == SOUND)


def test_what_is_printed(edgeprune, small, monkeypatch):
    monkeypatch.setattr(
        "edgeprune.inference.predictors.open_predictor", lambda *_, **__: Fixed(("0", "1", "2"))
    )
    code, out, err = edgeprune("evaluate", ".", small)
    assert (code, err) == (0, "")
    assert out.splitlines()[2:] == [
        "class  images  recall  precision     F1",
        "0           4   50.0%     100.0%  66.7%",
        "1           3   66.7%      66.7%  66.7%",
        "2           2  100.0%      50.0%  66.7%",
        "",
        "images by true class (rows) and predicted class (columns)",
        "      0  1  2",
        " 0 0  2  1  1",
        " 1 1  0  2  1",
        " 2 2  0  0  2",
    ]


@pytest.mark.slow
def test_of_many_classes_the_worst_are_printed(edgeprune, tmp_path, monkeypatch):
    names = tuple(f"{number:02}" for number in range(30))
    labels = np.arange(60) % 30
    told = np.where(labels == 7, 8, labels)
    told[5] = 6
    np.savez(tmp_path / "n.npz", x=np.zeros((1, 8, 8, 3), np.uint8), y=[0])
    source = write(tmp_path / "m.npz", told, labels)
    monkeypatch.setattr(
        "edgeprune.inference.predictors.open_predictor",
        lambda *_, **__: Fixed(tuple(str(int(name)) for name in names)),
    )
    code, out, err = edgeprune("evaluate", ".", source, "--plot", tmp_path / "m.svg")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[2] == "the 10 classes of least recall, of 30"
    assert [line.split()[0] for line in lines[4:6]] == ["7", "5"]
    assert lines[-2:] == ["7 taken for 8: 2, 100.0% of its images", "5 taken for 6: 1, 50.0% of its images"]


def test_a_bad_image_ends_it_or_is_left_out(tmp_path, edgeprune, tmp_path_factory):
    folder = exported_models.trained(tmp_path_factory)
    for label in ("0", "1"):
        (tmp_path / "p" / "test" / label).mkdir(parents=True)
        Image.new("RGB", (12, 12)).save(tmp_path / "p" / "test" / label / "a.png")
    (tmp_path / "p" / "test" / "0" / "b.png").write_bytes(b"no image")
    arguments = ["evaluate", folder / "run", f"imagefolder:{tmp_path / 'p'}"]
    code, out, err = edgeprune(*arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "b.png: is not an image" in err
    assert "--skip-bad" in err
    code, out, err = edgeprune(*arguments, "--skip-bad")
    assert code == 0, err
    assert out.startswith("2 images: accuracy ")
    assert "skipped" in err


def test_what_cannot_be_evaluated_is_one_line(edgeprune, tmp_path, tmp_path_factory, make_pack, small):
    run = exported_models.trained(tmp_path_factory) / "run"
    Image.new("RGB", (12, 12)).save(tmp_path / "a.png")
    large, _ = make_pack("large.h5", samples=3)
    other, _ = make_pack("other.h5", samples=3, size=(12, 12), components=9)
    for arguments, status, message in (
        ([run, tmp_path], 2, f"a folder has no labels; name imagefolder:{tmp_path}"),
        ([run, tmp_path / "a.png"], 1, "a.png"),
        ([run, large], 2, "has images (3, 32, 32), and"),
        ([run, other], 2, "has images of classes that"),
        ([tmp_path / "nothing", small], 2, "does not exist"),
        ([run, small, "--device", "cuda:99"], 2, "device cuda:99 does not exist"),
        ([run, small, "--device", "moon"], 2, "unknown device 'moon'"),
        ([run, small, "--plot", tmp_path / "a.gif"], 2, "a picture's name ends in .png, .svg, .pdf"),
        ([run, small, "--json", tmp_path / "no" / "a.json"], 1, "no folder"),
    ):
        code, out, err = edgeprune("evaluate", *arguments)
        assert (code, out, len(err.splitlines())) == (status, "", 1), err
        assert message in err


def test_too_many_classes_for_a_picture(tmp_path):
    many = ClassEvaluation(tuple(map(str, range(2001))))
    many.add(3, Prediction("a", np.eye(2001, dtype=np.float32)[4]))
    assert many.confused() == [(3, 4, 1)]
    with pytest.raises(ConfigError, match="2,001 classes are too many for a picture"):
        draw(many, tmp_path / "a.png")
