"""The tiles that a quantized pack takes where none are asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest

from edgeprune import BuildConfig, build_pack
from edgeprune.packs.config import METHODS
from edgeprune.packs.encoding.dct import dct2
from edgeprune.packs.encoding.tiles import laid_out, sample_size
from edgeprune.repack.convert import convert_pack
from edgeprune.work.processes import Workers
from edgeprune_formats import PackHeader, PackWriter, open_pack, verify_pack
from edgeprune_formats.packs.chunks import plan_chunks

SIDE = 24


def pictures(images, side=SIDE, seed=0):
    """Edges in places that differ from image to image, which small tiles suit; uint8 [n, H, W, 3]."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (images, -(-side // 4), -(-side // 4), 3))
    return coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :side, :side].astype(np.uint8)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "images.npz"
    np.savez(path, x=pictures(80), y=np.arange(80) % 2)
    return f"npz:{path}"


def header(**changes):
    described = PackHeader(
        samples=500,
        channels=3,
        height=SIDE,
        width=SIDE,
        components=SIDE * SIDE,
        codec="quantized",
        chunk_samples=1,
        class_names=("a",),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        color_space="ycbcr",
        step=0.05,
    )
    return replace(described, **changes)


def sample(side=SIDE, images=12):
    spectra = dct2(pictures(images, side).transpose(0, 3, 1, 2))
    return spectra, np.ones(spectra.shape, bool)


def refuse():
    raise AssertionError("no sample is needed")


@pytest.mark.slow
def test_a_build_takes_the_tile_of_fewest_bytes_at_equal_error(spec, tmp_path):
    report = build_pack(spec, tmp_path / "p.h5")
    tried = report.header.provenance["tile"]
    assert set(tried["bytes_per_image"]) == {"full", "16", "8"}
    assert tried["images"] == 64
    assert report.header.tile == min(tried["bytes_per_image"], key=tried["bytes_per_image"].get)
    assert "tile" not in report.header.provenance["config"]
    assert verify_pack(tmp_path / "p.h5") == []
    # What was measured is what whole packs take: at the PSNR of the first, between two qualities.
    for tile, size in tried["bytes_per_image"].items():
        points = []
        for quality in (75.0, 70.0):
            path = tmp_path / "other.h5"
            made = build_pack(spec, path, BuildConfig(tile=tile, quality=quality))
            with open_pack(path) as pack:
                points.append((made.psnr, sum(payload_bytes(pack)) / len(pack)))
        (fine, large), (coarse, small) = points
        slope = math.log(large / small) / (fine - coarse)
        expected = large * math.exp(slope * (tried["psnr_db"] - fine))
        assert size == pytest.approx(expected, rel=0.1), tile


def payload_bytes(pack):
    import h5py

    with h5py.File(pack.path, "r", locking=False) as file:
        yield file["samples/payload"].nbytes


def test_a_tile_that_is_given_is_taken_without_a_trial(spec, tmp_path):
    given = laid_out(header(), "32", refuse)
    assert (given.tile, "tile" in given.provenance) == ("32", False)
    made = build_pack(spec, tmp_path / "p.h5", BuildConfig(tile="full"))
    assert made.header.tile == "full"
    assert made.header.provenance["config"]["tile"] == "full"
    assert "tile" not in made.header.provenance


