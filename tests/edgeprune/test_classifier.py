import json
from dataclasses import replace

import numpy as np
import pytest
import small_builds
import torch
from safetensors.torch import load_file, save_file

from edgeprune.masks.classifier import classifier_from_run, classifier_from_scores, require_fit
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.training.run_folder.results import save_model

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture
def run_folder(tmp_path):
    """Write the model file of a run of ``edgeprune train``, and give the network too."""

    def write(**provenance):
        (tmp_path / "run").mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = create_model("resnet8", 3, 12)
        record = {"config": {"model": "resnet8"}, "num_classes": 3, "image_shape": [3, 12, 12]}
        save_model(tmp_path / "run", model, {**record, "provenance": provenance})
        return tmp_path / "run", model.eval()

    return write


def classified(classifier, pixels):
    """The softmax of a classifier's logits for uint8 images."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (classifier.mean, classifier.std))
    with torch.no_grad():
        return classifier.model((torch.from_numpy(pixels) / 255 - mean) / std).double().softmax(1).numpy()


def test_the_classifier_of_a_scoring_run_is_the_one_that_it_recorded(scored):
    records = read_scores_file(scored.scores)
    classifier = classifier_from_scores(records)
    p = classified(classifier, scored.source.read(records.rows))
    entropies = -(p * np.log(p)).sum(1)
    np.testing.assert_allclose(entropies, records.array("final_entropies")[0], atol=1e-4)
    assert not classifier.model.training
    assert classifier.identity()["file"] == scored.scores.name
    assert {name: classifier.identity()[name] for name in ("model", "num_classes", "image_shape")} == {
        "model": "resnet8",
        "num_classes": 3,
        "image_shape": [3, 12, 12],
    }
    require_fit(classifier, scored.source)


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_the_classifier_of_a_training_run_is_named_by_folder_or_file(run_folder, name):
    folder, model = run_folder(mean=MEAN, std=STD)
    classifier = classifier_from_run(folder / name)
    assert (classifier.mean, classifier.std) == (MEAN, STD)
    loaded = classifier.model.state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in model.state_dict().items())
    assert classifier.identity()["file"] == "model.safetensors"


def test_its_hash_is_that_of_its_tensors(run_folder):
    folder, _ = run_folder(mean=MEAN, std=STD)
    first = classifier_from_run(folder).identity()["sha256"]
    run_folder(mean=MEAN, std=(0.1, 0.1, 0.1))
    assert classifier_from_run(folder).identity()["sha256"] == first
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["fc.bias"][0] += 1
    save_file(tensors, path, {"edgeprune": metadata(mean=MEAN, std=STD)})
    assert classifier_from_run(folder).identity()["sha256"] != first


def metadata(**extra):
    return json.dumps({"model": "resnet8", "num_classes": 3, "image_shape": [3, 12, 12], **extra})


def test_a_model_of_before_there_was_normalization_in_the_file_is_refused(run_folder):
    folder, _ = run_folder()
    with pytest.raises(ArtifactError, match=r"model\.safetensors: does not say how .*; train it again"):
        classifier_from_run(folder)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(MEAN, (0.2, 0.0, 0.2)), (MEAN, (0.2, 0.2)), ((0.5,), (0.2,)), ((float("nan"), 0, 0), STD), (MEAN, 1)],
)
def test_a_normalization_that_is_none_is_refused(run_folder, mean, std):
    folder, _ = run_folder(mean=mean, std=std)
    with pytest.raises(ArtifactError, match=r"(normalize|is no number|not a list).*train it again"):
        classifier_from_run(folder)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def with_other_tensors(path):
    tensors = load_file(path)
    del tensors["fc.weight"]
    save_file(tensors | {"extra": torch.zeros(3)}, path, {"edgeprune": metadata(mean=MEAN, std=STD)})


def without_a_name(path):
    save_file(load_file(path), path)


def of_text(path):
    path.write_text("a network")


@pytest.mark.parametrize(
    "spoil", [cut, with_other_tensors, without_a_name, of_text, lambda path: path.unlink()]
)
def test_a_model_file_that_is_damaged_is_one_line(run_folder, spoil):
    folder, _ = run_folder(mean=MEAN, std=STD)
    spoil(folder / "model.safetensors")
    with pytest.raises(ArtifactError) as error:
        classifier_from_run(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [{"model": "resnet20"}, {"model": "vgg"}, {"num_classes": 4}, {"image_shape": []}]
)
def test_the_classifier_of_a_scores_file_that_fits_nothing_is_one_line(scored, change):
    records = read_scores_file(scored.scores)
    network = {**records.provenance["classifier"], **change}
    records = replace(records, provenance={**records.provenance, "classifier": network})
    with pytest.raises(ArtifactError, match=r"cannot be rebuilt .*repeat: edgeprune score") as error:
        classifier_from_scores(records)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 4}, r"a classifier of 3 classes, and npz:.* has 4; name one"),
        ({"side": 16}, r"images \(3, 12, 12\), and those of npz:.* are \(3, 16, 16\); give the `size`"),
    ],
)
def test_a_classifier_for_other_images_is_refused(scored, tmp_path, options, message):
    source = small_builds.Scored(small_builds.write_source(tmp_path, **options), scored.scores).source
    with pytest.raises(ArtifactError, match=message):
        require_fit(classifier_from_scores(read_scores_file(scored.scores)), source)


def test_a_run_of_another_target_or_of_other_classes_is_no_classifier(run_folder, scored):
    facts = {"mean": MEAN, "std": STD}
    task = {"target": "tags", "kind": "multilabel", "unit": "", "mean": [], "std": []}
    for more, words in (
        ({"task": task}, "has learned 'tags', of kind multilabel; name a run that has learned classes"),
        ({"class_names": ["x", "y", "z"]}, "its classes have other names than those of"),
    ):
        classifier = classifier_from_run(run_folder(**facts, **more)[0])
        with pytest.raises(ArtifactError, match=words):
            require_fit(classifier, scored.source)
