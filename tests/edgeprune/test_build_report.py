"""What a build tells of its pack at the end."""

import re

import numpy as np
import pytest
from PIL import Image

from edgeprune import BuildConfig, build_pack, open_source


def npz(folder, labels, side=16, channels=3):
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), side, side, channels))
    np.savez(folder / "images.npz", x=pixels.astype(np.uint8), y=labels)
    return f"npz:{folder / 'images.npz'}"


def test_the_size_of_pack_and_source(tmp_path):
    report = build_pack(npz(tmp_path, np.arange(40) % 2), tmp_path / "p.h5", BuildConfig(sample_prune=0.5))
    assert (report.images, report.classes) == (20, 2)
    assert report.bytes_per_image == (tmp_path / "p.h5").stat().st_size / 20
    assert report.source_bytes_per_image == 16 * 16 * 3


def test_a_gray_array_counts_as_it_is_stored(tmp_path):
    report = build_pack(npz(tmp_path, np.arange(40) % 2, channels=1), tmp_path / "p.h5")
    assert report.source_bytes_per_image == 16 * 16


def test_the_files_of_a_folder_count(tmp_path):
    random, sizes = np.random.default_rng(0), []
    for number in range(6):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 20 + number, 3)).astype(np.uint8)).save(path)
        sizes.append(path.stat().st_size)
    spec = f"imagefolder:{tmp_path / 'photos'}"
    report = build_pack(spec, tmp_path / "p.h5", BuildConfig(size=16))
    assert report.source_bytes_per_image == pytest.approx(np.mean(sizes))
    some = build_pack(spec, tmp_path / "p.h5", BuildConfig(size=16, sample_prune=0.5))
    assert some.source_bytes_per_image < max(sizes)


class Bare:
    """A source that knows nothing of how its images are stored."""

    def __init__(self, source):
        self._source = source

    def __len__(self):
        return len(self._source)

    def __getattr__(self, name):
        if name == "stored_bytes":
            raise AttributeError(name)
        return getattr(self._source, name)


def test_a_source_need_not_know_its_size(tmp_path):
    source = Bare(open_source(npz(tmp_path, np.arange(40) % 2, channels=1)))
    assert build_pack(source, tmp_path / "p.h5").source_bytes_per_image == 16 * 16


@pytest.mark.parametrize(
    ("labels", "config", "warnings"),
    [
        (np.arange(300) % 2, BuildConfig(), []),
        (np.arange(300) % 2, BuildConfig(codec="sparse-f32", freq_prune=0), ["larger|more than its source"]),
        (np.zeros(300, int), BuildConfig(), ["one class"]),
        (np.r_[np.zeros(298, int), 1, 2], BuildConfig(), [r"2 of 3 classes have one image \(1, 2\)"]),
    ],
)
def test_warnings(tmp_path, labels, config, warnings):
    report = build_pack(npz(tmp_path, labels), tmp_path / "p.h5", config)
    assert len(report.warnings) == len(warnings), report.warnings
    for found, expected in zip(report.warnings, warnings, strict=True):
        assert re.search(expected, found)
        assert "\n" not in found
