"""Tables of paths and labels: how columns are found, labels numbered, and what is refused by which line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written_sources import pictures, planes, write_csv, write_files

from edgeprune.errors import SourceError
from edgeprune.sources import check_source, open_source

PIXELS = pictures(6)
CLASSES = ["dog", "cat", "dog", "cat", "dog", "cat"]


def table(folder: Path, header: list[str], *columns: list, **options) -> str:
    names = write_files(folder, PIXELS, "deep/{}.png")
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    return f"csv:{write_csv(folder, [header, *rows], **options)}"


def refusal(spec: str, split: str = "train", **options) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(spec, split=split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_labels_and_pixels(tmp_path, delimiter, encoding):
    spec = table(tmp_path, ["File_Name", "Class"], CLASSES, delimiter=delimiter, encoding=encoding)
    source = open_source(spec)
    assert (source.class_names, source.labels.tolist()) == (("cat", "dog"), [1, 0, 1, 0, 1, 0])
    assert source.labels.dtype == np.int64
    assert (len(source), source.shape, source.undivided) == (6, (3, 8, 8), True)
    assert source.name(2) == f"{tmp_path}/labels.csv, line 4: deep/2.png"
    np.testing.assert_array_equal(source.read([4, 0, 0, 5]), planes(PIXELS[[4, 0, 0, 5]]))
    assert open_source(spec, size=4).read([1]).shape == (1, 3, 4, 4)


def test_urls_are_refused(tmp_path):
    write_files(tmp_path, PIXELS[:1])
    rows = [["path", "label"], ["0.png", "a"], ["https://example.org/1.png", "a"]]
    spec = f"csv:{write_csv(tmp_path, rows)}"
    with pytest.raises(SourceError, match=r"line 3: https://example.org/1.png: is a URL; nothing is downl"):
        open_source(spec).read([0, 1])
    with pytest.raises(SourceError, match="is a URL"):
        check_source(open_source(spec))
    assert len(check_source(open_source(spec), skip_bad=True).bad) == 1


def test_absolute_paths_and_lines_of_several(tmp_path):
    write_files(tmp_path / "images", PIXELS[:2])
    rows = [["path", "label", "note"], *([tmp_path / "images" / f"{n}.png", "a", "x\ny"] for n in range(2))]
    source = open_source(f"csv:{write_csv(tmp_path / 'elsewhere', rows)}")
    np.testing.assert_array_equal(source.read([0, 1]), planes(PIXELS[:2]))
    # Its second record ends in the fifth line of the file.
    assert "line 5: " in source.name(1)


def test_a_column_of_splits(tmp_path):
    splits = ["Train", "train", "TEST", "train", "val", "test"]
    spec = table(tmp_path, ["path", "label", "split"], CLASSES, splits)
    train, test = open_source(spec), open_source(spec, split="test")
    np.testing.assert_array_equal(train.read(range(3)), planes(PIXELS[[0, 1, 3]]))
    np.testing.assert_array_equal(test.read(range(2)), planes(PIXELS[[2, 5]]))
    assert (test.class_names, test.labels.tolist(), test.undivided) == (("cat", "dog"), [1, 0], False)
    assert "line 4: " in test.name(0)


def test_a_test_split_has_the_classes_of_training(tmp_path):
    splits = ["train", "train", "test", "test", "train", "train"]
    spec = table(tmp_path, ["path", "label", "split"], ["c", "a", "c", "c", "b", "b"], splits)
    assert open_source(spec, split="test").labels.tolist() == [2, 2]
    other = table(tmp_path, ["path", "label", "split"], ["c", "a", "c", "z", "b", "b"], splits)
    assert "line 5: deep/3.png: has label 'z', a class that is not among those of the training" in refusal(
        other, "test"
    )


def test_validation_is_tested_on_where_there_is_no_test(tmp_path):
    spec = table(tmp_path, ["path", "label", "split"], CLASSES, ["train"] * 4 + ["valid"] * 2)
    assert len(open_source(spec, split="test")) == 2
    only = table(tmp_path, ["path", "label", "split"], CLASSES, ["train"] * 6)
    assert refusal(only, "test").endswith("split: has train, but no row of the test split")


def test_a_split_that_is_none(tmp_path):
    spec = table(tmp_path, ["path", "label", "split"], CLASSES, ["train"] * 5 + ["extra"])
    assert "split: says 'extra', and splits are eval, test, testing, train" in refusal(spec)
    # A column that speaks of something else is no column of splits, unless it is said to be.
    spec = table(tmp_path, ["path", "label", "split"], CLASSES, ["a", "b"] * 3)
    assert len(open_source(spec)) == 6
    assert "says 'a'" in refusal(f"{spec}?split-column=split")


def test_named_columns(tmp_path):
    spec = table(tmp_path, ["path", "label", "fine label", "part"], CLASSES, list("xyxyxy"), ["test"] * 6)
    source = open_source(f"{spec}?label-column=fine%20label&split-column=part", split="test")
    assert source.class_names == ("x", "y")
    assert source.spec.endswith("?label-column=fine%20label&split-column=part")


def test_integers_are_numbers_of_classes(tmp_path):
    spec = table(tmp_path, ["path", "label"], ["0", "2", "1", "10", "9", "8"])
    assert "class 3 has no images; number the classes without gaps" in refusal(spec)
    source = open_source(spec, split="test")
    assert source.labels.tolist() == [0, 2, 1, 10, 9, 8]
    assert source.class_names == tuple(map(str, range(11)))
    # A zero in front is part of a name.
    names = table(tmp_path, ["path", "label"], ["01", "02", "01", "02", "10", "10"])
    assert open_source(names).class_names == ("01", "02", "10")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["0", "-1"] * 3, r"line 3: its label is -1; number the classes 0, 1, 2 .*without a label"),
        (["0", "99999999999999999999999"] * 3, "line 3: its label is beyond all numbers; number the classes"),
        (["a", " "] * 3, "line 3: its label or split is empty"),
    ],
)
def test_labels_that_are_none(tmp_path, labels, told):
    with pytest.raises(SourceError, match=told):
        open_source(table(tmp_path, ["path", "label"], labels))


def test_a_file_with_names_of_classes(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\ufeffzebra\r\nant \n\n", encoding="utf-8")
    numbers = table(tmp_path, ["path", "label"], ["0", "1"] * 3) + f"?class-names={names}"
    assert open_source(numbers).class_names == ("zebra", "ant")
    texts = table(tmp_path, ["path", "label"], ["ant", "zebra"] * 3, name="texts.csv")
    source = open_source(f"{texts}?class-names={names}")
    assert (source.class_names, source.labels.tolist()) == (("zebra", "ant"), [1, 0] * 3)
    names.write_text("zebra\n")
    assert f"has label 1, a class that is not among the 1 that {names} names" in refusal(numbers)
    assert f"line 2: deep/0.png: has label 'ant', a class that is not among the 1 that {names}" in refusal(
        f"{texts}?class-names={names}"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a\n\nb\n", "line 2 is empty; name one class in each line"),
        (b"a\nb\na\n", "lines 1 and 3 name the same class 'a'"),
        (b"", "line 1 is empty"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_files_with_names_that_are_refused(tmp_path, content, told):
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content)
    message = refusal(table(tmp_path, ["path", "label"], CLASSES) + f"?class-names={names}")
    assert message.startswith(f"{names}: ")
    assert told in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("path,label\na.png\n", "line 2: has 1 fields, and the first line names 2"),
        ("path,label\n,cat\n", "line 2: path is no path"),
        (
            "cat/1.png,cat\ncat/2.png,cat\n",
            "has no column of paths; its columns are cat/1.png, cat; name it with",
        ),
        (
            "path,kind\na.png,cat\n",
            "has no column of labels; its columns are path, kind; name it with `label_column`",
        ),
        ("path,file,label\na,b,c\n", "path and file may hold the paths; name it with `image_column`, or add"),
        (
            "path,class,category\na,b,c\n",
            "class and category may hold the labels; name it with `label_column`",
        ),
        ("path,label\n", "has no rows below its first line"),
        ("", "has no column of paths"),
        ("\npath,label\na.png,cat\n", "its first line is empty; write path,label there"),
        ("path,label,label\na.png,a,b\n", "has 2 columns 'label'; give each a name of its own"),
        ("path,path,label\na.png,b.png,b\n", "has 2 columns 'path'; give each a name of its own"),
        ("path,label,split,split\na.png,a,train,test\n", "has 2 columns 'split'; give each a name"),
        ('path,label\n"a.png,cat\n', "line 2: is no line of a table"),
        ("path,label\na.png,\xe9\n", "is not text in UTF-8"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, told):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    message = refusal(f"csv:{tmp_path / 'a.csv'}")
    assert message.startswith(f"{tmp_path}/a.csv")
    assert told in message


def test_a_named_column_that_comes_twice(tmp_path):
    (tmp_path / "a.csv").write_text("path,label,label,x,x\na.png,a,b,1,2\n")
    for option, name in (("label-column", "label"), ("target", "x")):
        told = f"has 2 columns '{name}'; give each a name of its own"
        assert told in refusal(f"csv:{tmp_path / 'a.csv'}?{option}={name}")


def test_the_label_comes_before_other_names(tmp_path):
    assert open_source(table(tmp_path, ["path", "class", "label"], CLASSES, ["x", "y"] * 3)).class_names == (
        "x",
        "y",
    )


def test_what_is_no_file(tmp_path):
    assert "No such file" in refusal(f"csv:{tmp_path}/none.csv")
    assert "Is a directory" in refusal(f"csv:{tmp_path}")
    assert "has no column 'x'; its columns are path, label" in refusal(
        table(tmp_path, ["path", "label"], CLASSES) + "?label-column=x"
    )


def test_a_missing_image_is_named_with_its_line(tmp_path):
    source = open_source(table(tmp_path, ["path", "label"], CLASSES), size=8)
    (tmp_path / "deep" / "3.png").unlink()
    with pytest.raises(SourceError, match=r"labels\.csv, line 5: deep/3\.png: No such file or directory$"):
        source.read([0, 3])
    source.read([0, 4])


def test_none_of_the_images_is_there(tmp_path):
    file = write_csv(tmp_path, [["path", "label"], ["gone/1.png", "a"], ["gone/2.png", "a"]])
    message = refusal(f"csv:{file}")
    assert (
        f"{file}: none of 2 images can be read; the first: {file}, line 2: gone/1.png: No such file"
        in message
    )


def test_labels_that_are_nearly_all_different_are_told(tmp_path):
    write_files(tmp_path, PIXELS[:1])
    file = write_csv(tmp_path, [["path", "label"], *(["0.png", f"caption {n}"] for n in range(100))])
    (note,) = open_source(f"csv:{file}").notes
    assert note.endswith("label: 100 classes of 100 images; name the labels if they are others")
