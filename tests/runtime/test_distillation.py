"""Learning from labels and from the probabilities of a teacher that a pack holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import assert_same_run

from edgeprune.training.setup import set_up
from edgeprune_formats import ConfigError, PackHeader, PackWriter, open_pack
from edgeprune_formats.targets import Column, Target
from edgeprune_runtime import PackLoader, open_packs
from edgeprune_runtime.decode.augmentation import LOADER_AUGMENTS
from edgeprune_runtime.task import Task
from edgeprune_runtime.training import TrainConfig, train
from edgeprune_runtime.training.objectives.distillation import DistillationLoss
from edgeprune_runtime.training.objectives.losses import class_loss
from edgeprune_runtime.training.objectives.metrics import hits
from edgeprune_runtime.training.taught import TaughtBatches

NAMES = ("ant", "bee", "cat", "dog")
CONFIG = TrainConfig(model="resnet8", epochs=2, batch_size=8, lr=0.05, device="cpu", distill=0.7)
# What the teacher says of each class, in the order of NAMES.
SAYS = np.array([[0.7, 0.3, 0, 0], [0, 0.6, 0.4, 0], [0, 0, 0.8, 0.2], [0.1, 0, 0, 0.9]], np.float32)


def taught_pack(path, samples=24, *, classes=NAMES, kind="probabilities", name="teacher", seed=0):
    """A pack of noise whose teacher says of an image what `SAYS` has for its label."""
    labels = np.arange(samples) % 4
    header = PackHeader(
        samples=samples,
        channels=3,
        height=8,
        width=8,
        components=64,
        codec="sparse-f32",
        chunk_samples=7,
        class_names=NAMES,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    values = np.zeros((samples, len(classes)), np.float32)
    known = [place for place, one in enumerate(classes) if one in NAMES]
    values[:, known] = SAYS[labels][:, [NAMES.index(classes[place]) for place in known]]
    values[:, -1] += 1 - values.sum(axis=1)
    column = Column(name, kind, classes, dtype="uint8") if kind == "probabilities" else Column(name, kind)
    target = Target(column, values if kind == "probabilities" else labels)
    spectra = np.random.default_rng(seed).standard_normal((samples, 3, 8, 8)).astype("f4")
    with PackWriter(path, header, labels, np.arange(samples), targets=[target]) as writer:
        writer.append(spectra, np.ones(spectra.shape, bool))
    return path


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return taught_pack(tmp_path_factory.mktemp("taught") / "p.h5")


def loader_of(pack, **options):
    options = {"targets": ("label", "teacher"), "drop_last": True, "shuffle": True} | options
    return PackLoader(pack, 8, backend="torch", device="cpu", normalize=True, **options)


def run(pack, folder, config=CONFIG, loader=None, **options):
    loader = loader or loader_of(pack)
    return train(loader, config, folder, num_classes=4, image_shape=(3, 8, 8), **options)


def batch(seed=0):
    torch.manual_seed(seed)
    return torch.randn(5, 4), torch.tensor([0, 2, 1, 3, 0]), torch.rand(5, 4).softmax(1)


def joined(labels, taught):
    return torch.cat([torch.nn.functional.one_hot(labels, 4).float(), taught], 1)


def test_the_loss_is_that_of_the_paper():
    logits, labels, taught = batch()
    a, T = 0.6, 3.0
    softened = (taught.double().log() / T).softmax(1)
    hard = -logits.double().log_softmax(1)[range(5), labels]
    soft = -(softened * (logits.double() / T).log_softmax(1)).sum(1)
    expected = (1 - a) * hard + a * T * T * soft
    loss = DistillationLoss(a, T)
    assert float(loss(logits, joined(labels, taught), "sum")) == pytest.approx(
        float(expected.sum()), rel=1e-5
    )
    assert float(loss(logits, joined(labels, taught), "mean")) == pytest.approx(
        float(expected.mean()), rel=1e-5
    )


def test_smoothing_is_of_labels_and_weights_are_of_both_terms():
    logits, labels, taught = batch(1)
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0])
    smooth = 0.9 * torch.nn.functional.one_hot(labels, 4) + 0.1 / 4
    wanted = 0.3 * smooth + 0.7 * taught
    expected = -(weights[labels] * (wanted * logits.log_softmax(1)).sum(1)).mean()
    loss = DistillationLoss(0.7, 1.0, 0.1, weights)(logits, joined(labels, taught), "mean")
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    alone = DistillationLoss(0.0, 1.0, 0.1, weights)(logits, joined(labels, taught), "mean")
    assert float(alone) == pytest.approx(float(class_loss(logits, labels, "mean", 0.1, weights)), rel=1e-6)


def test_a_class_of_no_probability_is_softened_to_none():
    logits, labels, _ = batch(2)
    logits.requires_grad_()
    taught = torch.eye(4)[labels]
    loss = DistillationLoss(1.0, 4.0)(logits, joined(labels, taught), "mean")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_accuracy_is_of_the_labels():
    outputs, labels = torch.eye(4), torch.tensor([0, 1, 2, 0])
    wanted = joined(labels, torch.eye(4)[[3, 3, 3, 3]] * 5)
    assert int(hits(Task(), outputs, wanted)) == 3


@pytest.mark.parametrize("augment", ["crop+flip", "strong"])
def test_mixed_images_have_mixed_probabilities(pack, augment):
    assert augment in LOADER_AUGMENTS
    says, mixed = torch.from_numpy(SAYS), 0
    for _, wanted in TaughtBatches(loader_of(pack, augment=augment), 4):
        labels, taught = wanted.split(4, dim=1)
        mixed += int((labels.max(1).values < 0.99).sum())
        torch.testing.assert_close(taught, labels @ says, atol=2 / 255, rtol=0)
    assert (mixed > 0) == (augment == "strong")


def test_classes_of_the_teacher_are_matched_by_name(tmp_path):
    path = taught_pack(tmp_path / "p.h5", classes=("dog", "cat", "bee", "ant"))
    for _, wanted in TaughtBatches(loader_of(path), 4):
        torch.testing.assert_close(
            wanted[:, 4:], wanted[:, :4] @ torch.from_numpy(SAYS), atol=2 / 255, rtol=0
        )


@pytest.mark.slow
def test_a_run_learns_from_both_and_is_resumed(pack, tmp_path):
    config = replace(
        CONFIG, accumulate=2, label_smoothing=0.1, class_weights="balanced", distill_temperature=2.0
    )
    options = {"class_counts": [6] * 4}
    loader = lambda: loader_of(pack, augment="strong")  # noqa: E731
    whole = run(pack, tmp_path / "whole", config, loader(), **options)
    short = replace(config, epochs=1)
    run(pack, tmp_path / "parts", short, loader(), **options)
    with pytest.raises(ConfigError, match=r"distill was 0\.7 and is now 0\.5"):
        run(pack, tmp_path / "parts", replace(short, distill=0.5), loader(), resume=True, **options)
    again = run(pack, tmp_path / "again", config, loader(), **options)
    assert whole.metrics[-1]["train_loss"] == again.metrics[-1]["train_loss"]
    assert_same_run(tmp_path / "whole", tmp_path / "again")
    labels = run(pack, tmp_path / "labels", replace(CONFIG, distill=0.0), loader_of(pack, targets=("label",)))
    both = run(pack, tmp_path / "both")
    assert labels.metrics[-1]["train_loss"] != both.metrics[-1]["train_loss"]


@pytest.mark.slow
def test_several_packs_and_the_settings_of_the_command(pack, tmp_path):
    other = taught_pack(tmp_path / "o.h5", seed=1)
    setup = set_up(open_packs([pack, other]), tmp_path / "run", CONFIG, augment="flip")
    assert [column.name for column in setup.loader.targets] == ["label", "teacher"]
    assert setup.train(tmp_path / "run")["train_accuracy"] is not None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"name": "other"}, "holds no probabilities of a teacher.*build it again with: .* --teacher RUN"),
        ({"kind": "integer"}, "of kind integer; `distill` takes probabilities"),
        ({"classes": ("ant", "bee", "cat", "eel")}, "4 classes, which are not the 4 of the labels"),
        ({"classes": (*NAMES, "eel")}, "5 classes, which are not the 4"),
    ],
)
def test_a_pack_without_fitting_probabilities_is_refused(tmp_path, facts, words):
    path = taught_pack(tmp_path / "p.h5", **facts)
    with pytest.raises(ConfigError, match=words):
        set_up(open_pack(path), tmp_path / "run", CONFIG).train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_does_not_go_with_it_is_refused(pack, tmp_path):
    with pytest.raises(ConfigError, match="hands out targets 'label'; with `distill`"):
        run(pack, tmp_path / "r", loader=loader_of(pack, targets=("label",)))
    with pytest.raises(ConfigError, match="and not with `teacher`"):
        run(pack, tmp_path / "r", teacher=tmp_path)
    with pytest.raises(ConfigError, match="leave it out with 'soft'"):
        set_up(open_pack(pack), tmp_path / "r", CONFIG, target="soft")
    for options, words in (
        ({"distill": 1.5}, r"in \[0, 1\]"),
        ({"distill_temperature": 0.5}, "at least 1"),
        ({"distill": 0.0, "distill_temperature": 2.0}, "no effect without `distill`"),
    ):
        with pytest.raises(ConfigError, match=words):
            replace(CONFIG, **options)
