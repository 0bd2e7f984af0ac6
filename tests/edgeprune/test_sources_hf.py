"""Data sets that Hugging Face `datasets` saved, cached or downloaded."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from written_sources import NAMES, encoded, hugging_face, pictures, planes, write_files

from edgeprune.errors import SourceError
from edgeprune.sources import open_source
from edgeprune_formats import ConfigError

PIXELS = pictures(12)
LABELS = [0, 1, 2] * 4


@pytest.fixture(scope="module")
def datasets():
    # Two seconds, which only the process that runs these tests has to wait.
    return pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def whole(datasets):
    return hugging_face(PIXELS, LABELS)


@pytest.fixture(scope="module")
def saved(whole, datasets, tmp_path_factory):
    """Folders of one data set, and of one with splits."""
    folder = tmp_path_factory.mktemp("saved")
    whole.save_to_disk(folder / "one", num_shards=3)
    splits = {"train": range(6), "validation": range(6, 8), "test": range(8, 12), "unsupervised": range(3)}
    datasets.DatasetDict({name: whole.select(rows) for name, rows in splits.items()}).save_to_disk(
        folder / "parts"
    )
    return folder


@pytest.fixture(scope="module")
def cached(whole, datasets, tmp_path_factory):
    """A folder of the cache of load_dataset, and the folder with Parquet files that it was made of."""
    folder = tmp_path_factory.mktemp("cached")
    for name, rows in (("train", range(8)), ("test", range(8, 12))):
        path = folder / "photos" / "data" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.select(rows).to_parquet(str(path))
    loaded = datasets.load_dataset(str(folder / "photos"), cache_dir=str(folder / "cache"))
    loaded["train"].map(lambda row: row)
    return Path(loaded["train"].cache_files[0]["filename"]).parent, folder / "photos"


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / folder.name))


def refusal(spec: str, split: str = "train") -> str:
    with pytest.raises(SourceError) as caught:
        open_source(spec, split=split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_that_was_saved(saved, datasets):
    source = open_source(f"hf:{saved / 'one'}")
    assert (source.class_names, source.labels.tolist()) == (NAMES, LABELS)
    assert (len(source), source.shape, source.undivided, source.license) == (12, (3, 8, 8), True, None)
    assert source.name(5) == f"{saved}/one/data-00001-of-00003.arrow[1]"
    order = [11, 0, 4, 4]
    np.testing.assert_array_equal(source.read(order), planes(PIXELS[order]))
    assert open_source(f"hf:{saved / 'one'}", size=4).read([0]).shape == (1, 3, 4, 4)
    row = next(
        iter(datasets.load_from_disk(saved / "one").cast_column("image", datasets.Image(decode=False)))
    )
    assert source.stored_bytes([0, 0]) == 2 * len(row["image"]["bytes"])


def test_one_with_splits(saved):
    train, test = open_source(f"hf:{saved}/parts"), open_source(f"hf:{saved}/parts", split="test")
    assert (len(train), len(test), train.undivided, test.class_names) == (6, 4, False, NAMES)
    np.testing.assert_array_equal(test.read([3, 0]), planes(PIXELS[[11, 8]]))
    assert open_source(f"hf:{saved}/parts/validation", split="test").undivided


def test_one_that_was_shuffled_and_filtered(whole, tmp_path):
    chosen = whole.shuffle(seed=1).filter(lambda label: label < 2, input_columns="label")
    chosen.save_to_disk(tmp_path / "a")
    source = open_source(f"hf:{tmp_path}/a", split="test")
    assert source.labels.tolist() == chosen["label"][:]
    np.testing.assert_array_equal(source.read([2])[0].transpose(1, 2, 0), np.asarray(chosen[2]["image"]))
    assert "class 2 (dog) has no images" in refusal(f"hf:{tmp_path}/a")


def test_one_in_the_cache(cached):
    folder, _ = cached
    train, test = open_source(f"hf:{folder}"), open_source(f"hf:{folder}", split="test")
    assert (len(train), len(test), train.undivided, train.class_names) == (8, 4, False, NAMES)
    np.testing.assert_array_equal(train.read([7, 1]), planes(PIXELS[[7, 1]]))
    assert any(folder.glob("cache-*"))


def test_one_that_was_downloaded(cached):
    _, folder = cached
    train, test = open_source(f"hf:{folder}"), open_source(f"hf:{folder}", split="test")
    assert (len(train), len(test), train.undivided, test.class_names) == (8, 4, False, NAMES)
    np.testing.assert_array_equal(test.read([3]), planes(PIXELS[[11]]))


def test_images_beside_the_tables(tmp_path, datasets):
    names = write_files(tmp_path / "images", PIXELS, "{}.png")
    features = datasets.Features(picture=datasets.Image(), kind=datasets.Value("string"))
    rows = {"picture": [str(tmp_path / "images" / name) for name in names], "kind": ["b", "a"] * 6}
    folder = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache")
    )
    assert len(folder["train"]) == 12
    # As imagefolder leaves them in its cache: paths without bytes.
    import pyarrow as pa

    table = pa.table(
        {
            "picture": pa.array(
                [{"bytes": None, "path": path} for path in rows["picture"]],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "kind": rows["kind"],
        }
    )
    datasets.Dataset(table).cast(features)
    target = tmp_path / "cache" / "x"
    target.mkdir(parents=True)
    with (
        pa.OSFile(str(target / "x-train.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    (target / "dataset_info.json").write_text(
        json.dumps({"license": "CC0", "splits": {"train": {"num_examples": 12}}})
    )
    source = open_source(f"hf:{target}?label-column=kind")
    assert (source.class_names, source.license) == (("a", "b"), "CC0")
    np.testing.assert_array_equal(source.read([3, 9]), planes(PIXELS[[3, 9]]))
    assert source.stored_bytes([3]) == len(encoded(PIXELS[3]))


def test_columns_by_their_features(tmp_path, datasets):
    names = {"fine": datasets.ClassLabel(names=["x", "y"]), "coarse": datasets.ClassLabel(names=["z"])}
    features = datasets.Features(img=datasets.Image(), id=datasets.Value("int64"), **names)
    images = [{"bytes": encoded(image), "path": None} for image in PIXELS[:4]]
    rows = {"img": images, "id": range(4), "fine": [0, 1, 0, 1], "coarse": [0] * 4}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "a")
    assert "fine and coarse may hold the labels; name it with `label_column`" in refusal(f"hf:{tmp_path}/a")
    assert open_source(f"hf:{tmp_path}/a?label-column=fine").class_names == ("x", "y")
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    named = f"hf:{tmp_path}/a?label-column=fine&class-names={tmp_path}/names.txt"
    assert open_source(named).class_names == ("one", "two")


def test_labels_that_are_hidden(tmp_path):
    hugging_face(PIXELS[:2], [0, -1]).save_to_disk(tmp_path / "a")
    assert "arrow[1]: label is -1; number the classes 0, 1, 2 and so on (-1 often marks" in refusal(
        f"hf:{tmp_path}/a"
    )


def test_folders_that_are_refused(saved, cached, tmp_path):
    assert "none: No such folder, and nothing is downloaded; save one with save_to_disk(FOLDER)" in refusal(
        f"hf:{tmp_path}/none"
    )
    assert (
        "is no data set of Hugging Face (no state.json, dataset_dict.json, Arrow or Parquet); save one"
        in refusal(f"hf:{tmp_path}")
    )
    assert "those below it are hf:" in refusal(f"hf:{saved}")
    above = cached[0].parents[2]
    assert f"those below it are hf:{cached[0]}; name one" in refusal(f"hf:{above}")
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        open_source("hf:https://huggingface.co/datasets/cifar10")
    with pytest.raises(ConfigError, match="write hf:FOLDER"):
        open_source("hf:")
    only = tmp_path / "only"
    shutil.copytree(saved / "parts" / "train", only / "train")
    (only / "dataset_dict.json").write_text('{"splits": ["train"]}')
    message = refusal(f"hf:{only}", "test")
    assert "has train, but no test split; to take one as it is, save it by itself, or name its" in message
    assert message.endswith(f"hf:{only}/train")


def test_several_data_sets_in_a_folder(cached, tmp_path):
    _, folder = cached
    for name in ("plain", "gray"):
        shutil.copytree(folder / "data", tmp_path / name)
    assert f"holds several data sets: gray, plain; name one: hf:{tmp_path}/plain" in refusal(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("state.json", b"{", "state.json: is damaged: no JSON; save the data set again"),
        ("state.json", b"[1]", "state.json: is damaged: no object"),
        ("state.json", b"{}", "state.json: lists no files"),
        ("state.json", b'{"_data_files": []}', ": holds no rows"),
        ("state.json", b'{"_data_files": [{"filename": "../../etc"}]}', "state.json: lists no files"),
        (
            "state.json",
            b'{"_data_files": [{"filename": "a"}], "_indices_data_files": [1]}',
            "was saved by an old release",
        ),
        (
            "data-00001-of-00003.arrow",
            None,
            "data-00001-of-00003.arrow: is damaged, cut off or of another format",
        ),
        (
            "data-00001-of-00003.arrow",
            b"",
            "data-00001-of-00003.arrow: is damaged, cut off or of another format",
        ),
        ("data-00001-of-00003.arrow", b"hello" * 100, "data-00001-of-00003.arrow: is damaged, cut off or of"),
    ],
)
def test_folders_that_are_damaged(saved, tmp_path, file, content, told):
    folder = copied(saved / "one", tmp_path)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    assert told in refusal(f"hf:{folder}")


def test_a_table_that_is_cut_off_or_changed_anywhere(saved, tmp_path):
    folder = copied(saved / "one", tmp_path)
    path = folder / "data-00000-of-00003.arrow"
    content = path.read_bytes()
    for length in range(8, len(content) - 8, 97):
        path.write_bytes(content[:length])
        refusal(f"hf:{folder}")
    for at in range(0, len(content), 43):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        with contextlib.suppress(SourceError):
            open_source(f"hf:{folder}", size=8).read(range(4))


def test_files_of_the_cache_that_are_missing(cached, tmp_path):
    folder = copied(cached[0], tmp_path)
    train = next(folder.glob("*-train.arrow"))
    train.rename(folder / "photos-train-00000-of-00002.arrow")
    assert "has 1 of 2 files of train; make it again" in refusal(f"hf:{folder}")
    shutil.copy(folder / "photos-train-00000-of-00002.arrow", folder / "photos-train-00001-of-00002.arrow")
    assert "has 16 of 8 rows of train; make it again" in refusal(f"hf:{folder}")


def test_rows_by_many_threads_after_a_fork_and_in_a_pickle(saved):
    source = open_source(f"hf:{saved / 'one'}")
    orders = [np.random.default_rng(seed).permutation(12) for seed in range(16)]
    with ThreadPoolExecutor(6) as pool:
        for order, pixels in zip(orders, pool.map(source.read, orders), strict=True):
            np.testing.assert_array_equal(pixels, planes(PIXELS[order]))
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read([3]), planes(PIXELS[[3]]))
    child = os.fork()
    if not child:
        os._exit(int(not np.array_equal(source.read([5, 2]), planes(PIXELS[[5, 2]]))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
