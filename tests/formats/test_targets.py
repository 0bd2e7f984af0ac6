import pickle
import shutil

import h5py
import numpy as np
import pytest

from edgeprune_formats import (
    ConfigError,
    PackChecksumError,
    PackFormatError,
    PackLayoutError,
    PackLimitError,
    open_pack,
    verify_pack,
)
from edgeprune_formats.structure import why_not_plain
from edgeprune_formats.targets import Column, Target, encode_target, stored_problem

N = 7
NINE = tuple("abcdefghi")


def seven_targets():
    random = np.random.default_rng(0)
    soft = random.random((N, 3)).astype(np.float32)
    soft /= soft.sum(axis=1, keepdims=True)
    names = np.array(["photo.jpg", "Käfer.png", "", "x", "y", "z", "w" * 40], object)
    return [
        Target(Column("breed", "class", tuple(f"breed {i}" for i in range(300))), np.arange(N) * 49),
        Target(Column("tags", "multilabel", NINE), random.random((N, 9)) < 0.5),
        Target(Column("pose", "value", width=2, unit="mm"), random.standard_normal((N, 2)).astype("f4")),
        Target(Column("soft", "probabilities", ("x", "y", "z"), dtype="uint8"), soft),
        Target(Column("file", "text"), names),
        Target(Column("time", "integer", unit="s"), np.arange(N) * 10**15 - 3),
        Target(Column("weight", "float", dtype="float32"), np.array([0.5, np.nan, 1, 2, 3, 4, 5])),
    ]


@pytest.fixture(scope="module")
def made(tools, tmp_path_factory):
    return tools.write(tmp_path_factory.mktemp("targets") / "pack.h5", targets=seven_targets()).path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copy(made, tmp_path / "pack.h5")


def test_every_kind_comes_back(made):
    with open_pack(made) as pack:
        targets = pack.targets
        assert list(targets) == ["label", "breed", "tags", "pose", "soft", "file", "time", "weight"]
        assert targets["label"].classes == pack.header.class_names
        assert targets["label"].read([1, 2]).tolist() == pack.labels[[1, 2]].tolist()
        for target in seven_targets():
            column, values = target.column, targets[target.column.name].read()
            assert targets[column.name].kind == column.kind
            assert targets[column.name].column.classes == column.classes
            if column.name == "soft":
                assert np.abs(values - target.values).max() <= 1 / 255
                assert values.sum(axis=1) == pytest.approx(1)
            else:
                np.testing.assert_array_equal(values, target.values)
            np.testing.assert_array_equal(targets[column.name].read([5, 0]), values[[5, 0]])
        assert targets["pose"].column.unit == "mm"
    assert verify_pack(made) == []
    assert why_not_plain(made) is None


def test_columns_are_stored_again_bit_for_bit(tools, made, tmp_path):
    with open_pack(made) as pack:
        again = tools.write(tmp_path / "again.h5", targets=pack.take_targets()).path
    assert again.read_bytes() == made.read_bytes()


def test_columns_of_some_images(tools, made, tmp_path):
    rows = [6, 0, 1, 2, 3, 4, 5]
    with open_pack(made) as pack:
        again = tools.write(tmp_path / "again.h5", targets=pack.take_targets(rows)).path
        with open_pack(again) as other:
            for name, target in pack.targets.items():
                if name != "label":
                    np.testing.assert_array_equal(other.targets[name].read(), target.read(rows))


def test_a_pickled_pack_reads_its_columns(made):
    with open_pack(made) as pack:
        pack.targets["tags"].read()
        copy = pickle.loads(pickle.dumps(pack))
        np.testing.assert_array_equal(copy.targets["pose"].read(), pack.targets["pose"].read())
        copy.close()


def test_a_pack_without_classes(tools, tmp_path):
    target = Target(Column("age", "value", unit="years"), np.arange(N, dtype="f4")[:, None])
    path = tools.write(tmp_path / "pack.h5", tools.header(class_names=()), targets=[target]).path
    with open_pack(path) as pack:
        assert pack.header.class_names == ()
        assert list(pack.targets) == ["age"]
        assert pack.labels.tolist() == [0] * N
        assert pack.targets["age"].read()[:, 0].tolist() == list(range(N))
    assert verify_pack(path) == []
    with h5py.File(path) as file:
        assert "labels" not in file
        assert "class_names" not in file


def test_neither_classes_nor_targets(tools, tmp_path):
    with pytest.raises(ConfigError, match="neither"):
        tools.write(tmp_path / "pack.h5", tools.header(class_names=()))


