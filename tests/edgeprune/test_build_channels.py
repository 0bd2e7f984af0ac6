"""Packs of gray images and of planes, from the source to what is done with the pack."""

import numpy as np
import pytest
from PIL import Image
from plane_packs import plane_pixels

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.masks.config import MaskConfig
from edgeprune.packs.build import build_share
from edgeprune.packs.planning.plan import Share
from edgeprune.packs.writing.assembly import assemble
from edgeprune.repack.convert import convert_pack
from edgeprune.repack.merge import merge_packs
from edgeprune.repack.repair import repair_pack
from edgeprune.repack.split import split_pack
from edgeprune.report.preview import draw_preview
from edgeprune.scoring.config import ScoreConfig
from edgeprune_formats import ConfigError, open_pack, verify_pack
from edgeprune_runtime import PackLoader

KINDS = {"gray": (1, 8), "deep": (1, 16), "planes": (4, 16), "two": (2, 8)}
IMAGES = 24


def write_npz(folder, channels, bits, seed=0):
    pixels = plane_pixels(IMAGES, channels, 16, 16, bits, seed)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "images.npz", x=pixels, y=np.arange(IMAGES) % 2)
    return f"npz:{folder / 'images.npz'}", pixels


@pytest.fixture(scope="module", params=KINDS)
def built(request, tmp_path_factory):
    """A pack of each kind: its path, the pixels, and the report."""
    folder = tmp_path_factory.mktemp(request.param)
    spec, pixels = write_npz(folder, *KINDS[request.param])
    report = build_pack(spec, folder / "pack.h5", BuildConfig(quality=95))
    return folder / "pack.h5", pixels, report, spec


def decoded(path):
    """Images on [0, 1], in the order of the source."""
    with open_pack(path) as pack:
        order = np.argsort(pack.source_index)
    images = np.concatenate([np.asarray(batch) for batch, _ in PackLoader(path, 8, device="cpu")])
    return images[order]


