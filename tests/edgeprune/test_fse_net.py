import contextlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.fft import dctn, idctn
from torch import nn

from edgeprune import fse_net, torch_transform, transform
from edgeprune.fse_files import load_fse_net, save_fse_net
from edgeprune.fse_learner import MaskLearner, fse_loss, read_figures
from edgeprune.fse_net import FSENet, importance, select, select_components
from edgeprune.masks import energy_mask
from edgeprune.torch_transform import dct2, idct2
from edgeprune_formats import ArtefactError, ConfigError, EdgePruneError, TrainingError

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)


def photographs(count, height, width, *, seed=0):
    """Random bytes whose spectra fall off as those of photographs do, uint8 ``[count, 3, height, width]``."""
    random = np.random.default_rng(seed)
    distance = 1 + np.hypot(np.arange(height)[:, None], np.arange(width)[None, :])
    spectra = random.normal(size=(count, 3, height, width)) / distance * np.sqrt(height * width) / 4
    spectra[:, :, 0, 0] = 0.5 * np.sqrt(height * width)
    pixels = idctn(spectra, axes=(2, 3), norm="ortho") * 255
    return torch.from_numpy(pixels.clip(0, 255).round().astype(np.uint8))


# --- the selection of equation 8 ---


def brute_force(energy, scores, k, k_total):
    mask = np.zeros(energy.shape, bool)
    for row in np.ndindex(energy.shape[:-1]):
        by_energy = sorted(range(energy.shape[-1]), key=lambda i: (-energy[row][i], i))
        others = sorted(by_energy[k:], key=lambda i: (-scores[row][i], i))
        mask[row][by_energy[:k] + others[: k_total - k]] = True
    return mask


