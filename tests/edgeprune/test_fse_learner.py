import contextlib

import numpy as np
import pytest
import torch
from photographs import photographs
from safetensors.torch import load_file, save_file
from scipy.fft import dctn, idctn
from torch import nn

from edgeprune.masks.components import energy_mask, select_components
from edgeprune.masks.fse_net import FSENet, select
from edgeprune.masks.learner import MaskLearner, fse_loss, read_figures
from edgeprune.masks.torch_dct import dct2, idct2
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)


# --- learning ---


class Linear(nn.Module):
    """A linear classifier of 3 classes over whole images."""

    def __init__(self, height, width, classes=3):
        super().__init__()
        self.layer = nn.Linear(3 * height * width, classes)

    def forward(self, images):
        return self.layer(images.flatten(1))


def learner(net, classifier, **options):
    settings = {"k": 6, "k_total": 20, "accuracy_weight": 0.5, "lr": 0.01, "mean": MEAN, "std": STD}
    return MaskLearner(net, classifier, **settings | options)


def linear_learner(*, seed=0, size=(8, 8), **options):
    torch.manual_seed(99)
    classifier = Linear(*size)
    torch.manual_seed(seed)
    net = FSENet(*size)
    nn.init.normal_(net.excite.weight, std=0.1)
    return learner(net, classifier, **options)


def batch(count=5, size=(8, 8), seed=0):
    return photographs(count, *size, seed=seed), torch.arange(count) % 3


def weights_of_a_step(subject, images, labels, **options):
    """Take a step; return the weights that it used, with the gradient that reached them."""
    kept = []

    def forward(spectra):
        kept.append(subject.net(spectra))
        kept[0].retain_grad()
        return kept[0]

    subject.step(images, labels, forward=forward, **options)
    return kept[0]


def test_the_gradient_goes_straight_through_the_mask():
    subject = linear_learner()
    images, labels = batch()
    weights = weights_of_a_step(subject, images, labels)

    # In double precision, term by term. x = IDCT(X m), z = A (x - mean) / std + b.
    spectra = dctn(images.numpy() / 255, axes=(2, 3), norm="ortho")
    magnitudes = torch.from_numpy(np.abs(spectra).astype(np.float32))
    mask = (
        select_components(magnitudes.flatten(2), (magnitudes * weights.detach()).flatten(2), 6, 20)
        .numpy()
        .reshape(spectra.shape)
    )
    matrix = subject._classifier.layer.weight.numpy().astype(np.float64)
    pixels = (idctn(spectra * mask, axes=(2, 3), norm="ortho") - MEAN.numpy()) / STD.numpy()
    logits = pixels.reshape(5, -1) @ matrix.T + subject._classifier.layer.bias.numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1, keepdims=True)
    p_label = p[np.arange(5), labels][:, None]
    of_logits = (-p * (np.log(p) + entropy) - 0.5 * p_label * (np.eye(3)[labels] - p)) / 5
    of_pixels = (of_logits @ matrix).reshape(spectra.shape) / STD.numpy()
    of_mask = dctn(of_pixels, axes=(2, 3), norm="ortho") * spectra
    # The components that energy keeps are in whatever their weights.
    of_mask[
        select_components(
            np.abs(spectra).reshape(5, -1, 64), np.abs(spectra).reshape(5, -1, 64), 6, 6
        ).reshape(spectra.shape)
    ] = 0
    np.testing.assert_allclose(weights.grad, of_mask.sum(1, keepdims=True), rtol=1e-3, atol=1e-6)