def test_builds_hold_what_the_source_has(built):
    path, pixels, report, _ = built
    header, peak = report.header, np.iinfo(pixels.dtype).max
    assert verify_pack(path) == []
    assert (header.shape, header.bits) == (pixels.shape[1:], 8 * pixels.itemsize)
    scaled = pixels / peak
    np.testing.assert_allclose(header.mean, scaled.mean(axis=(0, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(header.std, scaled.std(axis=(0, 2, 3)), atol=1e-9)
    error = np.mean((decoded(path) - scaled) ** 2)
    assert report.psnr == pytest.approx(-10 * np.log10(error), abs=0.05)
    assert report.psnr > 35
    assert report.source_bytes_per_image == pixels[0].nbytes
    assert "channels" not in header.provenance["config"]


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("codec", ["sparse-f32", "sparse-f16"])
def test_codecs_convert(built, tmp_path, codec):
    path, pixels, _, spec = built
    header, _ = convert_pack(path, tmp_path / "c.h5", BuildConfig(codec=codec, freq_prune=0.0))
    assert (header.codec, header.bits, header.channels) == (codec, 8 * pixels.itemsize, pixels.shape[1])
    np.testing.assert_allclose(decoded(tmp_path / "c.h5"), decoded(path), atol=1e-3)
    report = build_pack(spec, tmp_path / "s.h5", BuildConfig(codec=codec, freq_prune=0.0))
    assert report.psnr > (100 if codec == "sparse-f32" else 60)
    back, _ = convert_pack(tmp_path / "s.h5", tmp_path / "q.h5", BuildConfig(quality=95))
    assert back.color_space == ("gray" if pixels.shape[1] == 1 else "planes")


@pytest.mark.first_are_quick(2)
def test_parts_splits_and_merges_keep_the_kind(built, tmp_path):
    path, pixels, report, spec = built
    build_share(spec, tmp_path / "parts", Share(1, 1), BuildConfig(quality=95, tile="8"))
    assemble(tmp_path / "parts", tmp_path / "whole.h5")
    with open_pack(tmp_path / "whole.h5") as whole:
        assert (whole.header.bits, whole.header.mean, whole.header.std) == (
            report.header.bits,
            report.header.mean,
            report.header.std,
        )
    split_pack(path, tmp_path / "split", 2)
    merge_packs(sorted((tmp_path / "split").glob("*.h5")), tmp_path / "merged.h5")
    np.testing.assert_allclose(decoded(tmp_path / "merged.h5"), decoded(path), atol=1e-6)
    repair_pack(path, tmp_path / "repaired.h5")
    with open_pack(tmp_path / "repaired.h5") as pack:
        assert pack.header.bits == 8 * pixels.itemsize


def test_previews_show_gray_as_gray_and_planes_with_a_legend(built, tmp_path):
    path, pixels, _, spec = built
    with open_pack(path) as pack:
        draw_preview(pack, tmp_path / "p.png", count=2, source=open_source(spec))
        rows = pack.source_index[:2]
    with Image.open(tmp_path / "p.png") as picture:
        sheet = np.asarray(picture)
    image = sheet[20 : 20 + 128, 72 : 72 + 128]
    shown = (pixels[rows[0]] // (257 if pixels.itemsize == 2 else 1))[:3].repeat(8, axis=1).repeat(8, axis=2)
    if len(shown) == 1:
        shown = shown.repeat(3, axis=0)
    np.testing.assert_allclose(image[..., : len(shown)], shown.transpose(1, 2, 0), atol=1)
    assert len(shown) == 3 or not image[..., 2].any()


def test_info_tells_bits_and_channels(built, edgeprune):
    path, pixels, _, _ = built
    text = edgeprune("info", path)[1]
    assert f"of {pixels.shape[1]}x16x16{' of 16 bits' if pixels.itemsize == 2 else ''} in" in text
    assert f"raw uint{8 * pixels.itemsize} {pixels[0].nbytes:,}" in text


def test_a_gray_pack_holds_fewer_bytes_than_one_of_three_equal_planes(tmp_path):
    spec, _ = write_npz(tmp_path, 1, 8)
    sizes = {}
    for channels, color in (("as-is", None), ("rgb", "rgb"), ("rgb", "ycbcr")):
        config = BuildConfig(channels=channels, color=color, tile="full")
        report = build_pack(spec, tmp_path / f"{channels}-{color}.h5", config)
        with open_pack(report.path) as pack:
            sizes[color] = pack.payload_bytes
        assert report.header.provenance["config"].get("channels", "as-is") == channels
    assert sizes[None] < 0.4 * sizes["rgb"]
    assert sizes[None] < sizes["ycbcr"]


def test_a_color_space_of_planes_is_refused(tmp_path):
    spec, _ = write_npz(tmp_path, 2, 8)
    with pytest.raises(ConfigError, match="`color` has no effect on images of 2 channels"):
        build_pack(spec, tmp_path / "p.h5", BuildConfig(color="ycbcr"))


def test_packs_of_other_bits_or_channels_are_not_merged(tmp_path):
    packs = []
    for name, kind in {"a": (1, 8), "b": (1, 16), "c": (2, 8)}.items():
        spec, _ = write_npz(tmp_path / name, *kind)
        packs.append(build_pack(spec, tmp_path / f"{name}.h5", BuildConfig(tile="full")).path)
    with pytest.raises(ConfigError, match=r"b\.h5: made of pixels of 16 bits, and .*a\.h5 of 8; build both"):
        merge_packs(packs[:2], tmp_path / "m.h5")
    with pytest.raises(ConfigError, match=r"c\.h5: images of 2 channels \(planes\), .*a\.h5 have 1 \(gray\)"):
        merge_packs([packs[0], packs[2]], tmp_path / "m.h5")


def test_the_command_takes_channels(edgeprune, tmp_path):
    done = edgeprune(
        "build", "digits", "--channels", "gray", "--sample-prune", "0.97", "-o", tmp_path / "g.h5"
    )
    assert done[0] == 0, done[2]
    with open_pack(tmp_path / "g.h5") as pack:
        assert (pack.header.color_space, pack.header.shape) == ("gray", (1, 32, 32))


@pytest.mark.slow
def test_masks_and_scores_of_planes(tmp_path):
    spec, _ = write_npz(tmp_path, 2, 16)
    scoring = ScoreConfig(model="resnet8", epochs=1, every=1, batch_size=12, augment="none", device="cpu")
    config = BuildConfig(
        method="jelf",
        codec="sparse-f32",
        device="cpu",
        scoring=scoring,
        masks=MaskConfig(epochs=1, batch_size=12),
    )
    report = build_pack(spec, tmp_path / "p.h5", config)
    assert (report.header.channels, report.header.bits, report.header.components) == (2, 16, 128)


@pytest.mark.slow
def test_gray_training_evaluation_and_prediction(tmp_path, edgeprune):
    spec, _ = write_npz(tmp_path, 1, 16)
    build_pack(spec, tmp_path / "g.h5", BuildConfig(device="cpu"))
    train = (
        "train",
        tmp_path / "g.h5",
        "--model",
        "resnet8",
        "--epochs",
        1,
        "--batch-size",
        8,
        "--device",
        "cpu",
    )
    code, _, error = edgeprune(*train, "--test", spec, "-o", tmp_path / "run")
    assert code == 0, error
    code, _, error = edgeprune("predict", tmp_path / "run", spec)
    assert code == 0, error
    code, _, error = edgeprune("export", tmp_path / "run", "-o", tmp_path / "m.onnx")
    assert code == 0, error
