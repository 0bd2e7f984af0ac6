"""Tar files that webdataset wrote: members, labels, splits, and whatever is wrong with them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from written_sources import encoded, pictures, planes, samples, write_shard

from edgeprune.errors import SourceError
from edgeprune.sources import open_source
from edgeprune_formats import ConfigError

pytest.importorskip("webdataset")

PIXELS = pictures(9)
LABELS = [0, 1, 2] * 3


def shards(folder: Path, name: str = "a-{:02d}.tar", ending: str = "cls", labels: list | None = None) -> None:
    """Write 9 images to three tar files, with keys that go through all of them."""
    whole = samples(PIXELS, LABELS if labels is None else labels, ending)
    for number in range(3):
        write_shard(folder / name.format(number), whole[3 * number :][:3])


def refusal(spec: str, split: str = "train") -> str:
    with pytest.raises(SourceError) as caught:
        open_source(spec, split=split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


PNG = encoded(PIXELS[0])


@pytest.mark.parametrize(
    "pattern",
    ["a-{00..02}.tar", "a-{00,01,02}.tar", "a-*.tar", "a-0?.tar", "", "a-00.tar::{f}/a-01.tar::{f}/a-02.tar"],
)
def test_shards_that_a_pattern_names(tmp_path, pattern):
    shards(tmp_path)
    source = open_source(f"webdataset:{tmp_path}/{pattern.replace('{f}', str(tmp_path))}")
    assert (source.class_names, source.labels.tolist()) == (("0", "1", "2"), LABELS)
    assert (source.shape, source.undivided, source.notes) == ((3, 8, 8), True, ())
    assert source.name(4) == f"{tmp_path}/a-01.tar/000004.png"
    order = [8, 0, 3, 3, 5]
    np.testing.assert_array_equal(source.read(order), planes(PIXELS[order]))
    assert source.stored_bytes([4, 5]) == len(encoded(PIXELS[4])) + len(encoded(PIXELS[5]))
    assert open_source(source.spec, size=4).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("ending", "labels", "option", "names"),
    [
        ("txt", ["dog", "cat ", "ant\n"] * 3, "", ("ant", "cat", "dog")),
        ("txt", ["2", "1", "0"] * 3, "", ("0", "1", "2")),
        ("json", [{"label": name, "width": 8} for name in "cba" * 3], "", ("a", "b", "c")),
        (
            "json",
            [{"label": "x", "kind": number} for number in LABELS],
            "?label-column=kind",
            ("0", "1", "2"),
        ),
        ("json", [{"label": number} for number in LABELS], "?label-column=json", ("0", "1", "2")),
        ("class.txt", ["c", "b", "a"] * 3, "?label-column=class.txt", ("a", "b", "c")),
    ],
)
def test_labels_in_any_member(tmp_path, ending, labels, option, names):
    shards(tmp_path, ending=ending, labels=labels)
    source = open_source(f"webdataset:{tmp_path}{option}")
    wanted = LABELS if "kind" in option or labels[0] == {"label": 0} else [2, 1, 0] * 3
    assert (source.class_names, source.labels.tolist()) == (names, wanted)


def test_the_integer_comes_before_other_labels(tmp_path):
    whole = [
        sample | {"txt": f"a photo of {n}", "json": {"label": "x"}}
        for n, sample in enumerate(samples(PIXELS, LABELS))
    ]
    write_shard(tmp_path / "a.tar", whole)
    source = open_source(f"webdataset:{tmp_path}/a.tar")
    assert (source.labels.tolist(), source.notes) == (LABELS, ())


def test_one_image_of_several(tmp_path):
    whole = [
        {"left.png": encoded(image), "right.png": PNG, "__key__": f"{n}", "cls": 0}
        for n, image in enumerate(PIXELS)
    ]
    write_shard(tmp_path / "a.tar", whole)
    assert "0: has several images, left.png and right.png; name one with `image_column`" in refusal(
        f"webdataset:{tmp_path}"
    )
    # Endings are alike in upper and lower case.
    source = open_source(f"webdataset:{tmp_path}?image-column=Left.PNG")
    np.testing.assert_array_equal(source.read([2]), planes(PIXELS[[2]]))


def test_splits_by_the_names_of_files_and_folders(tmp_path):
    shards(tmp_path / "shards", "imagenet-train-{:06d}.tar")
    write_shard(tmp_path / "shards" / "imagenet-val-000000.tar", samples(PIXELS[:2], [1, 0]))
    train, test = open_source(f"webdataset:{tmp_path}"), open_source(f"webdataset:{tmp_path}", split="test")
    assert (len(train), len(test), test.class_names, test.undivided) == (9, 2, ("0", "1", "2"), False)
    both = f"webdataset:{tmp_path}/shards/imagenet-{{train,val}}-{{000000..000000}}.tar"
    assert (len(open_source(both)), len(open_source(both, split="test"))) == (3, 2)
    shards(tmp_path / "other" / "Training", "{:02d}.tar")
    shards(tmp_path / "other" / "Testing", "{:02d}.tar")
    assert (
        open_source(f"webdataset:{tmp_path}/other", split="test").name(0)
        == f"{tmp_path}/other/Testing/00.tar/000000.png"
    )


def test_keys_that_repeat_in_several_files_are_told(tmp_path):
    for name in "ab":
        write_shard(tmp_path / f"{name}.tar", samples(PIXELS[:3], [0, 1, 0]))
    source = open_source(f"webdataset:{tmp_path}")
    assert source.notes == (f"{tmp_path}/a.tar: 3 keys stand in several files; each is an image of its own",)
    assert len(source) == 6
    assert "is named twice" in refusal(f"webdataset:{tmp_path}/{{a,b,a}}.tar")


def test_other_members_are_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os._exit, (3,)

    members = {
        f"{n}.{ending}": content
        for n in range(3)
        for ending, content in (
            ("png", encoded(PIXELS[n])),
            ("cls", b"0"),
            ("pyd", pickle.dumps(Bomb())),
            ("pth", b""),
        )
    }
    others = {"README.md": b"hello", ".x.png": b"", "no_ending": b""}
    source = open_source(f"webdataset:{tar(tmp_path / 'a.tar', members | others)}")
    assert source.notes == (
        f"{tmp_path}/a.tar: members that are neither images nor labels are not read: 3 .pth, 3 .pyd, 1 .md",
    )
    assert source.read(range(3)).shape == (3, 3, 8, 8)


@pytest.mark.parametrize("option", ["pyd", "pickle"])
def test_a_pickle_is_no_label(tmp_path, option):
    path = tar(tmp_path / "a.tar", {"1.png": PNG, f"1.{option}": pickle.dumps(3)})
    assert "a.tar/1: its label cannot be read from" in refusal(f"webdataset:{path}?label-column={option}")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"1.txt": b"a", "2.json": b"{}"}, "a.tar: has no images among its members (1 .json, 1 .txt)"),
        ({"1.heic": PNG, "1.cls": b"0"}, "has no images among its members (1 .cls, 1 .heic)"),
        ({}, "has no images among its members (no endings)"),
        ({"1.png": PNG}, "a.tar/1: its label is missing (cls, json or txt); it has png"),
        ({"1.png": PNG, "1.cls": b"0", "2.png": PNG}, "a.tar/2: its label is missing (cls); it has png"),
        (
            {"1.png": PNG, "1.cls": b"0", "2.cls": b"0"},
            "a.tar/2: has a label, but no image beside it; it has cls",
        ),
        (
            {"1.png": PNG, "1.cls": b"0", "2.png": PNG, "2.cls": b"0", "1.jpg": PNG, "1.cls ": b""},
            "a.tar/1: its label is missing (cls); it has jpg, cls ",
        ),
        (
            {"1.png": PNG, "1.cls": b"0", "1.PNG": PNG},
            "a.tar: has 1.PNG twice; keys of samples must not repeat",
        ),
        ({"1.png": PNG, "1.cls": b"dog"}, "a.tar/1: its label cannot be read from cls: invalid literal"),
        ({"1.png": PNG, "1.cls": b"-1"}, "a.tar/1: its label is -1; number the classes"),
        ({"1.png": PNG, "1.json": b"{"}, "a.tar/1: its label cannot be read from json"),
        ({"1.png": PNG, "1.json": b"[" * 100000}, "a.tar/1: its label cannot be read from json"),
        (
            {"1.png": PNG, "1.json": b'{"name": 3}'},
            "its label is missing: json has name, not label; name one with",
        ),
        (
            {"1.png": PNG, "1.json": b'{"label": 1.5}'},
            "its label '1.5' is a float; labels are integers from 0 on, or text",
        ),
        ({"1.png": PNG, "1.json": b'{"label": null}'}, "its label is missing; labels are integers"),
        (
            {"1.png": PNG, "1.json": b'{"label": 0}', "2.png": PNG, "2.json": b'{"label": "a"}'},
            "a.tar/2: its label 'a' is text, and those before it are integers",
        ),
        ({"1.png": PNG, "1.txt": b" " * 2**21}, "its label takes 2,097,152 bytes in txt"),
        ({"1.png": PNG, "1.txt": b"\xff"}, "its label cannot be read from txt"),
    ],
)
def test_members_that_are_refused(tmp_path, members, told):
    assert told in refusal(f"webdataset:{tar(tmp_path / 'a.tar', members)}")


def test_a_sample_that_comes_twice_in_a_file(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, {"1.png": PNG, "1.cls": b"0", "2.png": PNG, "2.cls": b"0"})
    with tarfile.open(path, "a") as archive:
        for ending in ("png", "cls"):
            entry = tarfile.TarInfo(f"1.{ending}")
            entry.size = len(PNG) if ending == "png" else 1
            archive.addfile(entry, io.BytesIO(PNG if ending == "png" else b"0"))
    assert "a.tar: the sample of 1.png comes twice; a key must not repeat in a file" in refusal(
        f"webdataset:{path}"
    )


def test_a_tar_that_is_cut_short_anywhere(tmp_path):
    shards(tmp_path)
    content = (tmp_path / "a-00.tar").read_bytes()
    with tarfile.open(tmp_path / "a-00.tar") as archive:
        last = archive.getmembers()[-1]
        end = archive.offset
    cut = tmp_path / "cut.tar"
    for length in (
        0,
        100,
        512,
        700,
        last.offset,
        last.offset + 300,
        last.offset_data,
        end - 512,
        end,
        end + 256,
    ):
        cut.write_bytes(content[:length])
        message = refusal(f"webdataset:{cut}")
        assert message.startswith(f"{cut}: is")
        assert "cut short" in message
    cut.write_bytes(content[: end + 512])
    assert len(open_source(f"webdataset:{cut}")) == 3


def test_files_of_other_formats(tmp_path):
    shards(tmp_path)
    content = (tmp_path / "a-00.tar").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(content))
    assert "a.tar.gz: is compressed (gzip), and images are read in any order; gunzip it first" in refusal(
        f"webdataset:{tmp_path}/a.tar.gz"
    )
    (tmp_path / "b.tar").write_bytes(content + content)
    assert "b.tar: goes on after its end; are several tar files joined" in refusal(
        f"webdataset:{tmp_path}/b.tar"
    )
    (tmp_path / "c.tar").write_bytes(b"hello" * 1000)
    assert "c.tar: is no tar file, is damaged or cut short" in refusal(f"webdataset:{tmp_path}/c.tar")
    damaged = bytearray(content)
    with tarfile.open(tmp_path / "a-00.tar") as archive:
        damaged[archive.getmembers()[2].offset + 150] ^= 1
    (tmp_path / "d.tar").write_bytes(damaged)
    assert "d.tar: is damaged or cut short after" in refusal(f"webdataset:{tmp_path}/d.tar")
    # The name of the first member begins as a file of bzip2 does.
    assert (
        len(open_source(f"webdataset:{tar(tmp_path / 'e.tar', {'BZh/1.png': PNG, 'BZh/1.cls': b'0'})}")) == 1
    )


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    path = tar(
        tmp_path / "a.tar",
        {"1.png": PNG, "1.cls": b"0", "2.png": b"no image", "2.cls": b"0", "3.jpg": b"", "3.cls": b"0"},
    )
    source = open_source(f"webdataset:{path}")
    for row, told in (
        (1, r"a\.tar/2\.png: is not an image in a format known here$"),
        (2, r"a\.tar/3\.jpg: is empty$"),
    ):
        with pytest.raises(SourceError, match=told):
            source.read([0, row])
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(SourceError, match=r"a\.tar: is cut short after 600 bytes"):
        source.read([0])


@pytest.mark.parametrize(
    "pattern", ["https://host/{0..9}.tar", "pipe:curl x", "s3://bucket/a.tar", "a.tar::gs://b/c.tar"]
)
def test_urls_are_refused(pattern):
    with pytest.raises(ConfigError, match="is no path; nothing is downloaded here"):
        open_source(f"webdataset:{pattern}")


def test_patterns_that_are_refused(tmp_path):
    shards(tmp_path)
    assert "a-03.tar: No such file; webdataset takes a file" in refusal(
        f"webdataset:{tmp_path}/a-{{00..03}}.tar"
    )
    with pytest.raises(ConfigError, match="braces without a partner"):
        open_source(f"webdataset:{tmp_path}/a-{{00..03.tar")
    with pytest.raises(ConfigError, match="names more than 131,072 files"):
        open_source(f"webdataset:{tmp_path}/{{000..999}}{{000..999}}.tar")
    # No name of these is made before there are too many.
    for braces in ("{0..99999999999}", "{99999999999..0}", "{0..999999999999..10}", "{-70000..70000}"):
        with pytest.raises(ConfigError, match="names more than 131,072 files"):
            open_source(f"webdataset:{tmp_path}/{braces}.tar")
    for braces in ("{0..131071}", "{0..9999990..1000}", "{-9..-1}"):
        assert "No such file" in refusal(f"webdataset:{tmp_path}/{braces}.tar")
    assert "No such file" in refusal(f"webdataset:{'::'.join([f'{tmp_path}/no-such-shard.tar'] * 200)}")
    with pytest.raises(ConfigError, match="braces without a partner"):
        open_source(f"webdataset:{tmp_path}/{{0..{'9' * 5000}}}.tar")
    with pytest.raises(ConfigError, match="needs tar files"):
        open_source("webdataset:")
    with pytest.raises(ConfigError, match="`split_column` has no effect with webdataset"):
        open_source(f"webdataset:{tmp_path}?split-column=x")


@pytest.mark.parametrize("pattern", ["", "/a-*.tar", "/a-{00..02}.tar"])
def test_a_shard_whose_link_leads_nowhere(tmp_path, pattern):
    shards(tmp_path)
    (tmp_path / "a-01.tar").rename(tmp_path / "elsewhere")
    (tmp_path / "a-01.tar").symlink_to(tmp_path / "elsewhere")
    assert len(open_source(f"webdataset:{tmp_path}{pattern}")) == 9
    (tmp_path / "elsewhere").unlink()
    told = f"{tmp_path}/a-01.tar: the link leads nowhere; mend it, or remove it"
    assert told in refusal(f"webdataset:{tmp_path}{pattern}")


def test_links_to_folders_of_shards(tmp_path):
    folder = tmp_path / "shards"
    for made in (folder, tmp_path / "elsewhere"):
        made.mkdir()
    shards(tmp_path / "elsewhere")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert len(open_source(f"webdataset:{folder}")) == 9
    # The same images would come twice.
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    told = f"{folder}/more/a-00.tar: is there twice ({folder}/link/a-00.tar); remove the link"
    assert told in refusal(f"webdataset:{folder}")
    (folder / "more").unlink()
    (folder / "again").symlink_to(folder)
    assert "again: links to a folder that it lies in" in refusal(f"webdataset:{folder}")


def test_rows_by_many_threads_and_after_a_fork(tmp_path):
    shards(tmp_path)
    source = open_source(f"webdataset:{tmp_path}")
    orders = [np.random.default_rng(seed).permutation(9) for seed in range(16)]
    with ThreadPoolExecutor(6) as pool:
        for order, pixels in zip(orders, pool.map(source.read, orders), strict=True):
            np.testing.assert_array_equal(pixels, planes(PIXELS[order]))
    child = os.fork()
    if not child:
        os._exit(int(not np.array_equal(source.read([5, 2]), planes(PIXELS[[5, 2]]))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