def test_pieces_of_a_batch_add_up_to_the_whole():
    images, labels = batch(7)
    whole, pieced = linear_learner(), linear_learner()
    expected, found = whole.step(images, labels), pieced.step(images, labels, pieces=3)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    for one, other in zip(whole.net.parameters(), pieced.net.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_a_share_scales_the_gradient_and_no_figure():
    images, labels = batch()
    whole, half = linear_learner(), linear_learner()
    full = weights_of_a_step(whole, images, labels).grad
    torch.testing.assert_close(weights_of_a_step(half, images, labels, share=0.5).grad, full / 2)
    assert linear_learner().step(images, labels, share=0.5) == linear_learner().step(images, labels)


def test_shares_of_uneven_shards_add_up_to_the_whole_batch():
    images, labels = batch(6)

    def gradients(part, share):
        subject = linear_learner()
        subject.step(images[part], labels[part], share=share)
        return [p.grad for p in subject.net.parameters()]

    pairs = zip(gradients(slice(4), 4 * 2 / 6), gradients(slice(4, 6), 2 * 2 / 6), strict=True)
    averaged = [(first + second) / 2 for first, second in pairs]
    for found, expected in zip(averaged, gradients(slice(6), 1.0), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_two_steps_reach_every_parameter():
    torch.manual_seed(0)
    subject = learner(FSENet(8, 8), Linear(8, 8))
    before = {name: p.detach().clone() for name, p in subject.net.named_parameters()}
    subject.step(*batch())
    assert (subject.net.excite.weight.grad != 0).any()
    assert (subject.net.compress.weight.grad == 0).all()
    subject.step(*batch())
    for name, parameter in subject.net.named_parameters():
        assert (parameter.grad != 0).any(), name
        assert (parameter != before[name]).any(), name


def test_the_figures_of_a_step_are_those_of_its_start():
    subject = linear_learner()
    images, labels = batch()
    before = read_figures(subject.evaluate(images, labels))
    assert read_figures(subject.step(images, labels)) == before
    assert list(before) == ["loss", "entropy", "probability", "correct", "overlap", "images"]
    assert before["images"] == 5
    assert before["loss"] == pytest.approx(before["entropy"] - 0.5 * before["probability"], rel=1e-6)

    spectra = dct2(images / 255)
    mask, _ = select(linear_learner().net, spectra, 6, 20)
    pruned = (idct2(spectra * mask) - MEAN) / STD
    logits = subject._classifier(pruned)
    loss, entropy, probability = fse_loss(logits, labels, 0.5)
    assert before["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert before["entropy"] == pytest.approx(float(entropy), rel=1e-5)
    assert before["probability"] == pytest.approx(float(probability), rel=1e-5)
    assert before["correct"] == (logits.argmax(1) == labels).sum()
    both = mask.numpy() & energy_mask(spectra.numpy(), 20)
    assert before["overlap"] == pytest.approx(both.mean() / mask.numpy().mean(), rel=1e-6)
    assert before["overlap"] < 1


def test_evaluation_changes_nothing_and_builds_no_graph():
    subject = linear_learner()
    before = {name: t.clone() for name, t in subject.tensors().items()}
    figures = subject.evaluate(*batch())
    assert not any(figure.requires_grad for figure in figures.values())
    assert all(torch.equal(t, before[name]) for name, t in subject.tensors().items())
    assert not any(figure.requires_grad for figure in subject.step(*batch()).values())


RARE = (5, 6)


def rare_frequency(count, seed):
    """Images of two classes that differ in the sign of one weak component; the strong ones mean nothing."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    spectra = np.zeros((count, 3, 8, 8))
    spectra[:, :, :4, :4] = random.choice([-1, 1], (count, 3, 4, 4)) * random.uniform(
        0.1, 0.17, (count, 3, 4, 4)
    )
    spectra[:, :, 0, 0] = 4.0
    spectra[:, :, RARE[0], RARE[1]] = np.where(labels == 1, 0.07, -0.07)[:, None]
    pixels = idctn(spectra, axes=(2, 3), norm="ortho") * 255
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    return torch.from_numpy(pixels.round().astype(np.uint8)), torch.from_numpy(labels)


class RareReader(nn.Module):
    """Classifies by the one component alone, as `rare_frequency` made the labels."""

    def forward(self, images):
        component = dct2(images.contiguous() * STD + MEAN)[:, :, RARE[0], RARE[1]].sum(1)
        return torch.stack([-component, component], 1) * 10


def test_a_weak_component_that_the_classifier_needs_is_learned():
    torch.manual_seed(0)
    images, labels = rare_frequency(64, seed=1)
    # As many as there are strong components: the energy mask has no room for the weak one.
    subject = learner(FSENet(8, 8), RareReader(), k=4, k_total=16, accuracy_weight=0.1, lr=0.003)
    first = read_figures(subject.evaluate(images, labels))
    assert first["overlap"] == 1
    assert not select(subject.net, dct2(images / 255), 4, 16)[0][:, :, RARE[0], RARE[1]].any()
    assert first["entropy"] == pytest.approx(np.log(2), abs=0.01)

    for _ in range(30):
        subject.step(images, labels)

    unseen, answers = rare_frequency(64, seed=2)
    last = read_figures(subject.evaluate(unseen, answers))
    assert select(subject.net, dct2(unseen / 255), 4, 16)[0][:, :, RARE[0], RARE[1]].all()
    assert last["loss"] < first["loss"] - 0.4
    assert last["correct"] == 64
    assert 0.9 < last["overlap"] < 1


def conv_classifier():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(8 * 36, 3)
    )


def test_steps_leave_the_classifier_as_it_was():
    classifier = conv_classifier()
    before = {name: t.clone() for name, t in classifier.state_dict().items()}
    subject = learner(FSENet(8, 8), classifier)
    for _ in range(3):
        subject.step(*batch())
    assert all(torch.equal(t, before[name]) for name, t in classifier.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in classifier.parameters())
    assert not any(module.training for module in classifier.modules())


def test_only_the_classifier_runs_in_the_lower_precision():
    seen = {}

    class Watched(Linear):
        def forward(self, images):
            seen["format"] = images.is_contiguous(memory_format=torch.channels_last)
            seen["logits"] = super().forward(images).dtype
            seen["images"] = images.dtype
            return super().forward(images)

    class WatchedNet(FSENet):
        def forward(self, spectra):
            seen["autocast"] = torch.is_autocast_enabled("cpu")
            return super().forward(spectra)

    subject = learner(
        WatchedNet(8, 8),
        Watched(8, 8),
        precision_context=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert read_figures(subject.step(*batch()))["images"] == 5
    assert seen == {"format": True, "logits": torch.bfloat16, "images": torch.float32, "autocast": False}


def test_a_step_never_waits_for_the_device():
    # A tensor without data cannot give a value to the host: any call that wants one fails.
    with torch.device("meta"):
        subject = learner(FSENet(32, 32), conv_32(), mean=torch.zeros(1, 3, 1, 1), std=torch.ones(1, 3, 1, 1))
        images, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    assert all(figure.shape == () for figure in subject.step(images, labels).values())
    assert all(figure.shape == () for figure in subject.evaluate(images, labels).values())


def conv_32():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 10))


def test_large_images_that_are_not_square():
    torch.manual_seed(0)
    classifier = nn.Sequential(
        nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    subject = learner(FSENet(224, 160), classifier, k=100, k_total=3584)
    images, labels = photographs(2, 224, 160), torch.tensor([0, 2])
    figures = [read_figures(subject.step(images, labels)) for _ in range(3)]
    assert figures[0]["overlap"] == 1
    assert figures[2]["loss"] < figures[0]["loss"]


@contextlib.contextmanager
def process_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def test_the_network_may_be_wrapped_for_several_processes(tmp_path):
    alone, wrapped = linear_learner(), linear_learner()
    with process_group(tmp_path):
        wrapped.forward_net = nn.parallel.DistributedDataParallel(wrapped.net)
        for _ in range(2):
            assert read_figures(wrapped.step(*batch())) == read_figures(alone.step(*batch()))
    tensors = wrapped.tensors()
    assert all(torch.equal(t, tensors[name]) for name, t in alone.tensors().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 21}, "`k` is 21"),
        ({"k_total": 65}, "`k_total` is 65"),
        ({"lr": 0.0}, "`lr` is 0.0"),
        ({"lr": float("nan")}, "`lr` is nan"),
        ({"accuracy_weight": -0.1}, "`accuracy_weight` is -0.1"),
        ({"accuracy_weight": float("inf")}, "`accuracy_weight` is inf"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        linear_learner(**options)


def test_images_other_than_bytes_of_the_right_size_are_refused():
    with pytest.raises(ConfigError, match=r"`images` must be uint8 or uint16, not torch\.float32"):
        linear_learner().step(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ConfigError, match="takes spectra"):
        linear_learner().step(*batch(size=(8, 9)))


def test_a_loss_that_is_not_a_number_is_found_when_it_is_read():
    subject = linear_learner(accuracy_weight=0.0)
    with torch.no_grad():
        subject._classifier.layer.bias[0] = float("nan")
    figures = subject.step(*batch())
    with pytest.raises(TrainingError, match="became nan; lower its learning rate"):
        read_figures(figures)


# --- going on with a training run ---


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_restored_learner_goes_on_to_the_last_bit(tmp_path, taken):
    straight, stopped = linear_learner(), linear_learner()
    for number in range(taken):
        straight.step(*batch(seed=number))
        stopped.step(*batch(seed=number))
    save_file(stopped.tensors(), tmp_path / "checkpoint.safetensors")

    resumed = linear_learner(seed=7)
    resumed.step(*batch(seed=99))
    tensors = load_file(tmp_path / "checkpoint.safetensors")
    resumed.restore(tensors | {"random.cpu": torch.zeros(3)})
    for number in range(taken, taken + 3):
        expected = straight.step(*batch(seed=number))
        assert resumed.step(*batch(seed=number)) == expected
    found = resumed.tensors()
    assert list(found) == list(straight.tensors())
    assert all(torch.equal(t, found[name]) for name, t in straight.tensors().items())
    assert torch.equal(tensors["net.excite.bias"], stopped.tensors()["net.excite.bias"])


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("net.excite.bias", None, r"net.excite.bias is missing, not \[64\]"),
        ("net.excite.bias", torch.zeros(65), r"net.excite.bias is \[65\], not \[64\]"),
        ("exp_avg.compress.bias", None, "exp_avg.compress.bias is missing"),
        ("exp_avg_sq.compress.bias", torch.zeros(3), r"exp_avg_sq.compress.bias is \[3\]"),
        ("step.compress.bias", None, "step.compress.bias is missing"),
        ("step.compress.bias", torch.zeros(2), r"step.compress.bias is \[2\], not \[\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_change_nothing(name, replacement, message):
    subject, other = linear_learner(), linear_learner(seed=5)
    subject.step(*batch())
    other.step(*batch())
    before = {key: t.clone() for key, t in subject.tensors().items()}
    tensors = other.tensors()
    tensors.pop(name)
    if replacement is not None:
        tensors[name] = replacement
    with pytest.raises(TrainingError, match=message):
        subject.restore(tensors)
    assert all(torch.equal(t, before[key]) for key, t in subject.tensors().items())
