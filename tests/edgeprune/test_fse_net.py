import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from photographs import photographs

from edgeprune.masks import components
from edgeprune.masks.components import energy_mask, select_components
from edgeprune.masks.fse_net import FSENet, importance, select
from edgeprune.masks.torch_dct import dct2
from edgeprune.packs.encoding import dct as transform
from edgeprune_formats import ConfigError

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


@pytest.mark.slow
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
    np.testing.assert_array_equal(components._select_by_chunks(*tensors, k, k_total).numpy(), expected)


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
    monkeypatch.setattr(components, "CHUNK_VALUES", 100)
    np.testing.assert_array_equal(select_components(energy, scores, 5, 20), whole)


def test_all_of_one_energy_is_the_energy_mask():
    spectra = transform.dct2(photographs(4, 12, 20).numpy())
    flat = np.abs(spectra).reshape(4, 3, -1)
    mask = select_components(flat, -flat, 60, 60)
    np.testing.assert_array_equal(mask.reshape(spectra.shape), energy_mask(spectra, 60))


@pytest.mark.parametrize(
    ("k", "k_total", "message"),
    [
        (-1, 3, "k` is -1; .* `k_total`, which is 3"),
        (4, 3, "k` is 4; .* `k_total`, which is 3"),
        (0, 0, "k_total` is 0; .* 6 components"),
        (0, 7, "k_total` is 7; .* 6 components"),
        (0, -1, "k_total` is -1; .* 6 components"),
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
    with pytest.raises(ConfigError, match="`energy` holds NaN"):
        select_components(wrong, right, 1, 2)
    with pytest.raises(ConfigError, match="`importance` holds NaN"):
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
    with pytest.raises(ConfigError, match=f"`{name}` is 0"):
        FSENet(**sizes)


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (3, 8, 8), (1, 3, 64)])
def test_spectra_of_another_size_are_refused(shape):
    with pytest.raises(ConfigError, match=r"takes spectra \[n, C, 8, 8\]"):
        FSENet(8, 8)(torch.zeros(shape))
