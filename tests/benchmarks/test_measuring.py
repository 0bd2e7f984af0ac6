"""Each benchmark on a handful of images: that it runs, checks what it times, and saves plain JSON."""

import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
from image_folders import write_photos
from PIL import Image

from edgeprune.report.pixels import pixels_of
from edgeprune.sources.decoding.images import read_image
from edgeprune_benchmarks.codec import storage
from edgeprune_benchmarks.codec.packs import ImageSet, build, measure_pack
from edgeprune_benchmarks.codec.packs import _planes as planes
from edgeprune_benchmarks.codec.peers import LOSSY
from edgeprune_benchmarks.codec.tables import storage_table
from edgeprune_benchmarks.harness.images import write_crops
from edgeprune_benchmarks.speed import buffers as time_buffers
from edgeprune_benchmarks.speed import decode as time_decode
from edgeprune_benchmarks.speed import images as _time_images
from edgeprune_benchmarks.speed import loaders as time_loaders
from edgeprune_benchmarks.speed.epoch import measure as measure_epoch
from edgeprune_benchmarks.speed.epoch import write_files
from edgeprune_benchmarks.speed.loaders import measure as measure_loaders
from edgeprune_benchmarks.speed.memory import Repeated, peak
from edgeprune_benchmarks.speed.precision import measure as measure_precision
from edgeprune_benchmarks.speed.reading import measure as measure_reading
from edgeprune_benchmarks.speed.start import first_batch
from edgeprune_benchmarks.speed.tables import buffers_table, decode_table, loader_table, precision_table
from edgeprune_benchmarks.speed.transform import measure as measure_transform
from edgeprune_formats import EdgePruneError

COUNT, SIDE = 24, 32


def image_set(count=COUNT):
    random = np.random.default_rng(0)
    place = np.linspace(0, 2 * np.pi, SIDE)
    waves = np.sin(place[:, None] * random.uniform(0.5, 2, (count, 3, 1, 1)) + place[None])
    pixels = 127 + 90 * waves + random.normal(0, 6, (count, 3, SIDE, SIDE))
    return ImageSet("waves", pixels.clip(0, 255).astype(np.uint8), np.arange(count) % 3)


@pytest.fixture
def peers():
    for package in ("imagecodecs", "simplejpeg", "zstandard"):
        pytest.importorskip(package)


@pytest.fixture
def task(peers, monkeypatch, tmp_path):
    """What the timing processes are given, of a few images."""
    monkeypatch.setattr(_time_images, "timed_images", lambda *_: image_set())
    monkeypatch.setattr(_time_images, "jpeg_like", partial(_jpeg, _time_images.jpeg_like))
    found = _time_images.prepare(tmp_path, tmp_path, "32x32", None)
    return {**found, "threads": 2, "rounds": 2, "batches": (1, 10), "batch": 10, "folder": str(tmp_path)}


def _jpeg(jpeg_like, images, target):
    # Not more than JPEG can do.
    return jpeg_like(images, min(target, 36))


def test_a_pack_is_measured_by_its_own_pixels_in_its_own_order(tmp_path):
    images = image_set()
    with build(images, tmp_path / "p.h5", codec="sparse-f32", freq_prune=0.0) as pack:
        point = measure_pack(images, pack, 3.0)
        np.testing.assert_array_equal(pixels_of(pack, backend="scipy"), images.pixels[pack.source_index])
    assert point.psnr_db == np.inf
    assert point.ssim == pytest.approx(1)
    assert point.file_bytes == (tmp_path / "p.h5").stat().st_size / COUNT
    assert 0 < point.payload_bytes < point.file_bytes


def test_labels_that_leave_out_numbers_are_numbered_anew():
    images = ImageSet("some", image_set(4).pixels, np.array([7, 3, 7, 9])).renumbered()
    assert images.labels.tolist() == [1, 0, 1, 2]
    assert images.source().class_names == ("0", "1", "2")