@pytest.mark.slow
def test_auto_is_the_default(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    build_pack(spec, tmp_path / "none.h5")
    build_pack(spec, tmp_path / "auto.h5", BuildConfig(tile="auto", codec="quantized"))
    assert (tmp_path / "none.h5").read_bytes() == (tmp_path / "auto.h5").read_bytes()


@pytest.mark.parametrize(
    ("side", "tiles"),
    [(8, ["full"]), (12, ["full", "8"]), (64, ["full", "32", "16", "8"]), (72, ["32", "16", "8"])],
)
def test_the_sizes_that_are_tried_are_smaller_than_the_image(side, tiles):
    images = sample(side, 4)
    made = laid_out(header(height=side, width=side, components=side * side), None, lambda: images)
    tried = made.provenance.get("tile", {"bytes_per_image": {"full": 0}})["bytes_per_image"]
    assert list(tried) == tiles
    assert made.tile in tiles


def test_a_codec_that_does_not_quantize_has_no_tiles():
    made = laid_out(header(codec="sparse-f32", step=0.0, color_space="rgb"), None, refuse)
    assert (made.tile, made.provenance) == ("full", {})
    assert made.chunk_samples > 1


class Peer(Workers):
    """One of two processes, the second of which hears what the first has found."""

    content = b""

    def from_first(self, content):
        if self.rank == 0:
            type(self).content = content
        return type(self).content


@pytest.mark.slow
def test_every_process_takes_what_the_first_has_found():
    first = laid_out(header(), None, sample, workers=Peer(0, 2))
    second = laid_out(header(), None, refuse, workers=Peer(1, 2))
    assert first == second == laid_out(header(), None, sample)


def test_a_step_too_fine_for_large_tiles_leaves_the_smaller_ones():
    # Differences of frequency 0 of a whole image of 64x64 do not fit 16 bits; those of tiles of 8 do.
    images = sample(64, 4)
    fine = header(height=64, width=64, components=64 * 64, step=0.5 / 255)
    made = laid_out(fine, None, lambda: (images[0] * 2, images[1]))
    assert "8" in made.provenance["tile"]["bytes_per_image"]
    assert "full" not in made.provenance["tile"]["bytes_per_image"]


def test_the_sample_is_bounded():
    assert sample_size(32, 32) == sample_size(64, 64) == 64
    assert sample_size(224, 224) * 224 * 224 <= 2**19
    assert sample_size(4096, 4096) == 2


@pytest.mark.slow
def test_a_conversion_tries_the_tiles_as_well(spec, tmp_path):
    build_pack(spec, tmp_path / "p.h5", BuildConfig(codec="sparse-f32", freq_prune=0))
    made, _ = convert_pack(tmp_path / "p.h5", tmp_path / "q.h5", BuildConfig())
    again, _ = convert_pack(tmp_path / "q.h5", tmp_path / "s.h5", BuildConfig(codec="sparse-f32"))
    assert made.tile == min(made.provenance["tile"]["bytes_per_image"].items(), key=lambda one: one[1])[0]
    assert made.provenance["tile"]["images"] == 64
    assert (again.tile, "tile" in again.provenance) == ("full", False)
    assert again.provenance["converted"]["tile"] == made.tile


def test_quantized_is_the_default_codec():
    assert BuildConfig().codec == "quantized"
    assert BuildConfig().components_dropped == 0
    assert BuildConfig(codec="sparse-f32").components_dropped == METHODS["energy"].freq_prune


def shown(edgeprune, path):
    code, out, err = edgeprune("info", path)
    assert code == 0, err
    return next(line for line in out.splitlines() if line.startswith("  tile "))


def test_info_says_in_words_what_each_size_took(edgeprune, spec, tmp_path):
    tried = build_pack(spec, tmp_path / "p.h5").header.provenance["tile"]
    costs = sorted(tried["bytes_per_image"].items(), key=lambda one: one[1])
    expected = ", ".join(f"{size}: {cost:.0f}" for size, cost in costs)
    expected += f" B an image, on a sample of 64 at {tried['psnr_db']:.2f} dB"
    assert shown(edgeprune, tmp_path / "p.h5") == f"  tile        {expected}"


@pytest.mark.parametrize(
    ("trial", "text"),
    [
        ({"images": 64, "psnr_db": 31.785018124637432}, "images=64, psnr_db=31.785"),
        ({"images": 64, "psnr_db": None, "bytes_per_image": {"8": None}}, "images=64"),
        ({"bytes_per_image": [1], "images": 64, "psnr_db": 30}, "bytes_per_image=[1], images=64, psnr_db=30"),
        ("large", "large"),
    ],
)
def test_info_shows_as_it_is_what_is_no_trial(edgeprune, tmp_path, trial, text):
    strange = plan_chunks(header(samples=2, tile="8", provenance={"tile": trial}))
    with PackWriter(tmp_path / "p.h5", strange, np.zeros(2, int), np.arange(2)) as writer:
        writer.append(*sample(images=2))
        writer.finish()
    assert shown(edgeprune, tmp_path / "p.h5") == f"  tile        {text}"
