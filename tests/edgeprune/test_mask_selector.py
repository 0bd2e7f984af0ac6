"""Choosing components by an FSE-Net that was learned."""

import numpy as np
import pytest
import small_builds
import torch
from small_builds import LF

from edgeprune.masks import learning as mask_learning
from edgeprune.masks.classifier import classifier_from_scores
from edgeprune.masks.components import energy_mask
from edgeprune.masks.fse_file import load_fse_net, save_fse_net
from edgeprune.masks.fse_net import select
from edgeprune.masks.learning import learn_masks, learned_selector, load_masks
from edgeprune.packs.encoding.dct import dct2
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune.sources import open_source
from edgeprune.work.processes import Workers
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError

K, K_TOTAL, WEIGHT = 14, 72, 0.1


@pytest.fixture(scope="module")
def whole(scored, tmp_path_factory):
    """An FSE-Net that was learned without a stop."""
    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    classifier = classifier_from_scores(read_scores_file(scored.scores))
    return path, learn_masks(
        scored.source,
        scored.check,
        classifier,
        path,
        LF.masks,
        freq_prune=LF.components_dropped,
        seed=LF.seed,
        workers=Workers(device=LF.device),
    )


def other_spectra(images):
    pixels, _ = small_builds.pixels(images, seed=8)
    return dct2(pixels.transpose(0, 3, 1, 2))


def test_the_selector_keeps_what_the_network_selects(whole):
    path, _ = whole
    spectra = other_spectra(7)
    net, record = load_fse_net(path)
    expected, _ = select(net, torch.from_numpy(spectra), K, K_TOTAL)
    selector = learned_selector(load_fse_net(path)[0], record["k"], record["k_total"], "cpu")
    found = selector(spectra)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected.numpy())
    assert (found.sum((2, 3)) == K_TOTAL).all()
    assert (found & energy_mask(spectra, K) == energy_mask(spectra, K)).all()
    assert (found != energy_mask(spectra, K_TOTAL)).any()


def test_the_selector_takes_some_images_at_a_time(whole, monkeypatch):
    spectra = other_spectra(10)
    at_once = learned_selector(whole[1][0], K, K_TOTAL, "cpu")(spectra)
    monkeypatch.setattr(mask_learning, "_SELECT_VALUES", 4 * 3 * 144)
    sizes = []

    def noting(net, part, *counts):
        sizes.append(len(part))
        return select(net, part, *counts)

    monkeypatch.setattr(mask_learning, "select", noting)
    np.testing.assert_array_equal(learned_selector(whole[1][0], K, K_TOTAL, "cpu")(spectra), at_once)
    assert sizes == [4, 4, 2]


def test_a_network_is_loaded_for_the_ratio_that_it_was_learned_for(scored, whole):
    for ratio in (None, 0.5):
        net, record = load_masks(whole[0], scored.source, ratio)
        assert (record["k"], record["k_total"]) == (K, K_TOTAL)
        assert torch.equal(net.excite.weight, whole[1][0].excite.weight)
    with pytest.raises(ConfigError, match=r"ratio of 0\.5, not 0\.6; leave `freq_prune` out"):
        load_masks(whole[0], scored.source, 0.6)


def test_a_network_for_another_size_is_refused(whole, tmp_path):
    source = open_source(small_builds.write_source(tmp_path, side=16))
    with pytest.raises(ArtifactError, match=r"for images of 12x12, and those of npz:.* are 16x16; resize"):
        load_masks(whole[0], source, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": None}, "how many"),
        ({"k_total": "72"}, "how many"),
        ({"freq_prune": [0.5]}, "how many"),
        ({"k": 73}, "cannot be"),
        ({"k": -1}, "cannot be"),
        ({"k": 0, "k_total": 0}, "cannot be"),
        ({"k_total": 145}, "cannot be"),
        ({"freq_prune": 1.5}, "cannot be"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(scored, whole, tmp_path, change, message):
    net, record = whole[1]
    path = tmp_path / "net.safetensors"
    save_fse_net(path, net, {**record, **change})
    with pytest.raises(ArtifactError, match=f"{message}.*learn it again") as error:
        load_masks(path, scored.source, None)
    assert "\n" not in str(error.value)
