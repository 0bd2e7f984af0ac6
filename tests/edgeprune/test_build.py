import math
from functools import partial

import numpy as np
import pytest
from photographs import photographs
from PIL import Image

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.errors import SourceError
from edgeprune.sources import check_source
from edgeprune_formats import ConfigError, PackWriteError, open_pack, verify_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_runtime import PackLoader

# The paper's layout, whose components these tests look at.
SPARSE = partial(BuildConfig, codec="sparse-f32")


def decoded(path):
    return np.concatenate([x for x, _ in PackLoader(path, 64, backend="scipy")])


def originals(source, path):
    return source.read(open_pack(path).source_index)


def measured_psnr(images, pixels):
    return 10 * math.log10(1 / np.mean((images - pixels / 255.0) ** 2))


@pytest.fixture
def npz(tmp_path):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (60, 6, 6, 3)).astype(np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(60) % 3)
    return f"npz:{tmp_path / 'images.npz'}"


def test_nothing_dropped_gives_the_pixels_back(npz, tmp_path):
    report = build_pack(npz, tmp_path / "p.h5", SPARSE(freq_prune=0))
    pixels = originals(open_source(npz), tmp_path / "p.h5")
    np.testing.assert_array_equal(np.rint(decoded(tmp_path / "p.h5") * 255), pixels)
    assert report.header.components == 24 * 24


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("freq_prune", [0.5, 0.9])
def test_the_reported_psnr_is_that_of_the_decoded_images(npz, tmp_path, freq_prune, compression):
    config = SPARSE(freq_prune=freq_prune, compression=compression)
    report = build_pack(npz, tmp_path / "p.h5", config)
    pixels = originals(open_source(npz), tmp_path / "p.h5")
    assert report.psnr == pytest.approx(measured_psnr(decoded(tmp_path / "p.h5"), pixels), abs=0.01)
    assert verify_pack(tmp_path / "p.h5") == []


def test_labels_statistics_and_provenance_belong_to_the_coreset(npz, tmp_path):
    config = SPARSE(sample_prune=0.5, seed=5)
    build_pack(npz, tmp_path / "p.h5", config)
    source, pack = open_source(npz), open_pack(tmp_path / "p.h5")
    assert len(pack) == 30
    assert len(set(pack.source_index.tolist())) == 30
    np.testing.assert_array_equal(pack.labels, source.labels[pack.source_index])
    np.testing.assert_array_equal(np.bincount(pack.labels), [10, 10, 10])
    pixels = source.read(pack.source_index) / 255
    np.testing.assert_allclose(pack.header.mean, pixels.mean(axis=(0, 2, 3)), atol=1e-9)
    np.testing.assert_allclose(pack.header.std, pixels.std(axis=(0, 2, 3)), atol=1e-9)
    provenance = pack.header.provenance
    assert provenance["config"]["seed"] == 5
    assert provenance["source"]["images"] == 60
    assert len(provenance["source"]["sha256"]) == 64
    assert set(provenance["versions"]) >= {"python", "numpy", "h5py", "edgeprune"}
    assert provenance["coreset"] == {"score": "random", "sampling": "random, stratified by class"}
    assert provenance["mask"] == "energy"
    assert pack.scores is None