@st.composite
def selections(draw):
    """Energies and scores of few levels, so that most are tied, and counts at both of their ends too."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(7,), (1, 1), (3, 12), (2, 3, 20), (0, 5)]))
    levels = np.array([-np.inf, -1.0, 0.0, 0.5, 3.0, np.inf])
    energy, scores = (
        levels[random.integers(*draw(st.sampled_from([(0, 6), (2, 5), (3, 4)])), shape)] for _ in "es"
    )
    k_total = draw(st.integers(1, shape[-1]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return energy.astype(dtype), scores.astype(dtype), draw(st.integers(0, k_total)), k_total


@given(selections())
def test_the_selection_equals_sorting_whatever_the_kind_of_array(arguments):
    energy, scores, k, k_total = arguments
    expected = brute_force(energy, scores, k, k_total)
    found = select_components(energy, scores, k, k_total)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)
    tensors = torch.from_numpy(energy), torch.from_numpy(scores)
    on_the_cpu = select_components(*tensors, k, k_total)
    assert on_the_cpu.dtype == torch.bool
    np.testing.assert_array_equal(on_the_cpu.numpy(), expected)
    # What a tensor on another device goes through.
    np.testing.assert_array_equal(fse_net._select_by_chunks(*tensors, k, k_total).numpy(), expected)


def test_a_selection_worked_by_hand():
    energy, scores = np.array([9.0, 1.0, 4.0, 4.0, 2.0, 0.0]), np.array([0.1, 0.3, 0.2, 0.3, 0.9, 0.3])
    # Energy takes 0 and, of the equal 2 and 3, the lower. Importance takes 4 and, of the equal 1, 3 and 5, 1.
    assert select_components(energy, scores, 2, 4).tolist() == [True, True, True, False, True, False]
    assert select_components(energy, scores, 0, 2).tolist() == [False, True, False, False, True, False]
    assert select_components(energy, scores, 3, 3).tolist() == [True, False, True, True, False, False]
    assert select_components(energy, scores, 1, 6).all()


@pytest.mark.parametrize("k", [0, 20, 50])
def test_the_count_is_exact_and_the_highest_energies_are_always_in(k):
    random = np.random.default_rng(0)
    energy, scores = random.normal(size=(4, 3, 300)) ** 2, random.normal(size=(4, 3, 300))
    mask = select_components(energy, scores, k, 50)
    assert (mask.sum(-1) == 50).all()
    highest = energy.argsort(-1)[..., 300 - k :]
    assert np.take_along_axis(mask, highest, -1).all()


def test_a_selection_in_chunks_is_the_same(monkeypatch):
    random = np.random.default_rng(0)
    energy, scores = random.integers(0, 5, (2, 7, 3, 40)).astype(np.float32)
    whole = select_components(energy, scores, 5, 20)
    monkeypatch.setattr(fse_net, "CHUNK_VALUES", 100)
    np.testing.assert_array_equal(select_components(energy, scores, 5, 20), whole)


def test_all_of_one_energy_is_the_energy_mask():
    spectra = transform.dct2(photographs(4, 12, 20).numpy())
    flat = np.abs(spectra).reshape(4, 3, -1)
    mask = select_components(flat, -flat, 60, 60)
    np.testing.assert_array_equal(mask.reshape(spectra.shape), energy_mask(spectra, 60))


@pytest.mark.parametrize(
    ("k", "k_total", "message"),
    [
        (-1, 3, "k is -1; .* k_total, which is 3"),
        (4, 3, "k is 4; .* k_total, which is 3"),
        (0, 0, "k_total is 0; .* 6 components"),
        (0, 7, "k_total is 7; .* 6 components"),
        (0, -1, "k_total is -1; .* 6 components"),
    ],
)
def test_counts_out_of_range_are_refused(k, k_total, message):
    with pytest.raises(ConfigError, match=message):
        select_components(np.zeros((2, 6)), np.zeros((2, 6)), k, k_total)
    with pytest.raises(ConfigError, match=message):
        select(FSENet(2, 3), torch.zeros(1, 3, 2, 3), k, k_total)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_arrays_that_cannot_be_ordered_together_are_refused(kind):
    right, wrong = kind(np.ones((2, 6))), kind(np.array([[1.0] * 6, [1.0, np.nan] * 3]))
    with pytest.raises(ConfigError, match=r"one shape \[..., F\], not \(2, 6\) and \(2, 5\)"):
        select_components(right, right[:, :5], 1, 2)
    with pytest.raises(ConfigError, match="one shape"):
        select_components(right[0, 0], right[0, 0], 1, 1)
    with pytest.raises(ConfigError, match="energy holds NaN"):
        select_components(wrong, right, 1, 2)
    with pytest.raises(ConfigError, match="importance holds NaN"):
        select_components(right, wrong, 1, 2)


def test_arrays_and_tensors_are_not_mixed():
    with pytest.raises(ConfigError, match="both"):
        select_components(np.ones(3), torch.ones(3), 1, 2)


# --- the network ---


@pytest.mark.parametrize(
    ("size", "options", "grid"),
    [
        ((32, 32), {}, (32, 32)),
        ((8, 8), {}, (8, 8)),
        ((1, 1), {}, (1, 1)),
        ((224, 224), {}, (32, 32)),
        ((30, 50), {}, (24, 42)),
        ((30, 50), {"max_inputs": 100}, (7, 14)),
        ((1, 5000), {}, (1, 1024)),
        ((5000, 1), {}, (1024, 1)),
        ((30, 50), {"max_inputs": 1, "reduction": 9}, (1, 1)),
    ],
)
def test_weights_have_the_size_of_the_spectra(size, options, grid):
    net = FSENet(*size, **options)
    torch.nn.init.normal_(net.excite.weight, std=0.1)
    weights = net(torch.randn(2, 3, *size))
    assert net.grid == grid
    assert weights.shape == (2, 1, *size)
    assert weights.dtype == torch.float32
    assert ((weights > 0) & (weights < 1)).all()


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (30, 50), (224, 224)])
def test_the_start_is_exactly_the_energy_mask(size):
    net, spectra = FSENet(*size), dct2(photographs(2, *size) / 255)
    count = size[0] * size[1] // 3
    mask, weights = select(net, spectra, count // 5, count)
    assert (weights == 0.5).all()
    assert mask.dtype == torch.bool
    np.testing.assert_array_equal(mask.numpy(), energy_mask(spectra.numpy(), count))


def test_a_selection_goes_by_weight_times_magnitude():
    net, spectra = FSENet(6, 8), dct2(photographs(3, 6, 8) / 255)
    torch.nn.init.normal_(net.excite.weight)
    mask, weights = select(net, spectra, 4, 20)
    assert torch.equal(weights, net(spectra))
    scores = importance(spectra, weights)
    torch.testing.assert_close(scores, weights.expand_as(spectra) * spectra.abs(), rtol=0, atol=0)
    expected = brute_force(spectra.abs().flatten(2).numpy(), scores.detach().flatten(2).numpy(), 4, 20)
    np.testing.assert_array_equal(mask.flatten(2).numpy(), expected)


def test_a_cell_shares_its_weight_and_sees_only_its_mean():
    net = FSENet(8, 12, max_inputs=24)
    assert net.grid == (4, 6)
    torch.nn.init.normal_(net.excite.weight)
    spectra = torch.rand(2, 3, 8, 12)
    weights = net(spectra)
    assert torch.equal(weights[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3), weights)
    # The channels and the four frequencies of a cell may change places, and signs do not count.
    cells = spectra.unflatten(2, (4, 2)).unflatten(4, (6, 2))
    swapped = -cells.flip(1, 3, 5).flatten(4, 5).flatten(2, 3)
    torch.testing.assert_close(net(swapped), weights)


@pytest.mark.parametrize("size", [(16, 16), (30, 50)])
def test_what_the_network_sees_has_neither_contrast_nor_decay(size):
    net, seen = FSENet(*size), []
    net.compress.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(dct2(photographs(4, *size) / 255))
    torch.testing.assert_close(seen[0].mean(1), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[0].var(1, correction=0), torch.ones(4), rtol=1e-3, atol=0)
    torch.testing.assert_close(seen[0] @ net.decay, torch.zeros(4), rtol=0, atol=1e-3)
    # The line is one in log(1 + frequency), which rises from the mean of the image on.
    assert net.decay[0] == net.decay.min() < 0
    assert net.decay[-1] == net.decay.max() > 0


def test_weights_differ_between_images_but_not_for_blank_ones():
    net = FSENet(8, 8)
    torch.nn.init.normal_(net.excite.weight)
    images = torch.cat([photographs(2, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
    weights = net(dct2(images / 255))
    assert weights.isfinite().all()
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)


def test_the_seed_of_torch_decides_the_network():
    def seeded(seed):
        torch.manual_seed(seed)
        return FSENet(8, 8).state_dict()

    first, again, other = seeded(1), seeded(1), seeded(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["compress.weight"], other["compress.weight"])


@pytest.mark.parametrize("name", ["height", "width", "max_inputs", "reduction"])
def test_sizes_below_one_are_refused(name):
    sizes = {"height": 8, "width": 8, name: 0}
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        FSENet(**sizes)


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (3, 8, 8), (1, 3, 64)])
def test_spectra_of_another_size_are_refused(shape):
    with pytest.raises(ConfigError, match=r"takes spectra \[n, C, 8, 8\]"):
        FSENet(8, 8)(torch.zeros(shape))


# --- the transform ---


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 30, 50), (1, 3, 224, 224), (4, 1, 1, 7)])
def test_the_transform_is_that_of_scipy(shape):
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    expected = dctn(images.astype(np.float64), axes=(2, 3), norm="ortho")
    spectra = dct2(torch.from_numpy(images))
    assert spectra.dtype == torch.float32
    np.testing.assert_allclose(spectra, expected, atol=1e-6 * np.sqrt(shape[2] * shape[3]))
    np.testing.assert_allclose(idct2(spectra), images, atol=1e-5)
    np.testing.assert_allclose(
        idct2(torch.from_numpy(images)), idctn(images, axes=(2, 3), norm="ortho"), rtol=1e-6, atol=1e-5
    )


def test_the_transform_takes_views_and_the_bytes_scaled():
    images = photographs(2, 12, 20)
    spectra = dct2(images / 255)
    np.testing.assert_allclose(spectra, transform.dct2(images.numpy()), atol=1e-5)
    view = (images / 255).to(memory_format=torch.channels_last)
    torch.testing.assert_close(dct2(view), spectra)


def test_the_gradient_of_the_inverse_is_the_transform():
    spectra = torch.randn(2, 3, 5, 7, requires_grad=True)
    outer = torch.randn(2, 3, 5, 7)
    (idct2(spectra) * outer).sum().backward()
    torch.testing.assert_close(spectra.grad, dct2(outer))


def test_a_transform_made_in_inference_mode_serves_training_too():
    torch_transform._basis.cache_clear()
    with torch.inference_mode():
        idct2(torch.randn(1, 1, 4, 6))
    idct2(torch.randn(1, 1, 4, 6, requires_grad=True)).sum().backward()


def test_products_that_tf32_would_round_are_taken_in_double_precision():
    before = torch.get_float32_matmul_precision()
    try:
        for precision, dtype in (("high", torch.float64), ("highest", torch.float32)):
            torch.set_float32_matmul_precision(precision)
            assert torch_transform._exact_dtype(torch.device("cuda", 0)) == dtype
            assert torch_transform._exact_dtype(torch.device("cpu")) == torch.float32
    finally:
        torch.set_float32_matmul_precision(before)


def test_double_precision_products_come_back_in_single(monkeypatch):
    monkeypatch.setattr(torch_transform, "_exact_dtype", lambda device: torch.float64)
    images = torch.rand(2, 3, 8, 8)
    assert dct2(images).dtype == torch.float32
    torch.testing.assert_close(idct2(dct2(images)), images)


# --- the loss of equation 6 ---


def test_the_loss_of_a_hand_worked_example():
    # Softmax of (ln 3, 0) is (3/4, 1/4), of (0, 0) it is (1/2, 1/2).
    logits = torch.tensor([[np.log(3.0), 0.0], [0.0, 0.0]], dtype=torch.float32)
    loss, entropy, probability = fse_loss(logits, torch.tensor([1, 0]), 0.1)
    entropies = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), np.log(2)
    assert float(entropy) == pytest.approx(sum(entropies) / 2, rel=1e-6)
    assert float(probability) == pytest.approx((0.25 + 0.5) / 2, rel=1e-6)
    assert float(loss) == pytest.approx(sum(entropies) / 2 - 0.1 * 0.375, rel=1e-6)


def test_the_loss_of_certain_predictions_is_finite_in_value_and_gradient():
    logits = torch.tensor([[1000.0, -1000.0, 0.0]], requires_grad=True)
    loss, entropy, probability = fse_loss(logits, torch.tensor([0]), 0.5)
    loss.backward()
    assert [figure.tolist() for figure in (loss, entropy, probability)] == [-0.5, 0.0, 1.0]
    assert logits.grad.isfinite().all()
    assert fse_loss(logits.detach().bfloat16(), torch.tensor([0]), 0.5)[0].dtype == torch.float32


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


def test_a_weak_component_that_the_classifier_needs_is_learnt():
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
        ({"k": 21}, "k is 21"),
        ({"k_total": 65}, "k_total is 65"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"accuracy_weight": -0.1}, "accuracy_weight is -0.1"),
        ({"accuracy_weight": float("inf")}, "accuracy_weight is inf"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        linear_learner(**options)


def test_images_other_than_bytes_of_the_right_size_are_refused():
    with pytest.raises(ConfigError, match=r"images must be uint8, not torch\.float32"):
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


# --- the file ---

RECORD = {"k": 30, "k_total": 102, "accuracy_weight": 0.05, "classifier": {"läuft": [1, None]}}


def trained_net():
    torch.manual_seed(0)
    net = FSENet(12, 20, max_inputs=100, reduction=3)
    nn.init.normal_(net.excite.weight)
    return net


def test_a_saved_network_comes_back(tmp_path):
    path = tmp_path / "fse.safetensors"
    net = trained_net()
    save_fse_net(path, net, RECORD)
    random_state = torch.get_rng_state()
    loaded, record = load_fse_net(str(path))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert record == RECORD
    assert (loaded.height, loaded.width, loaded.max_inputs, loaded.reduction) == (12, 20, 100, 3)
    spectra = dct2(photographs(2, 12, 20) / 255)
    assert torch.equal(loaded(spectra), net(spectra))
    loaded(spectra).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_equal_networks_give_equal_files(tmp_path):
    save_fse_net(tmp_path / "a", trained_net(), RECORD)
    save_fse_net(tmp_path / "b", trained_net(), dict(reversed(RECORD.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("entry", [float("nan"), object(), {1, 2}])
def test_a_record_that_json_cannot_hold_is_refused(tmp_path, entry):
    with pytest.raises(ConfigError, match="JSON"):
        save_fse_net(tmp_path / "fse", trained_net(), {"entry": entry})
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(TrainingError, match="cannot be written"):
        save_fse_net(tmp_path / "absent" / "fse", trained_net(), RECORD)


def described(**settings):
    values = {"height": 12, "width": 20, "max_inputs": 100, "reduction": 3} | settings
    return {"edgeprune": json.dumps({"fse_net": values, "record": {}})}


NET = trained_net().state_dict()
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a file of tensors"),
    "folder": lambda path: path.mkdir(),
    "cut off": lambda path: (save_fse_net(path, trained_net(), {}), path.write_bytes(path.read_bytes()[:-9])),
    "no metadata": lambda path: save_file(NET, path),
    "a classifier": lambda path: save_file(NET, path, {"edgeprune": json.dumps({"model": "resnet18"})}),
    "not JSON": lambda path: save_file(NET, path, {"edgeprune": "{"}),
    "a list": lambda path: save_file(NET, path, {"edgeprune": '["fse_net"]'}),
    "no record": lambda path: save_file(NET, path, {"edgeprune": json.dumps({"fse_net": {}})}),
    "another size": lambda path: save_file(NET, path, described(height=14)),
    "a huge size": lambda path: save_file(NET, path, described(height=10**9, width=10**9, max_inputs=10**18)),
    "a size of 0": lambda path: save_file(NET, path, described(width=0)),
    "a size in words": lambda path: save_file(NET, path, described(width="wide")),
    "a fraction": lambda path: save_file(NET, path, described(max_inputs=99.5)),
    "an unknown setting": lambda path: save_file(NET, path, described(depth=3)),
    "a tensor short": lambda path: save_file({"excite.bias": NET["excite.bias"]}, path, described()),
    "a tensor over": lambda path: save_file(NET | {"more": torch.zeros(1)}, path, described()),
    "not a number": lambda path: save_file(NET | {"excite.bias": NET["excite.bias"] / 0}, path, described()),
    "half precision": lambda path: save_file({k: v.half() for k, v in NET.items()}, path, described()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_an_fse_net_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "fse.safetensors"
    DAMAGES[damage](path)
    with pytest.raises(ArtefactError) as caught:
        load_fse_net(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "train it again" in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"absent: no such file; train an FSE-Net first"):
        load_fse_net(tmp_path / "absent")
    assert issubclass(ArtefactError, EdgePruneError)
