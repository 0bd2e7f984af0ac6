"""Tables and tar files through the commands: built, scored, tested on, predicted, refused in one line."""

from __future__ import annotations

import builtins
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import exported_models
import numpy as np
import pytest
from PIL import Image
from written_sources import (
    encoded,
    hugging_face,
    pictures,
    samples,
    write_csv,
    write_files,
    write_parquet,
    write_shard,
)

from edgeprune.errors import SourceError
from edgeprune.sources import SourceOptions, open_source, with_options
from edgeprune.sources.decoding.images import decode_image, pillow_guard, read_image
from edgeprune.sources.naming.options import without_options
from edgeprune.training.evaluation import open_test
from edgeprune_formats import ConfigError, open_pack

pytest.importorskip("pyarrow")
pytest.importorskip("webdataset")
KINDS = ("csv", "hf", "imagefolder", "parquet", "webdataset")
PIXELS = pictures(12, side=16)
LABELS = [0, 1, 2] * 4
QUICK = ("--quality", "20", "--tile", "16", "--rounding", "deadzone", "-q")
SPLITS = [("train", slice(0, 9)), ("test", slice(9, 12))]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same images and splits as every kind of source."""
    folder = tmp_path_factory.mktemp("places")
    rows = [["path", "label", "split"]]
    for split, part in SPLITS:
        names = write_files(folder / "images" / split, PIXELS[part], "{}.png")
        rows += [
            [f"images/{split}/{name}", label, split] for name, label in zip(names, LABELS[part], strict=True)
        ]
        for name, label in zip(names, LABELS[part], strict=True):
            target = folder / "folders" / split / str(label) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(folder / "images" / split / name)
        write_shard(folder / "shards" / f"{split}-000000.tar", samples(PIXELS[part], LABELS[part]))
        columns = {"image": [encoded(image) for image in PIXELS[part]], "label": LABELS[part]}
        write_parquet(folder / "parquet" / f"{split}-0.parquet", columns)
    found = {
        "csv": write_csv(folder, rows),
        "webdataset": folder / "shards",
        "parquet": folder / "parquet",
        "imagefolder": folder / "folders",
    }
    try:
        import datasets
    except ImportError:
        return found
    parts = {split: hugging_face(PIXELS[part], LABELS[part], ("0", "1", "2")) for split, part in SPLITS}
    datasets.DatasetDict(parts).save_to_disk(folder / "hf")
    return found | {"hf": folder / "hf"}


@pytest.fixture
def spec(request, places):
    if request.param not in places:
        pytest.skip("datasets is not installed")
    return f"{request.param}:{places[request.param]}"


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("spec", KINDS, indirect=True)
def test_every_kind_builds_the_same_pack(edgeprune, spec, tmp_path):
    assert edgeprune("build", spec, "-o", tmp_path / "a.h5", *QUICK) == (0, "", "")
    with open_pack(tmp_path / "a.h5") as pack:
        source = pack.header.provenance["source"]
        order = pack.source_index[:]
        assert (source["spec"], source["split"], pack.header.class_names) == (spec, "train", ("0", "1", "2"))
        assert (pack.header.shape, source["images"]) == ((3, 16, 16), 9)
        assert [len(labels) for _, labels in open_test(spec, pack.header)] == [3]
        if not spec.startswith("imagefolder"):
            assert pack.labels.tolist() == [LABELS[row] for row in order]
    code, _, err = edgeprune("preview", tmp_path / "a.h5", "--source", spec, "-o", tmp_path / "a.png")
    assert (code, err) == (0, "")
    assert edgeprune("build", spec, "--split", "test", "-o", tmp_path / "b.h5", *QUICK) == (0, "", "")
    with open_pack(tmp_path / "b.h5") as pack:
        assert (pack.header.samples, pack.header.class_names) == (3, ("0", "1", "2"))


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize("spec", KINDS, indirect=True)
def test_any_thread_and_process_reads_any_row(spec):
    source = open_source(spec)
    wanted = source.read(range(9))
    again = pickle.loads(pickle.dumps(source))
    orders = [np.random.default_rng(seed).integers(0, 9, 7) for seed in range(24)]
    with warnings.catch_warnings(record=True):
        before = warnings.filters[:]
        with ThreadPoolExecutor(8) as pool:
            for order, pixels in zip(orders, pool.map(source.read, orders), strict=True):
                np.testing.assert_array_equal(pixels, wanted[order])
        assert warnings.filters == before
    np.testing.assert_array_equal(again.read([8, 1]), wanted[[8, 1]])
    child = os.fork()
    if not child:
        os._exit(int(not np.array_equal(source.read([5, 2]), wanted[[5, 2]])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow
def test_options_of_build_and_score_are_part_of_the_source(edgeprune, tmp_path):
    names = write_files(tmp_path, PIXELS, "{}.png")
    rows = [[name, "x", "yes" if label else "no", "train"] for name, label in zip(names, LABELS, strict=True)]
    file = write_csv(tmp_path, [["picture", "label", "is it?", "part"], *rows])
    (tmp_path / "names.txt").write_text("yes\nno\n")
    options = ["--image-column", "picture", "--label-column", "is it?", "--split-column", "part"]
    options += ["--class-names", tmp_path / "names.txt"]
    code, _, err = edgeprune("build", f"csv:{file}", *options, "-o", tmp_path / "a.h5", *QUICK)
    assert (code, err) == (0, "")
    with open_pack(tmp_path / "a.h5") as pack:
        assert pack.header.class_names == ("yes", "no")
        written = pack.header.provenance["source"]["spec"]
    assert written == (
        f"csv:{file}?image-column=picture&label-column=is%20it%3F&split-column=part&class-names={tmp_path}/names.txt"
    )
    assert open_source(written).class_names == ("yes", "no")
    arguments = ["--model", "resnet18", "--epochs", "1", "--batch-size", "6", "-o", tmp_path / "s.h5", "-q"]
    code, _, err = edgeprune("score", f"csv:{file}", *options, *arguments)
    assert (code, err) == (0, "")
    code, _, err = edgeprune(
        "build", written, "--method", "je", "--scores", tmp_path / "s.h5", "-o", tmp_path / "b.h5", *QUICK
    )
    assert (code, err) == (0, "")


def test_options_in_the_text_of_a_source():
    spec = with_options("parquet:a?.parquet", SourceOptions(label_column="a&b=c?", class_names="x/y.txt"))
    assert spec == "parquet:a?.parquet?label-column=a%26b%3Dc%3F&class-names=x/y.txt"
    place, options = without_options(spec)
    assert (place, options) == (
        "parquet:a?.parquet",
        SourceOptions(label_column="a&b=c?", class_names="x/y.txt"),
    )
    assert without_options(with_options(spec, SourceOptions(label_column="z")))[1].label_column == "z"
    assert without_options("parquet:part-?.parquet") == ("parquet:part-?.parquet", SourceOptions())
    assert with_options("digits", SourceOptions()) == "digits"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "csv:a.csv?label=x",
            "after the question mark come, each once: image-column, label-column, split-column, class-",
        ),
        ("csv:a.csv?label-column=x&label-column=y", "after the question mark come, each once"),
        ("csv:a.csv?label-column=", "`label_column` is empty"),
        (
            "webdataset:a.tar?split-column=x",
            "`split_column` has no effect with webdataset, only with csv, hf, parquet",
        ),
    ],
)
def test_options_that_are_refused(spec, told):
    with pytest.raises(ConfigError) as caught:
        open_source(spec)
    assert told in str(caught.value)


def test_an_option_without_effect_names_its_flag(edgeprune, tmp_path, places):
    code, _, err = edgeprune(
        "build", f"imagefolder:{places['imagefolder']}", "--label-column", "x", "-o", tmp_path / "a.h5"
    )
    assert (code, err) == (
        2,
        "edgeprune: error: --label-column has no effect with imagefolder, only with csv, hf, parquet, "
        "webdataset; leave it out\n",
    )


def test_what_cannot_be_read_leaves_nothing(edgeprune, tmp_path):
    write_files(tmp_path, PIXELS[:2], "{}.png")
    rows = [["path", "label"], ["0.png", "a"], ["1.png", "b"], ["gone.png", "a"]]
    file = write_csv(tmp_path, rows)
    before = set(tmp_path.iterdir())
    code, out, err = edgeprune("build", f"csv:{file}", "-o", tmp_path / "a.h5")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"edgeprune: error: {file}, line 4: gone.png: No such file or directory; pass --skip-bad to leave "
        "such images out"
    )
    assert set(tmp_path.iterdir()) == before
    code, out, _ = edgeprune("build", f"csv:{file}", "--skip-bad", "-o", tmp_path / "a.h5")
    assert code == 0
    assert "2 images of 16x16 (1 skipped as unreadable)" in out


def test_what_is_left_out_is_told_in_flags(edgeprune, tmp_path):
    write_files(tmp_path, PIXELS[:2], "{}.png")
    Image.new("RGB", (24, 24)).save(tmp_path / "2.png")
    file = write_csv(tmp_path, [["path", "label"], ["0.png", "a"], ["1.png", "b"], ["2.png", "a"]])
    code, out, _ = edgeprune("build", f"csv:{file}", "--skip-bad", "-o", tmp_path / "a.h5")
    assert code == 0
    assert out.splitlines()[0].startswith(f"skipped {file}, line 4: ")
    assert "--size" in out
    assert "`" not in out
    write_files(tmp_path / "photos" / "a", PIXELS[:2], "{}.png")
    Image.new("RGB", (24, 24)).save(tmp_path / "photos" / "a" / "`size`.png")
    code, out, _ = edgeprune(
        "build", f"imagefolder:{tmp_path / 'photos'}", "--skip-bad", "-o", tmp_path / "b.h5"
    )
    assert code == 0
    assert "a/`size`.png: " in out.splitlines()[0]
    assert "--size" in out.splitlines()[0]


@pytest.mark.skipif(os.name != "posix", reason="file names are text here")
def test_a_folder_whose_name_is_no_text_is_built_from(edgeprune, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/of\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    for name in "ab":
        (folder / name).mkdir()
        write_files(folder / name, PIXELS[:2], "{}.png")
    code, out, _ = edgeprune("build", f"imagefolder:{folder}", "-o", tmp_path / "a.h5")
    assert code == 0
    assert "4 images of 16x16 in 2 classes" in out
    assert "of\N{REPLACEMENT CHARACTER}" in edgeprune("info", tmp_path / "a.h5")[1]
    few = ["--model", "resnet8", "--batch-size", 4, "--device", "cpu"]
    scores = tmp_path / "s.h5"
    assert edgeprune("score", f"imagefolder:{folder}", *few, "--epochs", 1, "-o", scores)[0] == 0
    words = ["build", f"imagefolder:{folder}", "--method", "je", "--scores", scores, "-o", tmp_path / "b.h5"]
    code, _, err = edgeprune(*words, "--sample-prune", 0.5)
    assert code == 0, err
    run = tmp_path / "run"
    words = ["train", tmp_path / "a.h5", *few, "--test", f"imagefolder:{folder}", "-o", run]
    assert edgeprune(*words, "--epochs", 1)[0] == 0
    code, _, err = edgeprune(*words, "--epochs", 2, "--resume")
    assert code == 0, err


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("hf", "pyarrow", "hf"), ("parquet", "pyarrow", "parquet"), ("webdataset", "braceexpand", "webdataset")],
)
def test_a_missing_package_names_the_extra(edgeprune, monkeypatch, tmp_path, kind, module, extra):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    code, _, err = edgeprune("build", f"{kind}:{tmp_path}/{{a,b}}", "-o", tmp_path / "a.h5")
    assert (code, err.count("\n")) == (2, 1)
    assert f"pip install 'edgeprune[{extra}]'" in err


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("a.tsv", "csv"), ("a.parquet", "parquet"), ("a.tar", "webdataset"), ("a.npz", "npz")],
)
def test_a_source_without_its_kind(name, kind):
    with pytest.raises(ConfigError, match=f"known are .*hf:FOLDER.*; did you mean {kind}:{name}"):
        open_source(name)


@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_bytes_are_decoded_as_files_are(tmp_path, form, size):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if form in ("PNG", "JPEG", "WEBP") else {}
    Image.fromarray(PIXELS[0][:, :12]).save(tmp_path / "a", form, **options)
    content = (tmp_path / "a").read_bytes()
    np.testing.assert_array_equal(decode_image(content, size, name="a"), read_image(tmp_path / "a", size))
    for part in (b"", content[: len(content) // 2], b"II*\0" + bytes(50), content[:20]):
        (tmp_path / "b").write_bytes(part)
        told = []
        for image in (part, str(tmp_path / "b")):
            try:
                told.append(decode_image(image, size, name="b").tobytes())
            except SourceError as error:
                told.append(str(error))
        assert told[0] == told[1]


def test_sixteen_bits_alpha_and_damaged_chunks_in_bytes(tmp_path):
    import zlib

    Image.fromarray(np.array([[0, 40000]], np.uint16)).save(tmp_path / "a.png")
    assert decode_image((tmp_path / "a.png").read_bytes(), None, name="a")[0, :, 0].tolist() == [0, 156]
    Image.fromarray(np.array([[[9, 9, 9, 0]]], np.uint8)).save(tmp_path / "b.png")
    content = (tmp_path / "b.png").read_bytes()
    assert decode_image(content, None, name="b").tolist() == [[[255] * 3]]
    chunk = b"tEXt" + b"a\0b"
    wrong = len(chunk[4:]).to_bytes(4, "big") + chunk + (zlib.crc32(chunk) ^ 1).to_bytes(4, "big")
    assert decode_image(content[:33] + wrong + content[33:], None, name="b").tolist() == [[[255] * 3]]


def test_warnings_are_as_before_when_threads_overlap():
    before, entered, leave = warnings.filters[:], threading.Event(), threading.Event()

    def inside():
        with pillow_guard():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=inside)
    with pillow_guard():
        thread.start()
        assert entered.wait(10)
    warnings.warn("is silent as long as one is inside", stacklevel=1)
    leave.set()
    thread.join()
    assert warnings.filters == before


def test_a_pipe_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(SourceError, match=r"a\.png: is not a regular file"):
        read_image(tmp_path / "a.png", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return exported_models.trained(tmp_path_factory)


def numbered(folder: Path, models: Path) -> str:
    """Return a table of the model's own test images, one of which is no image."""
    source = open_source(f"npz:{models / 'images.npz'}", split="test")
    names = write_files(folder, source.read(range(3)).transpose(0, 2, 3, 1), "{}.png")
    labels = [source.class_names[label] for label in source.labels[:3]]
    (folder / "bad.png").write_bytes(b"no image")
    rows = [[name, label] for name, label in zip([*names, "bad.png"], [*labels, labels[0]], strict=True)]
    return f"csv:{write_csv(folder, [['path', 'label'], *rows])}"


@pytest.mark.slow
def test_a_source_is_predicted(edgeprune, run, tmp_path):
    spec = numbered(tmp_path, run)
    code, out, err = edgeprune("predict", run / "run", spec, "--skip-bad", "--json")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert '"image": ' in lines[0]
    assert f'"{tmp_path}/labels.csv, line 2: 0.png"' in lines[0]
    assert '"label": ' in lines[0]
    assert "skipped" in err
    code, out, err = edgeprune("predict", run / "run", spec)
    assert (code, len(out.splitlines())) == (1, 3)
    assert "bad.png: is not an image" in err
    code, _, err = edgeprune("predict", run / "run", "nope:x")
    assert (code, err.startswith("edgeprune: error: unknown source 'nope:x'; known are digits")) == (2, True)
    code, _, err = edgeprune("predict", run / "run", tmp_path / "none.png")
    assert code == 2
