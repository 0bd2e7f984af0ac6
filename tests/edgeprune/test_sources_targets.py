"""Targets from each kind of source."""

import csv
import unicodedata

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import SourceError
from edgeprune.sources import open_source, source_targets

N = 6


def spelled(form, text):
    return unicodedata.normalize(form, text)


def pixels(count=N):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_npz(tmp_path):
    ages = np.arange(N, dtype=float)
    spec = npz(
        tmp_path / "a.npz",
        x=pixels(),
        y=np.arange(N) % 2,
        age=ages,
        tags=np.eye(N, 3, dtype=bool),
        tags_names=np.array(["a", "b", "c"]),
    )
    source = open_source(f"{spec}?target=age&target=tags:multilabel")
    age, tags = source_targets(source)
    assert (age.column.kind, age.values[:, 0].tolist()) == ("value", ages.tolist())
    assert tags.column.classes == ("a", "b", "c")
    assert source.class_names == ("0", "1")
    assert source_targets(open_source(spec)) == ()


def test_npz_of_two_halves_without_labels(tmp_path):
    spec = npz(
        tmp_path / "a.npz", x_train=pixels(4), x_test=pixels(2), age_train=np.arange(4.0), age_test=np.ones(2)
    )
    train, test = (open_source(f"{spec}?target=age:value", split=split) for split in ("train", "test"))
    assert (train.class_names, train.labels.tolist()) == ((), [0] * 4)
    assert source_targets(train)[0].values[:, 0].tolist() == [0, 1, 2, 3]
    assert source_targets(test)[0].values[:, 0].tolist() == [1, 1]
    with pytest.raises(SourceError, match="has no y_train"):
        open_source(f"{spec}?target=age:float")


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (1_700_000_000.5 + 10 * np.arange(N), ["up to 1700000050 by up to 50.5,"]),
        (1_700_000_000 + np.arange(N), ["up to 1700000005 by up to 5,"]),
        (np.stack([np.arange(N), 2.0**25 + 2 * np.arange(N) + 1], 1), ["up to 33554443 by up to 1,"]),
        (2020 + np.linspace(0, 2, N), []),
        (np.full(N, 21.3), []),
        (np.full(N, 1_700_000_001), []),
        (np.where(np.arange(N) < 3, 0.3, 0.1 + 0.2), []),
        (5_500_000.3 + 30 * np.arange(N), []),
    ],
)
def test_numbers_that_float32_blurs_are_told_of(tmp_path, recwarn, array, told):
    spec = npz(tmp_path / "a.npz", x=pixels(), y=np.zeros(N, int), age=array)
    (target,) = source_targets(open_source(f"{spec}?target=age:value"))
    assert (target.values == array.reshape(N, -1).astype(np.float32)).all()
    found = [str(one.message).partition(" and their standard")[0] for one in recwarn.list]
    assert found == [f"{tmp_path / 'a.npz'}: target 'age': float32 changes numbers {one}" for one in told]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.arange(N - 1.0), "age has 5 values for 6 images"),
        (np.float64(1), "age has one value for 6 images"),
        (np.full(N, np.nan), "image 0: is nan"),
    ],
)
def test_npz_whose_target_cannot_be_used(tmp_path, array, words):
    spec = npz(tmp_path / "a.npz", x=pixels(), y=np.zeros(N, int), age=array)
    with pytest.raises(SourceError, match=words):
        open_source(f"{spec}?target=age")
    with pytest.raises(SourceError, match="has no array 'weight' for a target; it holds x, y, age"):
        open_source(f"{spec}?target=weight")


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        (":text", ["01234", "1e5", "7"], ["01234", "1e5", "7"]),
        ("", ["0012", "0003", "10"], ["0012", "0003", "10"]),
        ("", ["12", "3", "-10"], [12, 3, -10]),
        ("", ["05.5", "1.5", "9"], [5.5, 1.5, 9.0]),
        ("", [f"{10**20}", f"{10**20 + 1}", "3"], [f"{10**20}", f"{10**20 + 1}", "3"]),
        (":class", [f"{10**20}", f"{10**20 + 1}", "3"], [f"{10**20}", f"{10**20 + 1}", "3"]),
        (":integer", ["0012", "0003", "10"], [12, 3, 10]),
        (":float", ["01.5", "1e5", "7"], [1.5, 1e5, 7]),
        (":class", ["0012", "0003", "10"], ["0012", "0003", "10"]),
        (":class", ["1e5", "1.50", "1"], ["1e5", "1.50", "1"]),
        (":class", ["2", "0", "1"], ["2", "0", "1"]),
    ],
)
def test_text_of_digits_is_a_number_where_the_kind_is_one(tmp_path, kind, texts, expected):
    names = [f"{number}.png" for number in range(3)]
    images(tmp_path, names)
    lines = [
        f"{name},{number % 2},{text}" for number, (name, text) in enumerate(zip(names, texts, strict=True))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["path,label,code", *lines]))
    (target,) = source_targets(open_source(f"csv:{tmp_path / 'a.csv'}?target=code{kind}"))
    found = target.values.reshape(-1).tolist()
    if kind == ":class":
        assert sorted(target.column.classes) == sorted(expected)
        found = [target.column.classes[number] for number in found]
    assert found == expected