@pytest.mark.parametrize("gone", [("labels",), ("class_names",), ("labels", "class_names")])
def test_classes_are_missing_where_no_column_takes_their_place(sample, gone):
    with h5py.File(sample.path, "r+") as file:
        for name in gone:
            del file[name]
    with pytest.raises(PackLayoutError, match="missing"):
        open_pack(sample.path, isolated=False)


@pytest.mark.parametrize("gone", ["labels", "class_names"])
def test_half_of_the_classes_is_missing(path, gone):
    with h5py.File(path, "r+") as file:
        del file[gone]
    with pytest.raises(PackLayoutError, match=f"/{gone}.*missing"):
        open_pack(path, isolated=False)


def value(values, **facts):
    return Target(Column("v", "value", **facts), np.asarray(values))


def soft(values, **facts):
    return Target(Column("p", "probabilities", ("a", "b"), **facts), np.asarray(values, np.float32))


BAD = {
    "other length": (value(np.zeros((6, 1))), "6 values for 7 images"),
    "other width": (value(np.zeros((N, 2))), "no value of"),
    "NaN": (value(np.full((N, 1), np.nan)), "NaN or infinite"),
    "beyond single precision": (value(np.full((N, 1), 1e60)), "NaN or infinite"),
    "label too high": (Target(Column("c", "class", ("a", "b")), np.full(N, 2)), r"outside 0\.\.1"),
    "label that would wrap": (Target(Column("c", "class", ("a", "b")), np.full(N, 256)), r"outside 0\.\.1"),
    "integer that would wrap": (
        Target(Column("n", "integer"), np.full(N, 2**63 + 5, np.uint64)),
        "9223372036854775813 is beyond int64",
    ),
    "label below": (Target(Column("c", "class", ("a", "b")), np.full(N, -1)), r"outside 0\.\.1"),
    "numbers for bits": (Target(Column("m", "multilabel", ("a",)), np.ones((N, 1))), "no multilabel"),
    "sum": (soft([[0.5, 0.6]] * N), "sum to 1"),
    "sum of bytes": (soft([[0.5, 0.6]] * N, dtype="uint8"), "sum to 1"),
    "negative": (soft([[-0.5, 1.5]] * N), "0 to 1"),
    "zero byte": (Target(Column("t", "text"), np.array(["a\0b"] * N, object)), "zero bytes"),
    "long text": (Target(Column("t", "text"), np.array(["a" * 4097] * N, object)), "4096 B"),
    "no Unicode": (Target(Column("t", "text"), np.array(["\ud800"] * N, object)), "not Unicode"),
    "kind": (Target(Column("t", "boxes"), np.zeros(N)), "unknown kind 'boxes'"),
    "name": (Target(Column("", "integer"), np.zeros(N, int)), "a name is"),
    "classes": (Target(Column("c", "class"), np.zeros(N, int)), "classes are named"),
    "twice": (Target(Column("c", "class", ("a", "a")), np.zeros(N, int)), "one name"),
    "dtype": (soft([[0.5, 0.5]] * N, dtype="float32"), "not stored as float32"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_columns_are_refused(name):
    target, words = BAD[name]
    with pytest.raises(ConfigError, match=words):
        encode_target(target, N)


def test_names_of_columns(tools, tmp_path):
    def columns(*names):
        return [Target(Column(name, "integer"), np.zeros(N, int)) for name in names]

    for names, words in (
        (("label",), "'label'"),
        (("K\u00e4fer", "Ka\u0308fer"), "called"),
        (tuple("abcdefgh"), "7 at most"),
    ):
        with pytest.raises(ConfigError, match=words):
            tools.write(tmp_path / "pack.h5", targets=columns(*names))


def test_bytes_that_sum_to_255_stay_as_they_are():
    random = np.random.default_rng(1)
    parts = random.multinomial(255, random.dirichlet(np.ones(40)), size=500)
    column = Column("p", "probabilities", tuple(map(str, range(40))), dtype="uint8")
    stored = encode_target(Target(column, parts.astype(np.float32) / np.float32(255)), 500)
    np.testing.assert_array_equal(stored, parts)
    assert stored_problem(column, stored) is None


def first(**facts):
    return lambda listed: [listed[0] | facts, *listed[1:]]


DESCRIPTIONS = {
    "no JSON": b"{",
    "NaN": b"[NaN]",
    "no list": b"{}",
    "no column": b"[]",
    "no object": b"[1]",
    "too many": lambda listed: [*listed, listed[0] | {"name": "eighth"}],
    "label": first(name="label"),
    "two names": first(name="tags"),
    "empty name": first(name=""),
    "line break": first(name="a\nb"),
    "number for a name": first(name=3),
    "unknown kind": first(kind="mask"),
    "no classes": first(classes=[]),
    "classes of another kind": first(kind="integer"),
    "numbers for classes": first(classes=[1]),
    "classes twice": first(classes=["a", "a"]),
    "true for a width": first(width=True),
    "width": lambda listed: [*listed[:2], listed[2] | {"width": 2**16 + 1}, *listed[3:]],
    "negative width": lambda listed: [*listed[:2], listed[2] | {"width": -1}, *listed[3:]],
    "number for a unit": first(unit=1),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_hostile_descriptions(tools, path, name):
    with h5py.File(path, "r+") as file:
        tools.describe(file, DESCRIPTIONS[name])
    with pytest.raises(PackLayoutError, match="/targets/columns"):
        open_pack(path, isolated=False)
    assert verify_pack(path, isolated=False)


def test_a_long_description_is_not_read(path):
    with h5py.File(path, "r+") as file:
        del file["targets/columns"]
        file.create_dataset("targets/columns", data=np.array(b" " * (2**24 + 1), "S16777217"))
    with pytest.raises(PackLimitError, match="/targets/columns"):
        open_pack(path, isolated=False)


@pytest.mark.parametrize(
    ("number", "array"),
    [
        (0, np.zeros((N, 1), "u1")),
        (0, np.zeros(N, "f4")),
        (1, np.zeros((N, 1), "u1")),
        (2, np.zeros((N, 3), "f4")),
        (2, np.zeros((N, 2), "f8")),
        (3, np.zeros((N, 3), "f4")),
        (4, np.zeros(N, "S4097")),
        (4, np.zeros(N, "i8")),
        (5, np.zeros(N, "i4")),
        (6, np.zeros(N - 1, "f8")),
    ],
)
def test_values_of_another_shape_or_type(tools, path, number, array):
    with h5py.File(path, "r+") as file:
        tools.put(file, f"targets/{number}", array)
    with pytest.raises(PackFormatError, match=f"/targets/{number}"):
        open_pack(path, isolated=False)


def test_a_column_is_missing_or_a_link(path):
    with h5py.File(path, "r+") as file:
        del file["targets/3"]
        file["targets/3"] = h5py.SoftLink("/labels")
    with pytest.raises(PackLayoutError, match="/targets/3"):
        open_pack(path, isolated=False)


def test_more_values_than_the_file_holds(tools, path):
    with h5py.File(path, "r+") as file:
        tools.describe(file, lambda listed: [*listed[:2], listed[2] | {"width": 2**16}, *listed[3:]])
        del file["targets/2"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        space = h5py.h5s.create_simple((N, 2**16))
        h5py.h5d.create(file["targets"].id, b"2", h5py.h5t.IEEE_F32LE, space, creation)
    with pytest.raises(PackLimitError, match="/targets/2"):
        open_pack(path, isolated=False)


@pytest.mark.parametrize(
    ("number", "row"),
    [
        (0, 300),
        (1, [255, 255]),
        (2, [np.nan, 0]),
        (3, [255, 1, 0]),
        (4, b"\xff\xfe"),
    ],
)
def test_values_that_a_kind_does_not_allow(tools, path, number, row):
    with h5py.File(path, "r+") as file:
        file[f"targets/{number}"][2] = row
        tools.reseal(file, f"targets/{number}")
    assert [problem.location for problem in verify_pack(path, isolated=False)] == [f"/targets/{number}"]
    with open_pack(path, isolated=False) as pack, pytest.raises(PackLayoutError, match=f"/targets/{number}"):
        list(pack.targets.values())[number + 1].read()


def test_damaged_values(path):
    with h5py.File(path) as file:
        place = file["targets/5"].id.get_offset()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\x7f")
    assert [problem.kind for problem in verify_pack(path)] == ["checksum"]
    with open_pack(path) as pack:
        assert pack.targets["pose"].read().shape == (N, 2)
        with pytest.raises(PackChecksumError, match="/targets/5"):
            pack.targets["time"].read()


def test_a_file_of_before_has_no_columns(tools, path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.bytes_("1.2")
        tools.describe(file, b"{")
    with open_pack(path, isolated=False) as pack:
        assert list(pack.targets) == ["label"]
