"""`edgeprune evaluate` of networks that have learned something else than the class of an image."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from target_packs import NAMES, TAGS, target_pack

from edgeprune import MultilabelEvaluation, ValueEvaluation, evaluate, open_predictor
from edgeprune.inference.evaluation_pictures import draw
from edgeprune.inference.evaluation_text import summary
from edgeprune.inference.labeled import open_labeled
from edgeprune.report import network
from edgeprune.report.page import look_at_run
from edgeprune_formats import ConfigError, EdgePruneError, open_pack
from edgeprune_runtime.task import Task
from edgeprune_runtime.training.objectives.average_precision import average_precision

TARGETS = ("kind", "tags", "value", "soft")
MM, M = Task("value", "value", "mm", (0.0,), (1.0,)), Task("value", "value", "m", (0.0,) * 2, (1.0,) * 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def packs(folder):
    return target_pack(folder / "train.h5"), target_pack(folder / "test.h5", samples=9, seed=5)


@pytest.fixture(scope="module")
def runs(folder, packs):
    from edgeprune.training.setup import train_pack

    def run(target):
        if not (folder / target).exists():
            with open_pack(packs[0]) as pack:
                options = {"model": "resnet8", "epochs": 2, "batch_size": 8, "device": "cpu", "lr": 0.05}
                options |= {"resume": False, "augment": "none"}
                train_pack(pack, folder / target, target=target, test=str(packs[1]), **options)
        return folder / target

    return run


def last_metrics(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("target", TARGETS)
def test_the_figures_are_those_of_training(runs, packs, edgeprune, target, tmp_path):
    run = runs(target)
    files = [tmp_path / name for name in ("e.json", "e.png")]
    code, out, err = edgeprune("evaluate", run, packs[1], "--json", files[0], "--plot", files[1])
    assert (code, err) == (0, "")
    record, trained = json.loads(files[0].read_text()), last_metrics(run)
    assert record["images"] == 9
    assert out.startswith("9 images: ")
    if target == "tags":
        assert record["map"] == pytest.approx(trained["test_map"])
        found = {one["name"]: one for one in record["labels"]}
        assert [found[name]["average_precision"] for name in TAGS] == pytest.approx(trained["test_class_ap"])
    elif target == "value":
        assert [one["mae"] for one in record["values"]] == pytest.approx(trained["test_mae"], rel=1e-4)
        assert [one["r2"] for one in record["values"]] == pytest.approx(
            trained["test_r2"], rel=1e-3, abs=1e-3
        )
        assert (record["target"], record["unit"]) == ("value", "mm")
    else:
        assert record["accuracy"] == trained["test_accuracy"]
        assert record["mean_recall"] == pytest.approx(trained["test_mean_class_accuracy"])
    with Image.open(files[1]) as image:
        assert min(image.size) > 300


class Told:
    """A predictor that tells what it was given, whatever the images."""

    takes_coefficients = False
    path = Path("told")
    image_shape = (3, 8, 8)

    def __init__(self, task, told, class_names=None):
        self.task, self.class_names, self._told = task, class_names, iter(np.asarray(told, np.float32))

    def logits(self, images):
        return np.stack([next(self._told) for _ in images])


def test_labels_are_matched_by_name(packs):
    told = np.random.default_rng(0).random((9, 4))
    found = evaluate(Told(Task("tags", "multilabel"), told, ("odd", "new", *TAGS[:2])), packs[1])
    with open_pack(packs[1]) as pack:
        true = pack.targets["tags"].read()[:, [2, 0, 0, 1]]
    assert found.names == ("odd", "new", "dark", "bright")
    assert found.true[:, [0, 2, 3]].tolist() == true[:, [0, 2, 3]].tolist()
    assert not found.true[:, 1].any()
    new = found.labels()[1]
    assert (new.images, new.average_precision, new.recall) == (0, None, None)
    assert found.record()["map"] == pytest.approx(
        np.mean([average_precision(told[:, n], true[:, n]) for n in (0, 2, 3)])
    )
    # A network that knows no names has those of the pack.
    assert evaluate(Told(Task("tags", "multilabel"), told[:, :3]), packs[1]).names == TAGS


def test_scores_of_labels_are_those_counted_by_hand():
    told = np.array([[0.9, 0.2], [0.5, 0.4], [0.4, 0.6], [0.1, 0.3]], np.float32)
    true = np.array([[True, False], [False, False], [True, True], [False, False]])
    found = MultilabelEvaluation(("a", "b"), told, true)
    a, b = found.labels()
    assert (a.images, a.recall, a.precision, a.f1) == (2, 0.5, 0.5, 0.5)
    assert a.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert (b.images, b.average_precision, b.recall, b.precision, b.f1) == (1, 1.0, 1.0, 1.0, 1.0)
    record = found.record()
    assert record["exact_match"] == 0.5
    assert record["mean_f1"] == 0.75
    right = [0.9, 0.5, 0.4, 0.9, 0.8, 0.6, 0.6, 0.7]
    assert record["cross_entropy"] == pytest.approx(-np.log(right).mean(), rel=1e-6)


def test_errors_of_values_are_those_counted_by_hand():
    task = Task("age", "value", "years", (0.0, 0.0), (1.0, 1.0))
    true = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    first, second = ValueEvaluation(task, true + np.array([[1, 0], [-3, 0], [1, 1]]), true).values()
    assert first.mae == pytest.approx(5 / 3)
    assert first.rmse == pytest.approx(np.sqrt(11 / 3))
    assert first.mean_error == pytest.approx(-1 / 3)
    assert first.p95 == pytest.approx(2.8)
    assert first.r2 == pytest.approx(1 - 11 / 2)
    assert (second.r2, second.mae) == (None, pytest.approx(1 / 3))


@pytest.fixture
def printed(edgeprune, monkeypatch):
    def lines(model, data, *options):
        monkeypatch.setattr("edgeprune.inference.predictors.open_predictor", lambda *_, **__: model)
        code, out, err = edgeprune("evaluate", ".", data, *options)
        assert (code, err) == (0, "")
        return out.splitlines()

    return lines


def test_what_is_printed(printed, packs, tmp_path):
    with open_pack(packs[1]) as pack:
        value, tags = pack.targets["value"].read(), pack.targets["tags"].read()
    two = printed(
        Told(Task("value", "value", "mm", (0.0, 0.0), (1.0, 1.0)), value + np.array([1, 0])), packs[1]
    )
    assert two[0].startswith("9 images: value, 2 numbers in mm: mean R2 ")
    assert two[3].split()[:5] == ["0", "1", "1", "1", "1"]
    assert two[4].split() == ["1", "0", "0", "0", "0", "1.0000"]
    many = printed(Told(Task("tags", "multilabel"), tags), packs[1])
    assert many[0].startswith("9 images: mean average precision 100.0%, mean F1 of the labels 100.0%, all ")
    assert [line.split()[0] for line in many[2:]] == ["label", *TAGS]
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8, 8, 3), np.uint8), age=np.array([1.0, 2.0, 4.0]))
    one = Task("age", "value", mean=(0.0,), std=(1.0,))
    # The target is read as the network learned it, whether or not the source names it.
    for spec in ("a.npz", "a.npz?target=age:value"):
        (line, more) = printed(
            Told(one, [[1.5], [2.5], [3]]), f"npz:{tmp_path / spec}", "--plot", tmp_path / "a.svg"
        )
        assert line.startswith("3 images: age: mean absolute error 0.6667, root mean square error ")
        assert more == "mean error +0; 95% of the errors are at most 0.95"
    assert "true age" in (tmp_path / "a.svg").read_text()


def test_of_many_labels_and_numbers_the_worst_are_printed(printed, tmp_path):
    random = np.random.default_rng(0)
    tags, numbers = random.random((12, 30)) < 0.5, random.random((12, 30))
    tags[:, 3] = False
    images = np.zeros((12, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=images, tags=tags, numbers=numbers)
    told = np.where(np.arange(30) == 7, ~tags, tags)
    models = {
        "tags": (Told(Task("tags", "multilabel"), told), "the 10 labels of least average precision, of 30"),
        "numbers": (
            Told(Task("numbers", "value", "", (0.0,) * 30, (1.0,) * 30), numbers + (np.arange(30) == 7)),
            "the 10 numbers of least R2, of 30",
        ),
    }
    for name, (model, said) in models.items():
        files = ["--plot", tmp_path / "a.png", "--json", tmp_path / "a.json"]
        lines = printed(model, f"npz:{tmp_path / 'a.npz'}?target={name}", *files)
        at = lines.index(said)
        assert lines[at + 2].split()[0] == "7"
        assert len(lines) == at + 12


@pytest.mark.parametrize(
    ("task", "outputs", "message"),
    [
        (Task("none", "multilabel"), 3, "has no target 'none' to test; those it has: label, kind, tags"),
        (Task("tags", "class"), 3, "is of kind multilabel, and was trained as kind class; give it as"),
        (MM, 1, "is of kind value, 2 numbers in mm, and was trained as kind value, 1 number in mm"),
        (M, 2, "is of kind value, 2 numbers in mm, and was trained as kind value, 2 numbers in m"),
        (
            Task("tags", "multilabel"),
            2,
            "has 3 numbers or labels, and told predicts 2; name images with",
        ),
        (Task("kind", "class"), 2, "has 3 classes, told 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(packs, task, outputs, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(Told(task, np.zeros((9, outputs))), packs[1])


def test_labels_that_were_not_learned_are_refused(packs):
    with pytest.raises(ConfigError, match="has images of classes that the training pack lacks: odd"):
        evaluate(Told(Task("tags", "multilabel"), np.zeros((9, 2)), TAGS[:2]), packs[1])
    with pytest.raises(ConfigError, match="has images of classes that told lacks: ant; leave them out"):
        evaluate(Told(Task("kind", "class"), np.zeros((9, 2)), NAMES[1:]), packs[1])


def test_a_class_of_no_image_need_not_be_learned(tmp_path):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=images, y=[0, 0, 2], class_names=["a", "b", "c"])
    found = evaluate(Told(Task(), np.eye(2)[[0, 1, 1]], ("c", "a")), f"npz:{tmp_path / 'a.npz'}")
    assert found.matrix().tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits", "digits: has no targets, and the network has learned 'tags'; name a pack or a table"),
        ("nothing.h5", r"nothing.h5: no such file; name a pack, or a source such as imagefolder:nothing.h5"),
        ("csv:{}/t.csv", r"has no column 'tags'; .*; `\?target=tags=COLUMN` takes another"),
        ("{}/t.csv", r"t.csv: is no pack; name csv:.*t.csv"),
    ],
)
def test_a_test_set_without_the_target_says_what_to_do(tmp_path, spec, message):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label,words\na.png,x,dark|odd\n")
    model = Told(Task("tags", "multilabel"), np.zeros((1, 3)), TAGS)
    with pytest.raises(EdgePruneError, match=message):
        evaluate(model, spec.format(tmp_path))
    # A folder whose name looks like an option is a folder.
    (tmp_path / "target=tags").mkdir()
    (tmp_path / "target=tags" / "t.csv").write_text("path,tags\n../a.png,dark|odd\n")
    assert evaluate(model, f"csv:{tmp_path}/target=tags/t.csv").true.tolist() == [[True, False, True]]
    assert (
        evaluate(
            Told(model.task, np.zeros((1, 3)), TAGS), f"csv:{tmp_path}/t.csv?target=tags=words:multilabel"
        ).images
        == 1
    )


def test_numbers_far_from_zero_have_an_r2():
    task = Task("height", "value", "mm", (0.0,), (1.0,))
    true = 5_400_000 + np.array([[0.0], [5.0], [10.0]])
    (found,) = ValueEvaluation(task, true + 1, true).values()
    assert found.r2 == pytest.approx(1 - 3 / 50)


def test_a_unit_that_is_not_known_is_no_other_unit(packs, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 8, 8, 3), np.uint8), value=np.ones((2, 2)))
    task = Task("value", "value", "mm", (0.0, 0.0), (1.0, 1.0))
    assert evaluate(Told(task, np.ones((2, 2))), f"npz:{tmp_path / 'a.npz'}").record()["unit"] == "mm"


def test_a_unit_cannot_turn_the_text_of_a_page_around():
    task = Task("h\u202e", "value", "m\u202em\x1b" * 30, (0.0,), (1.0,))
    true = np.array([[0.0], [5.0]])
    text = " ".join(summary(ValueEvaluation(task, true + 1, true)))
    assert not {"\u202e", "\x1b"} & set(text)
    assert len(text) < 300


def test_all_labels_that_are_told_are_printed(edgeprune, monkeypatch, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    names = tuple("abcdef")
    for told, expected in (([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], 5), ([0.1, 0.2, 0.1, 0.1, 0.1, 0.1], 1)):
        for options, least in (((), 1), (("--json",), 3)):
            model = Told(Task("t", "multilabel"), [told], names)
            monkeypatch.setattr(
                "edgeprune.inference.predictors.open_predictor", lambda *_, one=model, **__: one
            )
            code, out, _ = edgeprune("predict", ".", tmp_path / "a.png", *options)
            found = len(json.loads(out)["top"]) if options else out.count("%")
            assert (code, found) == (0, max(expected, least))


@pytest.mark.parametrize("target", TARGETS)
def test_a_report_shows_how_near_the_network_is(runs, packs, edgeprune, target, tmp_path):
    with open_pack(packs[1]) as pack:
        tested = look_at_run(pack, runs(target), open_predictor(runs(target)), None).tested
    metrics = last_metrics(runs(target))
    assert tested.images == 9
    if target in ("kind", "soft"):
        assert tested.summary[0].startswith(f"accuracy {metrics['test_accuracy']:.2%}")
        assert sum(cell.images for row in tested.matrix for cell in row) == 9
    else:
        assert not tested.matrix
        assert tested.title == "Largest errors"
        assert len(tested.table.rows) == (3 if target == "tags" else 2)
    assert edgeprune("report", packs[1], "--run", runs(target), "-o", tmp_path / "a.html")[0] == 0
    page = (tmp_path / "a.html").read_text()
    assert tested.summary[0] in page
    assert all(f'<th scope="row">{row[0]}</th>' in page for row in tested.table.rows)


def cards_of(model, path):
    with open_pack(path) as pack:
        return network.Tested.on(open_labeled(pack, model, with_target=True), model).cards


def test_labels_that_are_missed_are_named_in_a_report(packs):
    with open_pack(packs[1]) as pack:
        true = pack.targets["tags"].read()
    told = true * 1.0
    told[4, 0], told[4, 1], told[7, 2] = 0.25, 0.75, 1 - true[7, 2]
    first, second = cards_of(Told(Task("tags", "multilabel"), told, TAGS), packs[1])
    assert true[4, :2].tolist() == [True, False]
    assert first.lines == ("dark missed, 25%", "bright is predicted wrongly, 75%", "row 4")
    assert second.lines == (f"odd {'missed, 0%' if true[7, 2] else 'is predicted wrongly, 100%'}", "row 7")


def test_the_largest_errors_of_values_come_first_in_a_report(packs):
    with open_pack(packs[1]) as pack:
        true = pack.targets["value"].read()
    told = true.copy()
    told[4, 1] += 3
    told[7, 0] -= 4
    first, second = cards_of(Told(Task("value", "value", "mm", (0.0, 0.0), (2.0, 1.0)), told), packs[1])
    assert (first.lines[-1], second.lines[-1]) == ("row 4", "row 7")
    assert first.lines[0] == f"number 1: true {true[4, 1]:.4g}, predicted {told[4, 1]:.4g} mm"


def test_the_page_of_a_pack_without_the_target_has_the_curves(runs, tmp_path, edgeprune):
    bare = target_pack(tmp_path / "bare.h5", samples=9, columns=())
    code, _, _ = edgeprune("report", bare, "--run", runs("tags"), "-o", tmp_path / "a.html")
    assert code == 0
    assert "The network was not tested" in (tmp_path / "a.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tags", "value"])
def test_an_exported_network_is_as_its_run(runs, packs, edgeprune, target, tmp_path):
    assert edgeprune("export", runs(target), "-o", tmp_path / "a.onnx", "--pack", packs[0])[0] == 0
    ours, theirs = (evaluate(model, packs[1]) for model in (runs(target), tmp_path / "a.onnx"))
    np.testing.assert_allclose(ours.predicted, theirs.predicted, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(ours.true, theirs.true)
    assert edgeprune("evaluate", tmp_path / "a.onnx", packs[1], "--device", "cuda")[0] == 2


def test_the_area_below_the_drawn_line_is_the_average_precision(tmp_path, monkeypatch):
    drawn = []
    axes = pytest.importorskip("matplotlib.axes").Axes
    step = axes.step
    monkeypatch.setattr(axes, "step", lambda self, *at, **how: drawn.append(at) or step(self, *at, **how))
    random = np.random.default_rng(0)
    found = MultilabelEvaluation(
        ("a", "b"), random.random((20, 2)).astype("f4"), random.random((20, 2)) < 0.4
    )
    draw(found, tmp_path / "a.png")
    areas = [float((np.diff(x) * y[1:]).sum()) for x, y in drawn]
    assert areas == pytest.approx(sorted(one.average_precision for one in found.labels()))
    assert [x[0] for x, _ in drawn] == [0, 0]