def test_a_build_can_be_repeated_to_the_byte(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    config = SPARSE(sample_prune=0.3, seed=1)
    for name in ("a.h5", "b.h5"):
        build_pack(npz, tmp_path / name, config)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert open_pack(tmp_path / "a.h5").header.created == "2001-09-09T01:46:40Z"


def test_a_uniform_channel_has_a_deviation_to_divide_by(tmp_path):
    np.savez(tmp_path / "flat.npz", x=np.full((4, 8, 8, 3), 7, np.uint8), y=[0, 0, 1, 1])
    build_pack(f"npz:{tmp_path / 'flat.npz'}", tmp_path / "p.h5", SPARSE())
    images, _ = next(iter(PackLoader(tmp_path / "p.h5", 4, backend="scipy", normalize=True)))
    np.testing.assert_allclose(images, 0, atol=1e-4)


def test_the_share_of_images_that_keep_a_frequency_is_recorded(npz, tmp_path):
    report = build_pack(npz, tmp_path / "p.h5", SPARSE(freq_prune=0.9))
    rates = np.array(report.header.provenance["result"]["kept_rate"])
    assert rates.shape == (24, 24)
    assert rates[0, 0] == 1
    assert rates.mean() == pytest.approx(report.header.components / 24**2, abs=1e-6)


def test_progress_counts_each_stage_to_its_end(npz, tmp_path):
    calls = []
    build_pack(npz, tmp_path / "p.h5", SPARSE(sample_prune=0.5), progress=lambda *c: calls.append(c))
    assert ("encoding", 30, 30) in calls
    assert calls[-1] == ("reading the others", 30, 30)


def folder_of_images(root, sizes):
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index, size in enumerate(sizes):
            color = (40 * index, 100 * label, 7)
            Image.new("RGB", size, color).save(root / name / f"{index}.png")


def test_photographs_of_any_size_are_resized_and_cropped(tmp_path):
    folder_of_images(tmp_path / "photos", [(300, 240), (230, 500), (224, 224)])
    build_pack(f"imagefolder:{tmp_path / 'photos'}", tmp_path / "p.h5", SPARSE(freq_prune=0.9, size=224))
    header = open_pack(tmp_path / "p.h5").header
    assert header.shape == (3, 224, 224)
    assert header.components == 5018
    assert header.class_names == ("cat", "dog")


def test_large_jpegs_are_scaled_by_their_decoder_by_every_command(edgeprune, tmp_path):
    for number, image in enumerate(photographs(8, 64, 96)):
        (folder := tmp_path / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy().transpose(1, 2, 0)).save(folder / f"{number}.jpg", quality=95)
    source, scores = f"imagefolder:{tmp_path / 'photos'}", tmp_path / "s.h5"
    fast = ("--size", 8, "--fast-jpeg")
    assert edgeprune("score", source, *fast, "--epochs", 2, "--model", "resnet8", "-q", "-o", scores)[0] == 0
    chosen = ("--method", "je", "--scores", scores, "--rounding", "deadzone", "-q")
    code, _, err = edgeprune("build", source, "--size", 8, *chosen, "-o", tmp_path / "slow.h5")
    assert code == 1
    assert "give the --size, --channels and --fast-jpeg that they were scored with" in err
    assert edgeprune("build", source, *fast, *chosen, "-o", tmp_path / "chosen.h5")[0] == 0
    assert edgeprune("issues", scores, "--source", source, "--size", 8, "-q")[0] == 0
    (packs := tmp_path / "packs").mkdir()
    assert edgeprune("build", source, *fast, "--rounding", "deadzone", "-q", "-o", packs / "a.h5")[0] == 0
    expected = open_source(source, size=8, fast_jpeg=True).read(np.arange(8))
    assert (expected != open_source(source, size=8).read(np.arange(8))).any()
    # What is added beside is read as well as what is there, and an array as it is.
    (tmp_path / "photos" / "a" / "8.jpg").write_bytes((tmp_path / "photos" / "b" / "1.jpg").read_bytes())
    assert edgeprune("add", source, "-o", packs, "-q")[0] == 0
    black, names = np.zeros((2, 16, 16, 3), np.uint8), np.array(["a", "b"])
    np.savez(tmp_path / "x.npz", x=black, y=[0, 1], class_names=names)
    assert edgeprune("add", f"npz:{tmp_path / 'x.npz'}", "-o", packs, "-q")[0] == 0
    facts = [open_pack(path).header.provenance for path in sorted(packs.glob("*.h5"))]
    assert [one["config"]["fast_jpeg"] for one in facts] == [True] * 3
    sha256 = check_source(open_source(source, size=8, fast_jpeg=True)).sha256
    assert [one["source"]["sha256"] == sha256 for one in facts] == [False, True, False]
    code, _, err = edgeprune("build", source, "--fast-jpeg", "-q", "-o", tmp_path / "x.h5")
    assert (code, err.count("--fast-jpeg has no effect without --size")) == (2, 1)


def test_an_unreadable_image_stops_the_build_before_anything_is_written(tmp_path):
    folder_of_images(tmp_path / "photos", [(32, 32)] * 3)
    (tmp_path / "photos" / "dog" / "1.png").write_bytes(b"not a picture")
    source, out = f"imagefolder:{tmp_path / 'photos'}", tmp_path / "out"
    out.mkdir()
    with pytest.raises(SourceError, match=r"dog/1.png.*skip_bad"):
        build_pack(source, out / "p.h5", SPARSE())
    assert list(out.iterdir()) == []
    report = build_pack(source, out / "p.h5", SPARSE(skip_bad=True))
    assert len(report.skipped) == 1
    assert report.header.samples == 5
    assert 4 not in open_pack(out / "p.h5").source_index
    assert open_pack(out / "p.h5").header.provenance["source"]["skipped"] == 1


def test_a_build_that_fails_midway_leaves_the_old_pack(npz, tmp_path):
    build_pack(npz, tmp_path / "p.h5", SPARSE())
    before = (tmp_path / "p.h5").read_bytes()

    def stop(stage, done, total):
        if stage == "encoding":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_pack(npz, tmp_path / "p.h5", SPARSE(freq_prune=0.9), progress=stop)
    assert (tmp_path / "p.h5").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"p.h5", "images.npz"}


