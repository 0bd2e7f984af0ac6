import math

import numpy as np
import pytest

from edgeprune_benchmarks.codec.matching import Curve, at_psnr, bracket
from edgeprune_benchmarks.codec.peers import LOSSLESS, LOSSY, Peer, decode_all, encode_all, jxl_distance
from edgeprune_formats import EdgePruneError


def images(count=6, side=32):
    """Smooth images of little color, which every codec can do well, with a little noise."""
    random = np.random.default_rng(0)
    place = np.linspace(0, 2 * np.pi, side)
    waves = np.sin(place[:, None] * random.uniform(0.5, 2, (count, 1, 1, 1)) + place[None])
    tint = random.uniform(-20, 20, (count, 3, 1, 1))
    return (
        (127 + 80 * waves + tint + random.normal(0, 4, (count, 1, side, side))).clip(0, 255).astype(np.uint8)
    )


@pytest.fixture
def codecs():
    pytest.importorskip("imagecodecs")


def counting(errors):
    """A peer whose level L adds errors[L] to every pixel and takes 100 L + 50 bytes, and its calls."""
    calls = []

    def encode(image, level):
        calls.append(level)
        return bytes([image[0, 0, 0] + errors[level]]) + bytes(100 * level + 49)

    def decode(file):
        return np.full((12, 12, 4), file[0], np.uint8)

    return Peer("counting", encode, decode, lambda file: len(file) - 50, (0, len(errors) - 1)), calls


def test_bracket_finds_the_neighbors_of_a_target():
    assert bracket(lambda level: level * 1.5, 10, (0, 100)) == (6, 7)
    assert bracket(lambda level: level * 1.5, 9, (0, 100)) == (5, 6)
    assert bracket(float, 0, (0, 100)) == (0, 0)


@pytest.mark.parametrize("target", [-1, 101])
def test_bracket_has_nothing_for_a_target_out_of_reach(target):
    assert bracket(float, target, (0, 100)) is None


def test_bracket_holds_where_quality_dips():
    quality = [0, 5, 3, 8, 7, 12]
    low, high = bracket(lambda level: quality[level], 6, (0, 5))
    assert high == low + 1
    assert quality[low] < 6 <= quality[high]


def test_bytes_are_linear_in_psnr_between_two_levels_and_no_level_is_encoded_twice():
    peer, calls = counting([40, 30, 20, 10, 5, 2, 1])
    originals = np.full((3, 3, 12, 12), 100, np.uint8)
    curve = Curve(peer, originals)
    below, above = (20 * math.log10(255 / error) for error in (10, 5))
    point = at_psnr(curve, below + 0.25 * (above - below))
    assert point.level == pytest.approx(3.25)
    assert point.file_bytes == pytest.approx(350 + 25)
    assert point.payload_bytes == pytest.approx(300 + 25)
    at_psnr(curve, above)
    assert all(calls.count(level) in (0, 3) for level in range(7))
    assert at_psnr(curve, 60) is None


@pytest.mark.slow
@pytest.mark.parametrize("peer", LOSSY, ids=lambda peer: peer.name)
def test_a_real_codec_is_matched_between_two_of_its_own_levels(codecs, peer):
    curve = Curve(peer, images())
    target = 31.0
    point = at_psnr(curve, target)
    below, above = curve(math.floor(point.level)), curve(math.ceil(point.level))
    assert point.psnr_db == target
    assert below.psnr_db <= target <= above.psnr_db
    assert min(below.file_bytes, above.file_bytes) <= point.file_bytes
    assert point.file_bytes <= max(below.file_bytes, above.file_bytes)
    assert 0 < point.payload_bytes <= point.file_bytes


@pytest.mark.parametrize("peer", LOSSLESS, ids=lambda peer: peer.name)
def test_lossless_codecs_are_so(codecs, peer):
    originals = images()
    point = Curve(peer, originals)(0)
    assert point.psnr_db == math.inf
    assert point.payload_bytes <= point.file_bytes


@pytest.mark.parametrize("peer", LOSSY, ids=lambda peer: peer.name)
def test_better_levels_are_better(codecs, peer):
    curve, (low, high) = Curve(peer, images()), peer.levels
    assert curve(low + (high - low) // 3).psnr_db < curve(high).psnr_db


def test_an_image_of_another_shape_is_an_error():
    peer, _ = counting([0, 0])
    with pytest.raises(EdgePruneError, match="counting decodes to"):
        decode_all(peer, [b"\x01"], (3, 11, 12))


def test_files_come_in_the_order_of_the_images():
    peer, _ = counting([0])
    originals = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((3, 12, 12), np.uint8)
    assert [file[0] for file in encode_all(peer, originals, 0)] == list(range(50))
    np.testing.assert_array_equal(decode_all(peer, encode_all(peer, originals, 0), (3, 12, 12)), originals)


def test_levels_of_jpeg_xl_are_distances():
    assert jxl_distance(249) == 0.1
    assert jxl_distance(240) == 1
    assert jxl_distance(0) == 25
