"""Scores of other images, or damaged ones, choose nothing."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from selections import EVERY, JE, image_arrays, npz_source, one_line, recorded, score, select_with, write

from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.selection import compute_scores, require_enough
from edgeprune.sources import check_source
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError


@pytest.fixture
def scored(tmp_path):
    return score(tmp_path, npz_source(tmp_path, *image_arrays()))


def changed_pixel(pixels, labels):
    pixels[17, 3, 2, 1] ^= 1
    return pixels, labels


def changed_label(pixels, labels):
    labels[17] = (labels[17] + 1) % 3
    return pixels, labels


def fewer(pixels, labels):
    return pixels[:-1], labels[:-1]


@pytest.mark.parametrize("change", [changed_pixel, changed_label, fewer])
def test_scores_of_another_source_are_refused(scored, tmp_path, change):
    (tmp_path / "other").mkdir()
    source = npz_source(tmp_path / "other", *change(*image_arrays()))
    with pytest.raises(
        ArtifactError, match=r"scores of other images or labels .* edgeprune score npz"
    ) as error:
        select_with(source, check_source(source), JE, scored.records)
    assert one_line(error)
    assert str(scored.records.path) in str(error.value)


def test_scores_from_before_an_unreadable_image_came_or_went_are_refused(scored):
    moved = replace(scored.check, good=scored.check.good + 1)
    with pytest.raises(ArtifactError, match=r"have come or gone; make them with: edgeprune score") as error:
        select_with(scored.source, moved, JE, scored.records)
    assert one_line(error)


@pytest.mark.parametrize("place", ["entropies/entropies", "epochs/margins"])
def test_damaged_scores_are_named(scored, place):
    path = scored.records.path
    with h5py.File(path, "r") as file:
        offset = file[place].chunks and file[place].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 7] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(
        ArtifactError, match=f"/{place}: does not match its checksum.*repeat: edgeprune score"
    ):
        scored.choose()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["entropies", "margins"])
def test_records_that_are_not_finite_are_named(tmp_path, name, value):
    source = npz_source(tmp_path, *image_arrays())
    check, series = check_source(source), recorded(60)
    series[name][EVERY - 1, 5] = value
    records = write(tmp_path / "s.h5", source, check, series)
    with pytest.raises(ArtifactError, match=r"s\.h5: .*not finite.*edgeprune score") as error:
        select_with(source, check, JE, records)
    assert one_line(error)


class Unchecked:
    """Records as a reader that does not look at them would give them."""

    def __init__(self, records, array):
        self.path, self.rows, self._array = records.path, records.rows, array

    def array(self, name):
        return self._array


@pytest.mark.parametrize("array", [np.zeros((0, 60), "f4"), np.full((2, 60), np.nan, "f4")])
def test_what_a_formula_refuses_is_the_files_fault(scored, array):
    records = Unchecked(scored.records, array)
    with pytest.raises(ArtifactError, match=r"s\.h5: .*; repeat: edgeprune score"):
        compute_scores(records, CoresetConfig(score="aum"))


def enough(scored, how):
    require_enough(scored.source, scored.check.good, sample_prune=how.sample_prune, config=how.coreset)


@pytest.mark.parametrize("balance", [False, True])
def test_a_beta_that_leaves_too_few_shows_before_there_are_scores(scored, balance):
    config = replace(JE, coreset=CoresetConfig(beta=0.6, class_balance=balance))
    with pytest.raises(ConfigError, match=r"`beta` 0\.6 leaves") as before:
        enough(scored, config)
    with pytest.raises(ConfigError) as after:
        scored.choose(config)
    assert str(before.value) == str(after.value)
    enough(scored, replace(JE, coreset=CoresetConfig(beta=0.5)))
    enough(scored, replace(config, coreset=CoresetConfig("aum", "top-k", beta=0.6)))