def test_integers_for_zstd_are_in_the_order_of_frequencies_and_can_be_undone():
    random = np.random.default_rng(0)
    values = random.integers(-300, 300, (5, 3, 2, 6)).astype(np.int16)
    content = np.frombuffer(planes(values, (2, 3)), np.uint8).reshape(2, -1)
    folded = content[0].astype(int) + 256 * content[1].astype(int)
    signed = np.where(folded % 2, -(folded + 1) // 2, folded // 2).reshape(3, 6, 2, 5)
    # (u, v) by diagonals, then by rows: 00 01 10 02 11 12.
    expected = values[..., [0, 1, 3, 2, 4, 5]].transpose(1, 3, 2, 0)
    np.testing.assert_array_equal(signed, expected)


@pytest.mark.slow
def test_storage_compares_at_equal_psnr(peers, monkeypatch, tmp_path):
    monkeypatch.setattr(storage, "LOSSY", LOSSY[:3])
    scale = storage.Scale((50, 70, 85, 95), (32, 34), ("full", "16"), 10)
    every = image_set()
    some = storage.subset(every, 16)
    assert len(some.labels) == 16
    results = json.loads(json.dumps(storage.measure(some, every, scale, tmp_path)))
    for row in results["matched"]:
        assert abs(row["ours"]["psnr_db"] - row["target_db"]) < 2
        for name, found in row["peers"].items():
            assert found["psnr_db"] == row["ours"]["psnr_db"]
            ratio = row["ours"]["file_bytes"] / found["file_bytes"]
            assert row["file_bytes"]["ratio"][name] == pytest.approx(ratio)
        smallest = min(row["peers"], key=lambda name: row["peers"][name]["file_bytes"])
        assert row["file_bytes"]["best_peer"] == smallest
    assert [row["bytes"] for row in results["table5"][:4]] == [9216, 5544, 3672, 1836]
    assert [row["name"] for row in results["table5"][4:]] == [
        "raw uint8",
        "JPEG 4:2:0 q75",
        "JPEG 4:2:0 q95",
    ]
    assert "quantized, energy masks" in "\n".join(storage_table({"size": "32x32", **results}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
def test_decoding_is_checked_and_timed(task):
    rows = json.loads(json.dumps(time_decode.measure(task)))
    assert [row["batch"] for row in rows] == [1, 10]
    for row in rows:
        assert row["ratio_to_raw"]["raw"]["median"] == 1
        assert {"raw", "simplejpeg", "Pillow", "quantized, scipy, from chunks"} <= set(
            row["images_per_second"]
        )
        assert all(rate["n"] == 2 for rate in row["images_per_second"].values())
    assert any(line.startswith("| sparse-f32, torch, in memory |") for line in decode_table({"rows": rows}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
def test_fresh_and_reused_memory_in_turn(task):
    rows = json.loads(json.dumps(time_buffers.measure({**task, "batches": (10,)})))
    kinds = ("from chunks", "in memory")
    ours = [f"{codec}, {b}, {k}" for codec in task["packs"] for b in ("native", "torch") for k in kinds]
    assert {"raw", "quantized, torch, from chunks"} <= {row["decoder"] for row in rows} <= {"raw", *ours}
    assert all(row["fresh"]["n"] == row["reused"]["n"] == row["ratio"]["n"] == 2 for row in rows)
    assert any(line.startswith("| 2 | 10 | raw | ") for line in buffers_table({"rows": rows}))


@pytest.mark.first_are_quick
@pytest.mark.parametrize("fault", [lambda b: b[:, [2, 1, 0]], lambda b: b * 0.5, lambda b: b[1:]])
def test_a_decoder_that_is_wrong_is_not_timed(task, fault):
    pixels = np.load(task["pixels"])
    pixels[:, 0] //= 2
    bench = time_decode.Bench(task, pixels)
    bench.check("raw", partial(bench.peers.raw, 8))
    with pytest.raises(EdgePruneError, match="wrong gives"):
        bench.check("wrong", lambda: (fault(batch) for batch in bench.peers.raw(8)))


@pytest.mark.slow
def test_loaders_are_checked_and_timed_and_absent_ones_named(task, monkeypatch):
    def absent(job):
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    some = {"ImageFolder + DataLoader": time_loaders.LOADERS["ImageFolder + DataLoader"], "X": absent}
    monkeypatch.setattr(time_loaders, "LOADERS", some)
    row = json.loads(json.dumps(measure_loaders({**task, "threads": 1})))
    assert row["absent"] == {"X": "not installed (nothing)"}
    assert row["ratio_of_ours"][time_loaders.OURS]["median"] == 1
    assert "| 32x32 | 1 | X | not installed (nothing) | - |" in loader_table({"rows": [row]})


@pytest.mark.slow
def test_epochs_from_a_pack_and_from_ready_batches(tmp_path):
    pytest.importorskip("torch")
    files = write_files(image_set(), tmp_path / "files")
    with build(image_set(), tmp_path / "p.h5", codec="quantized") as pack:
        row = json.loads(json.dumps(measure_epoch(pack, files, "resnet8", 1, 8, "cpu")))
    assert row["steps"] == 3
    assert len(list(files.rglob("*.jpg"))) == len(image_set().labels)
    seconds = {way: found["median"] for way, found in row["seconds"].items()}
    assert row["ratio_to_ready"]["median"] == pytest.approx(seconds["pack"] / seconds["ready"])
    assert row["files_ratio_to_ready"]["median"] == pytest.approx(seconds["files"] / seconds["ready"])


@pytest.mark.slow
def test_the_first_batch_of_a_new_process(make_pack):
    path, _ = make_pack(samples=9)
    found = first_batch(str(path), "scipy", 4)
    assert found["first_batch"] > 0
    assert "torch" not in found["loaded"]
    with pytest.raises(EdgePruneError, match="unknown backend"):
        first_batch(str(path), "slide rule", 4)


def test_steps_in_both_precisions():
    row = json.loads(json.dumps(measure_precision("resnet8", 8, 4, 2, "cpu")))
    assert (row["size"], row["batch"], row["device"], row["auto"]) == ("8x8", 4, "cpu", "float32")
    assert row["ratio"]["max"] >= row["ratio"]["min"] > 0
    assert row["dtypes"] == {"float32": "torch.float32", "bfloat16": "torch.bfloat16"}
    rates = {name: {"median": value} for name, value in (("float32", 0.25), ("bfloat16", 0.125))}
    ratio = {"median": 0.5, "min": 0.4, "max": 0.6}
    lines = precision_table({"threads": 2, "rows": [{**row, "seconds": rates, "ratio": ratio}]})
    assert lines[-1] == "| resnet8, 8x8 | 4 | 250 | 125 | 0.50x [0.40 to 0.60] | float32 (cpu) |"


@pytest.mark.parametrize("way", ["decoded", "cached"])
def test_reading_a_folder_for_two_epochs(tmp_path, capsys, way):
    folder = write_photos(tmp_path / "photos", 20).partition(":")[2]
    measure_reading(folder, "8", "2", way)
    found = json.loads(capsys.readouterr().out)
    assert len(found["images_per_second"]) == 2
    assert min(found["images_per_second"]) > 0
    assert found["peak_mib"] >= found["imported_mib"] > 0
    assert (found["disk_bytes"] >= 20 * 8 * 8 * 3) == (way == "cached")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_crops_of_photographs(tmp_path):
    with zipfile.ZipFile(tmp_path / "imagenet-sample.zip", "w") as archive:
        for name, side in (("small", 20), ("large", 40)):
            content = io.BytesIO()
            Image.new("RGB", (side, side + 3), "red" if name == "large" else "blue").save(content, "png")
            archive.writestr(f"sample/{name}.png", content.getvalue())
    folder = write_crops(tmp_path, tmp_path / "crops", 5, side=32, classes=2)
    files = sorted(folder.rglob("*.jpg"))
    assert [f"{path.parent.name}/{path.stem}" for path in files] == [
        *("class-0/0000000", "class-0/0000002", "class-0/0000004", "class-1/0000001", "class-1/0000003")
    ]
    for path in files:
        pixels = read_image(path, None)
        assert pixels.shape == (32, 32, 3)
        assert pixels[..., 0].min() > 200


@pytest.mark.slow
def test_the_peak_memory_of_a_process(make_pack):
    path, _ = make_pack(samples=50)
    # What this process holds is none of the other's.
    ballast = np.ones(2**26)
    found = peak(path, 10**6, 8, "scipy")
    assert found["images"] == 50
    assert ballast.nbytes / 2**20 > found["peak_mib"] >= found["imported_mib"] > 10


def test_a_repeated_source_begins_again(tmp_path):
    images = image_set(5)
    source = Repeated(images, 12)
    assert len(source) == 12
    assert source.labels.tolist() == [*images.labels, *images.labels, *images.labels[:2]]
    np.testing.assert_array_equal(source.read([0, 6, 11]), images.pixels[[0, 1, 1]])


def test_transforms_are_inverses_and_both_are_timed():
    rows = measure_transform(image_set().pixels, 1)
    assert [row["way"] for row in rows][:2] == ["scipy", "torch, CPU"]
    assert all(row[kind]["n"] == 1 for row in rows for kind in ("dct_seconds", "idct_seconds"))
