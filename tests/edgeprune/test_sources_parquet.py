"""Parquet files that pyarrow, pandas and Hugging Face wrote: columns, splits, row groups of any size."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from written_sources import NAMES, encoded, hugging_face, pictures, planes, write_files, write_parquet

from edgeprune.errors import SourceError
from edgeprune.sources import open_source
from edgeprune_formats import ConfigError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
parquet_groups = pytest.importorskip("edgeprune.sources.tables.parquet_groups")

PIXELS = pictures(12)
LABELS = [0, 1, 2] * 4


def columns(count: int = 12, **more) -> dict:
    return {"image": [encoded(image) for image in PIXELS[:count]], "label": LABELS[:count]} | more


def refusal(spec: str, split: str = "train") -> str:
    with pytest.raises(SourceError) as caught:
        open_source(spec, split=split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_pixels(source, rows=range(12)) -> None:
    rows = list(rows)
    np.testing.assert_array_equal(source.read(rows), planes(PIXELS[rows]))
    np.testing.assert_array_equal(source.read(rows[::-1] + rows[:1]), planes(PIXELS[rows[::-1] + rows[:1]]))


def test_hugging_face_writes_the_names_of_classes(tmp_path):
    pytest.importorskip("datasets")
    hugging_face(PIXELS, LABELS).to_parquet(str(tmp_path / "a.parquet"))
    source = open_source(f"parquet:{tmp_path / 'a.parquet'}")
    assert (source.class_names, source.labels.tolist()) == (NAMES, LABELS)
    assert (source.shape, source.undivided, source.name(3)) == ((3, 8, 8), True, f"{tmp_path}/a.parquet[3]")
    check_pixels(source)
    assert 12 * 150 < source.stored_bytes(range(12)) < 12 * 400


def test_pandas_writes_bytes_and_text(tmp_path):
    pandas = pytest.importorskip("pandas")
    names = [("cat", "dog", "ant")[label] for label in LABELS]
    frame = pandas.DataFrame({"img": [encoded(image) for image in PIXELS], "class": names, "id": range(12)})
    frame.to_parquet(tmp_path / "a.parquet")
    source = open_source(f"parquet:{tmp_path / 'a.parquet'}")
    assert (source.class_names, source.labels.tolist()) == (("ant", "cat", "dog"), [1, 2, 0] * 4)
    check_pixels(source)
    frame["class"] = frame["class"].astype("category")
    frame.to_parquet(tmp_path / "b.parquet")
    assert open_source(f"parquet:{tmp_path / 'b.parquet'}").labels.tolist() == [1, 2, 0] * 4


@pytest.mark.parametrize("kind", ["large_binary", "binary_view", "dictionary"])
@pytest.mark.parametrize("compression", ["snappy", "none", "zstd"])
def test_any_type_of_bytes(tmp_path, kind, compression):
    images = pa.array(columns()["image"])
    images = images.dictionary_encode() if kind == "dictionary" else images.cast(getattr(pa, kind)())
    if kind == "dictionary":
        images = images.cast(pa.binary())
    write_parquet(tmp_path / "a.parquet", columns(image=images), compression=compression, row_group_size=5)
    check_pixels(open_source(f"parquet:{tmp_path / 'a.parquet'}"))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_any_width_of_integers(tmp_path, kind):
    path = write_parquet(tmp_path / "a.parquet", columns(label=pa.array(LABELS, getattr(pa, kind)())))
    source = open_source(f"parquet:{path}")
    assert (source.class_names, source.labels.tolist()) == (("0", "1", "2"), LABELS)


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    names = write_files(tmp_path / "data", PIXELS, "images/{}.png")
    texts = write_parquet(tmp_path / "data" / "a.parquet", {"path": names, "label": LABELS})
    check_pixels(open_source(f"parquet:{texts}"))
    structs = [{"bytes": None, "path": str(tmp_path / "data" / name)} for name in names]
    absolute = write_parquet(
        tmp_path / "b.parquet",
        {
            "image": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": LABELS,
        },
    )
    check_pixels(open_source(f"parquet:{absolute}"))
    monkeypatch.chdir(tmp_path / "data")
    check_pixels(open_source("parquet:a.parquet"))


def test_files_of_splits_in_a_folder(tmp_path):
    for name, part in (
        ("train-00000-of-00002", slice(0, 5)),
        ("train-00001-of-00002", slice(5, 9)),
        ("test-00000-of-00001", slice(9, 12)),
    ):
        write_parquet(
            tmp_path / "data" / f"{name}.parquet", {key: value[part] for key, value in columns().items()}
        )
    train, test = open_source(f"parquet:{tmp_path}"), open_source(f"parquet:{tmp_path}", split="test")
    assert (len(train), len(test), train.undivided, test.class_names) == (9, 3, False, ("0", "1", "2"))
    check_pixels(train, range(9))
    np.testing.assert_array_equal(test.read([2, 0]), planes(PIXELS[[11, 9]]))
    assert train.name(6) == f"{tmp_path}/data/train-00001-of-00002.parquet[1]"
    # Files of one split that a pattern names are taken as they are.
    assert len(open_source(f"parquet:{tmp_path}/data/test-*.parquet")) == 3
    assert len(open_source(f"parquet:{tmp_path}/**/train-*.parquet", split="test")) == 9
    assert len(open_source(f"parquet:{tmp_path}/data/train-0000?-of-00002.parquet")) == 9


@pytest.mark.parametrize(
    ("names", "split", "told"),
    [
        (
            ["train-0", "other"],
            "train",
            "has train-0.parquet of a split beside other.parquet of none; name the files of one",
        ),
        (
            ["train-0"],
            "test",
            "has files of train, but none of the test split; to take some as they are, name them",
        ),
        (["val-0", "test-0"], "train", "has files of test and val, but none of the train split"),
    ],
)
def test_splits_that_are_refused(tmp_path, names, split, told):
    for name in names:
        write_parquet(tmp_path / f"{name}.parquet", columns())
    assert told in refusal(f"parquet:{tmp_path}", split)


def test_a_column_of_splits(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet", columns(split=["train", "validation", "test"] * 4, label=["b", "a", "b"] * 4)
    )
    train, test = open_source(f"parquet:{path}"), open_source(f"parquet:{path}", split="test")
    assert (len(train), train.class_names, test.labels.tolist()) == (4, ("b",), [0] * 4)
    np.testing.assert_array_equal(test.read([3, 1]), planes(PIXELS[[11, 5]]))
    assert test.name(1) == f"{path}[5]"


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_channels_are_those_of_the_images_that_can_be_read(tmp_path, bad):
    structs = [{"bytes": encoded(image[..., 0]), "path": None} for image in PIXELS]
    structs[bad] = None
    path = write_parquet(tmp_path / "a.parquet", {"image": structs, "label": LABELS}, row_group_size=4)
    source = open_source(f"parquet:{path}")
    assert source.shape[0] == 1
    np.testing.assert_array_equal(source.read([5]), PIXELS[5][None, None, ..., 0])


@pytest.mark.parametrize("small", [0, 2**20])
def test_row_groups_are_kept_or_copied(tmp_path, monkeypatch, small):
    monkeypatch.setattr(parquet_groups, "SMALL_BYTES", small)
    structs = [{"bytes": encoded(image), "path": None} for image in PIXELS]
    structs[7] = {"bytes": None, "path": write_files(tmp_path, PIXELS[7:8])[0]}
    structs[9] = None
    path = write_parquet(tmp_path / "a.parquet", {"image": structs, "label": LABELS}, row_group_size=4)
    source = open_source(f"parquet:{path}")
    check_pixels(source, [0, 11, 7, 8, 1])
    with pytest.raises(SourceError, match=r"a\.parquet\[9\]: is null, not an image$"):
        source.read([8, 9])


def test_row_groups_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_groups, "_KEPT_BYTES", 1000)
    path = write_parquet(tmp_path / "a.parquet", columns(), row_group_size=2)
    source = open_source(f"parquet:{path}")
    check_pixels(source)
    held = [group.bytes_held for group in source.reader.get()._read.values()]
    assert 0 < sum(held) <= 1000


def test_the_copy_has_no_room(tmp_path, monkeypatch, small_disk):
    monkeypatch.setattr(parquet_groups, "SMALL_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk(4096)))
    images = [np.random.default_rng(0).bytes(2000) for _ in range(12)]
    path = write_parquet(tmp_path / "a.parquet", columns(image=images))
    with pytest.raises(SourceError) as caught:
        open_source(f"parquet:{path}", size=8).read([3])
    message = str(caught.value)
    # What holds the disk.
    del caught
    gc.collect()
    assert "cannot be written: No space left on device; set TMPDIR to a folder with room" in message


def test_columns_that_are_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", columns(fine=["x", "y"] * 6, other=columns()["image"]))
    assert f"{path}: has no column of labels" not in refusal(f"parquet:{path}?image-column=label")
    source = open_source(f"parquet:{path}?image-column=other&label-column=fine")
    assert source.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("more", "options", "told"),
    [
        (
            {"image": None},
            "",
            "has no column of images; its columns are label, id; name it with `image_column`, or add ?image-",
        ),
        (
            {"label": None},
            "",
            "has no column of labels; its columns are image, id; name it with `label_column`",
        ),
        ({"photo": b"1", "image": None, "scan": b"2"}, "", "photo and scan may hold the images"),
        ({}, "?image-column=id", "column id is int64, neither encoded images nor their paths"),
        ({}, "?label-column=image", "column image is binary; labels are integers or text"),
        (
            {},
            "?label-column=x",
            "has no column 'x' of labels; its columns are image (binary), label (int64), id (int64)",
        ),
        ({}, "?split-column=id", "column id is int64; the names of splits are text"),
        ({"label": 1.5}, "", "column label is double; labels are integers or text"),
        ({"label": True}, "", "column label is bool; labels are integers or text"),
        ({"label": [1]}, "", "column label is list<"),
        ({"image": [1, 2]}, "?image-column=image", "column image is list<"),
    ],
)
def test_columns_that_are_refused(tmp_path, more, options, told):
    values = {key: [value] * 12 for key, value in more.items() if value is not None}
    table = {
        key: value
        for key, value in (columns(id=list(range(12))) | values).items()
        if more.get(key, 0) is not None
    }
    path = write_parquet(tmp_path / "a.parquet", table)
    message = refusal(f"parquet:{path}{options}")
    assert message.startswith(f"{path}: ")
    assert told in message


@pytest.mark.parametrize(
    ("twice", "options"),
    [("image", ""), ("label", ""), ("label", "?label-column=label"), ("id", "?target=id"), ("split", "")],
)
def test_columns_that_come_twice(tmp_path, twice, options):
    table = pa.table(columns(id=list(range(12)), split=["train"] * 12))
    path = str(tmp_path / "a.parquet")
    pq.write_table(table.append_column(twice, table[twice]), path)
    assert f"{path}: has 2 columns '{twice}'; give each a name of its own" in refusal(
        f"parquet:{path}{options}"
    )


@pytest.mark.parametrize(
    ("kind", "told"),
    [("class", "[1]: has no class"), ("integer", "[1]: is missing; name the kind float"), ("text", None)],
)
def test_a_target_of_integers_some_of_which_are_null(tmp_path, kind, told):
    spec = f"parquet:{write_parquet(tmp_path / 'a.parquet', columns(age=[7, None] * 6))}?target=age:{kind}"
    if told is not None:
        assert told in refusal(spec)
        return
    assert open_source(spec).targets[0].values.tolist() == ["7", ""] * 6


def test_equal_files_that_are_links_to_one(tmp_path):
    """As in the cache of the Hub, which keeps one of equal files."""
    blob = write_parquet(tmp_path / "blobs" / "0a1b", columns())
    hub = tmp_path / "datasets--photos"
    for name in ("a/train-0", "a/test-0", "a/validation-0", "b/train-0"):
        (hub / name).parent.mkdir(parents=True, exist_ok=True)
        (hub / f"{name}.parquet").symlink_to(blob)
    for kind in ("hf", "parquet"):
        assert len(open_source(f"{kind}:{hub}/a", split="test")) == 12
    # Two versions: the link in one of them must not be removed.
    assert "holds several data sets: a, b; name one" in refusal(f"hf:{hub}")
    told = f"{hub}/b/train-0.parquet: is there twice ({hub}/a/train-0.parquet); remove the link, or name"
    assert told in refusal(f"parquet:{hub}")


def test_columns_that_come_twice_and_are_not_read(tmp_path):
    table = pa.table(columns(id=list(range(12))))
    pq.write_table(table.append_column("id", table["id"]), tmp_path / "a.parquet")
    assert len(open_source(f"parquet:{tmp_path / 'a.parquet'}")) == 12


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ([0, None] * 6, "[1]: label is null; leave such rows out"),
        ([0, 0, -1] * 4, "[2]: label is -1; number the classes 0, 1, 2 and so on (-1 often marks"),
        (pa.array([0, 2**63 + 1] * 6, pa.uint64()), "label is beyond all numbers of classes"),
        (["a", "  "] * 6, "[1]: label is empty"),
    ],
)
def test_labels_that_are_refused(tmp_path, label, told):
    path = write_parquet(tmp_path / "a.parquet", columns(label=label))
    assert told in refusal(f"parquet:{path}")


def test_names_of_classes_that_are_too_few(tmp_path):
    pytest.importorskip("datasets")
    path = write_parquet(tmp_path / "a.parquet", columns())
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert (
        f"{path}[2]: has label 2, a class that is not among the 2 that {tmp_path}/names.txt names"
        in refusal(f"parquet:{path}?class-names={tmp_path}/names.txt")
    )


def test_images_that_are_elsewhere(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", columns(image=["https://host/a.png", "none.png"] * 6))
    source = open_source(f"parquet:{path}?image-column=image", size=8)
    with pytest.raises(
        SourceError, match=r"\[2\]: is not in the file but at https://host/a\.png; nothing is"
    ):
        source.read([2])
    with pytest.raises(SourceError, match=r"a\.parquet\[3\]: No such file or directory$"):
        source.read([3])


def test_files_that_are_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", columns())
    content = path.read_bytes()
    (tmp_path / "b.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "c.parquet").write_text("hello")
    for name in "bc":
        assert f"{name}.parquet: is damaged, cut off or of another format" in refusal(
            f"parquet:{tmp_path}/{name}.parquet"
        )
    (tmp_path / "d.parquet").write_bytes(content[:200] + bytes(400) + content[600:])
    with pytest.raises(SourceError, match=r"d\.parquet"):
        open_source(f"parquet:{tmp_path}/d.parquet", size=8).read(range(12))
    assert "No such file; parquet takes a file, a folder or a pattern" in refusal(
        f"parquet:{tmp_path}/none.parquet"
    )
    assert "names no file" in refusal(f"parquet:{tmp_path}/x*.parquet")
    (tmp_path / "empty").mkdir()
    assert "holds no files that end in .parquet" in refusal(f"parquet:{tmp_path}/empty")
    empty = {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}
    assert "holds no rows" in refusal(f"parquet:{write_parquet(tmp_path / 'e.parquet', empty)}")
    shutil.copy(path, tmp_path / "f.parquet")
    assert "is named twice" in refusal(f"parquet:{path}::{path}")
    assert len(open_source(f"parquet:{path}::{tmp_path}/f.parquet")) == 24


def test_files_that_do_not_fit_together(tmp_path):
    pytest.importorskip("datasets")
    hugging_face(PIXELS[:3], LABELS[:3]).to_parquet(str(tmp_path / "a.parquet"))
    hugging_face(PIXELS[:3], LABELS[:3], ("x", "y", "z")).to_parquet(str(tmp_path / "b.parquet"))
    write_parquet(tmp_path / "c.parquet", {"label": [1]})
    assert "b.parquet: names other classes for label than" in refusal(f"parquet:{tmp_path}/[ab].parquet")
    assert "c.parquet: has no column 'image' of images; its columns are label" in refusal(
        f"parquet:{tmp_path}/[ac].parquet"
    )


@pytest.mark.parametrize("pattern", ["https://host/a.parquet", "s3://bucket/a.parquet", "hf://datasets/x"])
def test_urls_are_refused(pattern):
    with pytest.raises(ConfigError, match="is no path; nothing is downloaded here: fetch the files"):
        open_source(f"parquet:{pattern}")


def test_rows_by_many_threads_and_after_a_fork(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_groups, "_KEPT_BYTES", 1000)
    source = open_source(f"parquet:{write_parquet(tmp_path / 'a.parquet', columns(), row_group_size=2)}")
    orders = [np.random.default_rng(seed).permutation(12) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        for order, pixels in zip(orders, pool.map(source.read, orders), strict=True):
            np.testing.assert_array_equal(pixels, planes(PIXELS[order]))
    child = os.fork()
    if not child:
        os._exit(int(not np.array_equal(source.read([5, 2]), planes(PIXELS[[5, 2]]))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