def images(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(path)
    return names


def table(path, header, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def test_csv(tmp_path):
    names = images(tmp_path, [f"{n}.png" for n in range(4)])
    rows = [(name, "ab"[n % 2], n + 0.5, "x|y" if n else "", n) for n, name in enumerate(names)]
    table(tmp_path / "a.csv", ("path", "label", "age", "tags", "stamp"), *rows)
    spec = f"csv:{tmp_path / 'a.csv'}?target=age&target=tags:multilabel&target=stamp"
    source = open_source(spec)
    age, tags, stamp = source_targets(source)
    assert age.values[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]
    assert (tags.column.classes, tags.values.tolist()[:2]) == (("x", "y"), [[False, False], [True, True]])
    assert (stamp.column.kind, stamp.values.tolist()) == ("integer", [0, 1, 2, 3])
    assert source.class_names == ("a", "b")
    assert source_targets(open_source(spec.partition("?")[0])) == ()


def test_csv_without_labels_and_in_splits(tmp_path):
    names = images(tmp_path, [f"{n}.png" for n in range(4)])
    rows = [(name, n, "test" if n == 1 else "train") for n, name in enumerate(names)]
    table(tmp_path / "a.csv", ("path", "age", "split"), *rows)
    spec = f"csv:{tmp_path / 'a.csv'}"
    train = open_source(f"{spec}?target=age:value")
    assert (train.class_names, train.labels.tolist()) == ((), [0, 0, 0])
    assert source_targets(train)[0].values[:, 0].tolist() == [0, 2, 3]
    test = open_source(f"{spec}?target=age:value", split="test")
    assert source_targets(test)[0].values[:, 0].tolist() == [1]
    with pytest.raises(SourceError, match="no column of labels"):
        open_source(spec)
    with pytest.raises(SourceError, match="no target that can be learned"):
        open_source(f"{spec}?target=age:integer")
    with pytest.raises(
        SourceError, match=r"no column 'weight'; its columns are path, age, split; .target=weight=COLUMN"
    ):
        open_source(f"{spec}?target=weight")


@pytest.mark.parametrize("tags", [("1", "0"), ("2", "3"), ("2|3", "2")])
def test_labels_that_are_numbers_in_a_column_of_text(tmp_path, tags):
    names = images(tmp_path, ["a.png", "b.png"])
    table(tmp_path / "a.csv", ("path", "label", "tags"), *zip(names, (0, 1), tags, strict=True))
    (target,) = source_targets(open_source(f"csv:{tmp_path / 'a.csv'}?target=tags:multilabel"))
    found = [[target.column.classes[place] for place in row.nonzero()[0]] for row in target.values]
    assert found == [tag.split("|") for tag in tags]


def test_bits_in_several_columns_of_text(tmp_path):
    names = images(tmp_path, ["a.png", "b.png"])
    table(tmp_path / "a.csv", ("path", "label", "wet", "cold"), (names[0], 0, 1, 0), (names[1], 1, 1, 1))
    spec = f"csv:{tmp_path / 'a.csv'}?target=weather=wet%2Bcold:multilabel"
    (target,) = source_targets(open_source(spec))
    assert (target.column.classes, target.values.tolist()) == (("wet", "cold"), [[True, False], [True, True]])


def test_csv_of_classes_that_are_no_numbers_from_0_on(tmp_path):
    names = images(tmp_path, ["a.png", "b.png"])
    table(tmp_path / "a.csv", ("path", "label", "owner"), (names[0], 0, 7), (names[1], 1, 1_700_000_000))
    with pytest.raises(SourceError, match=r"line 3: b\.png: is 1700000000; number the classes 0, 1, 2"):
        open_source(f"csv:{tmp_path / 'a.csv'}?target=owner:class")


def test_csv_whose_line_cannot_be_used(tmp_path):
    names = images(tmp_path, ["a.png", "b.png"])
    table(tmp_path / "a.csv", ("path", "label", "age"), (names[0], 0, "1.5"), (names[1], 1, "nan"))
    with pytest.raises(SourceError, match=r"a\.csv: target 'age': .*a\.csv, line 3: b\.png: is nan"):
        open_source(f"csv:{tmp_path / 'a.csv'}?target=age")


def test_metadata_beside_folders_of_classes(tmp_path):
    names = images(tmp_path / "train", ["cat/1.png", "cat/2.png", "dog/1.png"])
    images(tmp_path / "test", ["cat/1.png", "dog/7.png"])
    rows = [(f"train/{name}", n + 0.5) for n, name in enumerate(names)]
    table(
        tmp_path / "metadata.csv",
        ("file_name", "age"),
        *reversed(rows),
        ("test/cat/1.png", 8.5),
        ("test/dog/7.png", 9.5),
    )
    spec = f"imagefolder:{tmp_path}?target=age"
    source = open_source(spec)
    assert (source.class_names, source_targets(source)[0].values[:, 0].tolist()) == (
        ("cat", "dog"),
        [0.5, 1.5, 2.5],
    )
    assert source_targets(open_source(spec, split="test"))[0].values[:, 0].tolist() == [8.5, 9.5]
    assert source_targets(open_source(f"imagefolder:{tmp_path}")) == ()
    images(tmp_path / "train", ["dog/new.png"])
    with pytest.raises(SourceError, match=r"metadata\.csv: has no line for train/dog/new\.png"):
        open_source(spec)


def test_metadata_of_images_that_lie_in_one_folder(tmp_path):
    names = images(tmp_path / "train", ["1.png", "2.png"])
    table(
        tmp_path / "train" / "metadata.csv",
        ("file_name", "label", "age"),
        *((n, f"is {n}", 2.5) for n in names),
    )
    source = open_source(f"imagefolder:{tmp_path}?target=age")
    assert source.class_names == ("is 1.png", "is 2.png")
    assert source_targets(source)[0].values.tolist() == [[2.5], [2.5]]
    assert source.spec == f"imagefolder:{tmp_path}?target=age"
    assert source.read([0, 1]).shape == (2, 3, 8, 8)


def test_metadata_that_is_missing_or_lists_a_file_twice(tmp_path):
    names = images(tmp_path, ["cat/1.png", "dog/1.png"])
    spec = f"imagefolder:{tmp_path}?target=age"
    with pytest.raises(SourceError, match=r"has no metadata\.csv"):
        open_source(spec)
    table(tmp_path / "metadata.csv", ("file_name", "age"), (names[0], 1), (f"./{names[0]}", 2))
    with pytest.raises(SourceError, match=r"line 3: cat/1\.png stands there twice"):
        open_source(spec)
    table(tmp_path / "metadata.csv", ("file_name", "weight"), (names[0], 1))
    with pytest.raises(SourceError, match="no column 'age'"):
        open_source(spec)


def test_folders_of_classes_that_differ_in_normalization_alone(tmp_path):
    images(tmp_path, [f"{spelled('NFC', 'é')}/1.png", f"{spelled('NFD', 'é')}/1.png"])
    with pytest.raises(SourceError, match="differ only in how Unicode composes their accents"):
        open_source(f"imagefolder:{tmp_path}")


def encoded(count):
    from io import BytesIO

    found = []
    for number in range(count):
        buffer = BytesIO()
        Image.new("RGB", (8, 8), (40 * number, 9, 9)).save(buffer, "png")
        found.append({"bytes": buffer.getvalue(), "path": None})
    return found


def arrow_table(count=4, **columns):
    pa = pytest.importorskip("pyarrow")
    return pa.table({"image": encoded(count), **columns})


def test_parquet(tmp_path):
    import pyarrow.parquet as pq

    columns = {
        "label": ["a", "b", "a", "b"],
        "age": [1.5, 2.5, 3.5, 4.5],
        "tags": [["x"], [], ["y", "x"], None],
        "pose": [[1.0, 2.0]] * 4,
        "name": ["p", "q", None, "s"],
    }
    pq.write_table(arrow_table(**columns), tmp_path / "a.parquet")
    texts = "&".join(f"target={name}" for name in ("age", "tags", "pose:value", "name"))
    source = open_source(f"parquet:{tmp_path / 'a.parquet'}?{texts}")
    age, tags, pose, name = source_targets(source)
    assert age.values[:, 0].tolist() == [1.5, 2.5, 3.5, 4.5]
    assert (tags.column.kind, tags.column.classes) == ("multilabel", ("x", "y"))
    assert tags.values.tolist() == [[True, False], [False, False], [True, True], [False, False]]
    assert pose.values.shape == (4, 2)
    assert name.values.tolist() == ["p", "q", "", "s"]
    assert source.class_names == ("a", "b")


def test_parquet_of_two_splits_without_labels(tmp_path):
    import pyarrow.parquet as pq

    pq.write_table(arrow_table(4, age=[1.0, 2, 3, 4], odd=[0, 1, 0, 1]), tmp_path / "train.parquet")
    pq.write_table(arrow_table(2, age=[5.0, 6], odd=[1, 2]), tmp_path / "test.parquet")
    spec = f"parquet:{tmp_path}?target=age&target=odd:class"
    train, test = (open_source(spec, split=split) for split in ("train", "test"))
    assert (train.class_names, len(train), len(test)) == ((), 4, 2)
    assert source_targets(test)[0].values[:, 0].tolist() == [5, 6]
    assert source_targets(test)[1].column.classes == ("0", "1", "2")
    with pytest.raises(SourceError, match="no column of labels, and no target that can be learned"):
        open_source(f"parquet:{tmp_path}?target=age:float")
    with pytest.raises(SourceError, match="has no column 'weight' of a target"):
        open_source(f"parquet:{tmp_path}?target=weight")


@pytest.mark.parametrize("bad", [[1.0, None, 3, 4], [1.0, float("nan"), 3, 4]])
def test_parquet_whose_value_is_missing(tmp_path, bad):
    import pyarrow.parquet as pq

    pq.write_table(arrow_table(age=bad), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"target 'age': .*a\.parquet\[1\]: is nan"):
        open_source(f"parquet:{tmp_path / 'a.parquet'}?target=age")


def test_features_of_hugging_face_name_the_classes(tmp_path):
    import json

    import pyarrow.parquet as pq

    names = {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]}
    features = {"label": names, "breed": names, "seen": {"_type": "Sequence", "feature": names}}
    table = arrow_table(label=[0, 1, 2, 0], breed=[2, 0, 1, 1], seen=[[0], [2, 1], [], [1]])
    table = table.replace_schema_metadata(
        {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    spec = f"parquet:{tmp_path / 'a.parquet'}?label-column=label&target=breed:class&target=seen"
    breed, seen = source_targets(open_source(spec))
    assert (breed.column.classes, breed.values.tolist()) == (("cat", "dog", "owl"), [2, 0, 1, 1])
    assert seen.column.classes == ("cat", "dog", "owl")
    assert seen.values.astype(int).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]]


def shard(path, *samples):
    import io
    import json
    import tarfile

    with tarfile.open(path, "w") as tar:
        for number, members in enumerate(samples):
            image = encoded(number + 1)[number]["bytes"]
            for ending, content in {"png": image, **members}.items():
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                member = tarfile.TarInfo(f"{number:04d}.{ending}")
                member.size = len(raw)
                tar.addfile(member, io.BytesIO(raw))
    return f"webdataset:{path}"


def test_webdataset(tmp_path):
    one, two = (
        {"json": {"label": n, "age": n + 0.5, "tags": ["a"] * n}, "note": b"x%d " % n} for n in range(2)
    )
    source = open_source(shard(tmp_path / "a.tar", one, two) + "?target=age&target=tags&target=note:text")
    age, tags, note = source_targets(source)
    assert (age.column.kind, age.values.tolist()) == ("value", [[0.5], [1.5]])
    assert (tags.column.classes, tags.values.tolist()) == (("a",), [[False], [True]])
    assert note.values.tolist() == ["x0", "x1"]
    assert source.class_names == ("0", "1")


def test_webdataset_without_labels(tmp_path):
    spec = shard(tmp_path / "a.tar", *({"json": {"age": n + 0.5, "pose": [n, 2]}} for n in range(3)))
    source = open_source(f"{spec}?target=age&target=pose:value")
    assert (source.class_names, source.labels.tolist()) == ((), [0, 0, 0])
    assert source_targets(source)[1].values.tolist() == [[0, 2], [1, 2], [2, 2]]
    with pytest.raises(SourceError, match="has no labels, and no target that can be learned"):
        open_source(f"{spec}?target=age:float")
    with pytest.raises(SourceError, match=r"a\.tar/0000: has no 'weight' for a target; it has age, pose"):
        open_source(f"{spec}?target=weight")


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_a_table_of_lists_of_equal_length(tmp_path, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = arrow_table(2, label=[0, 1], pose=[[1.0, 2.0], [3.0, 4.0]])
    folder = tmp_path / "saved"
    folder.mkdir()
    if kind == "parquet":
        pq.write_table(table, folder / "a.parquet")
    else:
        file = str(folder / "data-00000-of-00001.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
        (folder / "dataset_info.json").write_text("{}")
    source = open_source(f"{kind}:{folder}?target=pose:value")
    assert source_targets(source)[0].values.tolist() == [[1, 2], [3, 4]]