def test_classes_that_the_coreset_lost_are_reported(tmp_path):
    np.savez(tmp_path / "four.npz", x=np.zeros((4, 8, 8, 3), np.uint8), y=[0, 1, 2, 3])
    report = build_pack(f"npz:{tmp_path / 'four.npz'}", tmp_path / "p.h5", SPARSE(sample_prune=0.5))
    kept = {str(label) for label in open_pack(tmp_path / "p.h5").labels}
    assert len(report.empty_classes) == 2
    assert kept | set(report.empty_classes) == {"0", "1", "2", "3"}


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--sample-prune", 0.9], "lower --sample-prune,"),
        (["--budget", 9000, "--min-quality", 60], "raise --budget,"),
    ],
)
def test_the_remedy_for_lost_classes_is_what_left_the_images_out(edgeprune, tmp_path, options, remedy):
    noise = np.random.default_rng(0).integers(0, 256, (60, 24, 24, 3)).astype(np.uint8)
    np.savez(tmp_path / "n.npz", x=noise, y=np.arange(60) % 30)
    code, _, err = edgeprune("build", f"npz:{tmp_path / 'n.npz'}", *options, "-o", tmp_path / "p.h5")
    assert code == 0
    assert "no image was kept of " in err
    assert f"; {remedy} or pass --class-balance" in err


def test_work_that_another_build_left_is_removed_and_nothing_else(npz, tmp_path):
    (tmp_path / "p.h5.work" / "parts-of-a-build").mkdir(parents=True)
    build_pack(npz, tmp_path / "p.h5", SPARSE())
    assert not (tmp_path / "p.h5.work").exists()
    (tmp_path / "p.h5.work").mkdir()
    (tmp_path / "p.h5.work" / "notes.txt").write_text("mine")
    build_pack(npz, tmp_path / "p.h5", SPARSE())
    assert (tmp_path / "p.h5.work" / "notes.txt").read_text() == "mine"


def test_a_missing_folder_is_named(npz, tmp_path):
    with pytest.raises(PackWriteError, match="no folder"):
        build_pack(npz, tmp_path / "nowhere" / "p.h5", SPARSE())


@pytest.mark.parametrize(
    "options",
    [
        {"freq_prune": 1.0},
        {"freq_prune": -0.1},
        {"sample_prune": 1.0},
        {"sample_prune": float("nan")},
        {"codec": "zip"},
        {"compression": "lzma"},
        {"size": 0},
        {"split": "dev"},
        {"seed": -1},
    ],
)
def test_a_wrong_configuration_is_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        BuildConfig(**options)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("freq_prune", "whole", "first"),
    [(0.5, 39.55, 39.3), (0.7, 33.18, 32.9), (0.8, 29.80, 29.6), (0.9, 25.78, 25.6)],
)
def test_quality_of_real_images(real_data, tmp_path, freq_prune, whole, first):
    source = open_source(f"npz:{real_data / 'cifar10-lossless-6k.npz'}")
    report = build_pack(source, tmp_path / "p.h5", SPARSE(freq_prune=freq_prune))
    pack = open_pack(tmp_path / "p.h5")
    if freq_prune == 0.5:
        assert memory_bytes(pack.header) == 9216
    images, pixels = decoded(tmp_path / "p.h5"), source.read(pack.source_index)
    assert report.psnr == pytest.approx(whole, abs=0.01)
    assert measured_psnr(images, pixels) == pytest.approx(whole, abs=0.01)
    # A prototype's figures, on a sample that is not recorded: the first 200 images agree with all four.
    rows = np.nonzero(pack.source_index < 200)[0]
    assert measured_psnr(images[rows], pixels[rows]) == pytest.approx(first, abs=0.1)
