"""The benchmark of encoding on a handful of images: equal PSNR, the pack's own payloads, stages, goals."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from edgeprune_benchmarks.codec.packs import ImageSet
from edgeprune_benchmarks.codec.peers import encode_all
from edgeprune_benchmarks.speed import encode
from edgeprune_benchmarks.speed import stages as stages_of_a_build
from edgeprune_benchmarks.speed.encode_tables import encode_table
from edgeprune_formats import EdgePruneError

COUNT, SIDE = 12, 32


def image_set():
    random = np.random.default_rng(0)
    place = np.linspace(0, 2 * np.pi, SIDE)
    waves = np.sin(place[:, None] * random.uniform(0.5, 2, (COUNT, 3, 1, 1)) + place[None])
    pixels = 127 + 90 * waves + random.normal(0, 6, (COUNT, 3, SIDE, SIDE))
    return ImageSet("waves", pixels.clip(0, 255).astype(np.uint8), np.arange(COUNT) % 3)


@pytest.fixture
def task(monkeypatch, tmp_path):
    """A task of the timing process without peers, which take long."""
    monkeypatch.setattr(encode, "PEERS", {})
    return {**encode.prepare(image_set(), tmp_path, "32x32"), "rounds": 2}


@pytest.fixture
def webp():
    peer = encode.PEERS["webp"]
    if not encode.features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    return peer


@pytest.mark.slow
def test_peers_are_compared_at_the_nearest_psnr(webp, monkeypatch, tmp_path):
    monkeypatch.setattr(encode, "PEERS", {"webp": webp})
    task = {**encode.prepare(image_set(), tmp_path, "32x32"), "rounds": 2}
    row = json.loads(json.dumps(encode.measure(task)))
    ours, theirs = row["files"]["ours, rdo"], row["files"][webp.name]
    level, images = task["levels"]["webp"], np.load(task["pixels"])
    for other in (level - 1, level + 1):
        found = encode.psnr(
            encode.decode_all(webp, encode_all(webp, images, other), images.shape[1:]), images
        )
        assert abs(found - ours["psnr_db"]) >= abs(theirs["psnr_db"] - ours["psnr_db"])
    assert row["images"] == COUNT
    assert row["images_per_second"][webp.name]["n"] == 2
    assert set(row["ratio_of_ours"]) == {"ours, rdo", "ours, deadzone"}
    assert row["ratio_of_ours"]["ours, rdo"][webp.name]["median"] > 0


def test_a_peer_gives_the_same_files_in_several_threads(webp):
    images = image_set().pixels
    shown = images.transpose(0, 2, 3, 1)
    expected = [webp.encode(Image.fromarray(image), 50) for image in shown]
    assert encode_all(webp, images, 50) == expected


def test_a_peer_that_pillow_lacks_is_named(webp, monkeypatch, tmp_path):
    monkeypatch.setattr(encode, "PEERS", {"webp": webp})
    monkeypatch.setattr(encode.features, "check", lambda _: False)
    task = encode.prepare(image_set(), tmp_path, "32x32")
    assert (task["levels"], task["absent"]) == ({}, {"webp": "this Pillow has no WEBP"})


def test_what_is_timed_gives_the_payload_of_the_pack(task):
    pixels = np.load(task["pixels"])
    assert encode.measure(task)["images_per_second"]["ours, rdo"]["median"] > 0
    np.save(task["pixels"], pixels[::-1])
    with pytest.raises(EdgePruneError, match="gives another payload"):
        encode.measure(task)


def test_a_few_images_alone_for_the_encoder_in_numpy(task, monkeypatch):
    row = encode.measure({**task, "few": 5})
    assert row["images"] == 5
    monkeypatch.setattr(encode, "encoding_kernels", encode.NumpyKernels)
    assert not encode.measure({**task, "few": 5})["compiled"]


def test_every_stage_of_a_build_is_timed(task, tmp_path, monkeypatch):
    monkeypatch.setattr(stages_of_a_build, "_ENLARGED", (400, 300))
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (60, 45), (number, 9, 9)).save(folder / f"{number}.jpg")
    stages = encode.measure({**task, "stages": True})
    assert list(stages) == [
        "decoding the JPEG file",
        "resizing",
        "transform",
        "rounding",
        "coding",
        "hashing",
        "decoding and resizing 12 megapixels",
        "decoding and resizing 12 megapixels, `--fast-jpeg`",
    ]
    assert all(stage["n"] == 2 and stage["min"] > 0 for stage in stages.values())


def rate(median):
    return {"median": median, "min": median - 1, "max": median + 1, "n": 3}


def results(size, rates, **facts):
    ours = {name: rate(rates["ours, rdo"] / value) for name, value in rates.items() if "ours" not in name}
    row = {
        "size": size,
        "images": 10,
        "quality": 75,
        "compiled": True,
        "absent": {},
        "numpy": {"images": 4, "images_per_second": 1.0, "ratio": 9.5},
        "files": {name: {"psnr_db": 32.5, "file_bytes": 700.0, "setting": "quality 61"} for name in rates},
        "images_per_second": {name: rate(value) for name, value in rates.items()},
        "ratio_of_ours": {"ours, rdo": ours, "ours, deadzone": {}},
    }
    return {"rows": [{**row, **facts}]}


def test_the_table_says_which_goals_are_met():
    rates = {"ours, rdo": 90.0, "WebP, method 4": 30.0, "AVIF, speed 6": 15.0}
    stages = {"transform": rate(2.0), "decoding 12 megapixels": rate(5.0)}
    lines = encode_table(results("224x224", rates, stages=stages))
    assert any(
        line.endswith("12 megapixels are enlarged photographs, saved with quality 90.") for line in lines
    )
    row = "| 224x224 | WebP, method 4 | quality 61 | 32.50 | 700 | 30 [29 to 31] | 3.00x [2.00 to 4.00] | - |"
    assert row in lines
    assert "- Goal at 224x224: at least 2x WebP, method 4. 3.00x: met." in lines
    assert "- Goal at 224x224: at least 8x AVIF, speed 6. 6.00x: missed." in lines
    assert "| transform | 2.00 [1.00 to 3.00] |" in lines
    small = partial(results, "32x32", absent={"avif": "this Pillow has no AVIF"})
    lines = encode_table(small({"ours, rdo": 12_000.0}))
    assert "- Goal at 32x32: at least 10,000 images/s. 12,000: met." in lines
    assert "- 32x32: another encoder is left out: this Pillow has no AVIF." in lines
    assert any("numpy takes 9.5x as long (4 images, measured once)" in line for line in lines)
