"""Columns of probabilities of which only the likeliest classes are stored."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from edgeprune_formats import ConfigError, PackFormatError, PackLayoutError, open_pack, verify_pack
from edgeprune_formats.structure import why_not_plain
from edgeprune_formats.targets import Column, Target, decode_rows, encode_target, stored_problem

N = 7
HUNDREDS = tuple(f"class {number}" for number in range(300))


def likeliest(classes=tuple("abcdefghi"), top=3, seed=0):
    values = np.random.default_rng(seed).dirichlet(np.full(len(classes), 0.2), N).astype("f4")
    return Target(Column("top", "probabilities", classes, top=top), values)


def test_the_likeliest_classes_come_back_and_the_rest_is_even(tools, tmp_path):
    wide = likeliest(HUNDREDS, 5)
    wide = Target(replace(wide.column, name="wide"), wide.values)
    path = tools.write(tmp_path / "top.h5", targets=[likeliest(), wide]).path
    with h5py.File(path) as file:
        assert [file[f"targets/{number}"].shape for number in (0, 1)] == [(N, 3, 2), (N, 5, 3)]
    with open_pack(path) as pack:
        for target in (likeliest(), wide):
            values, column = pack.targets[target.column.name].read(), target.column
            assert pack.targets[column.name].column.top == column.top
            assert values.sum(axis=1) == pytest.approx(1)
            order = np.argsort(-target.values, axis=1)
            ours, theirs = (np.take_along_axis(one, order, axis=1) for one in (values, target.values))
            top = column.top
            assert np.abs(ours[:, :top] - theirs[:, :top]).max() <= 1 / 255
            share = theirs[:, top:].mean(axis=1, keepdims=True)
            assert np.abs(ours[:, top:] - share).max() <= 1 / 255
        again = tools.write(tmp_path / "again.h5", targets=pack.take_targets()).path
        some = tools.write(tmp_path / "some.h5", targets=pack.take_targets([*range(1, N), 0])).path
        with open_pack(some) as other:
            np.testing.assert_array_equal(other.targets["wide"].read([N - 1]), pack.targets["wide"].read([0]))
    assert again.read_bytes() == path.read_bytes()
    assert verify_pack(path) == []
    assert why_not_plain(path) is None


@pytest.mark.parametrize(
    ("row", "top", "parts"),
    [
        ([1, 0, 0, 0], 3, [255, 0, 0, 0]),
        ([0.25] * 4, 4, [64, 64, 64, 63]),
        # What is not worth a part is one of the rest.
        ([0.9964, 0.001, 0.0012, 0.0014], 2, [254, 1 / 3, 1 / 3, 1 / 3]),
        ([0.1, 0.2, 0.3, 0.4], 1, [51, 51, 51, 102]),
    ],
)
def test_parts_of_the_likeliest_classes(row, top, parts):
    column = Column("p", "probabilities", tuple("abcd"), top=top)
    stored = encode_target(Target(column, np.array([row], "f4")), 1)
    assert stored_problem(column, stored) is None
    assert decode_rows(column, stored)[0] * 255 == pytest.approx(parts, rel=1e-5)
    assert (stored[..., 0][stored[..., 1] == 0] == 0).all()


@pytest.mark.parametrize(
    "facts", [{"top": True}, {"top": -1}, {"top": 10}, {"top": "3"}, {"top": 3, "kind": "multilabel"}]
)
def test_hostile_numbers_of_likeliest_classes(tools, tmp_path, facts):
    path = tools.write(tmp_path / "pack.h5", targets=[likeliest()]).path
    with h5py.File(path, "r+") as file:
        tools.describe(file, lambda listed: [listed[0] | facts])
    with pytest.raises(PackLayoutError, match="/targets/columns"):
        open_pack(path, isolated=False)


@pytest.mark.parametrize(
    "row",
    [
        [[9, 1], [0, 0], [0, 0]],  # no such class
        [[2, 1], [2, 1], [0, 0]],  # one class twice
        [[2, 1], [3, 0], [0, 0]],  # a class without a part
        [[2, 128], [3, 128], [0, 0]],  # more than there is
    ],
)
def test_likeliest_classes_that_are_not_sound(tools, tmp_path, row):
    path = tools.write(tmp_path / "pack.h5", targets=[likeliest()]).path
    with h5py.File(path, "r+") as file:
        file["targets/0"][2] = np.array(row, "u1")
        tools.reseal(file, "targets/0")
    assert [problem.location for problem in verify_pack(path, isolated=False)] == ["/targets/0"]
    with open_pack(path, isolated=False) as pack, pytest.raises(PackLayoutError, match="row 2 holds"):
        pack.targets["top"].read()


def test_parts_that_name_all_classes_sum_to_255():
    column = Column("p", "probabilities", ("a", "b"), top=2)
    stored = np.array([[[0, 100], [1, 154]]], "u1")
    assert "row 0" in stored_problem(column, stored)
    with pytest.raises(ConfigError, match="row 0"):
        encode_target(Target(column, stored), 1)


@pytest.mark.parametrize(
    ("facts", "array"),
    [
        ({"top": 0}, None),  # so a reader reads it that does not know the entry
        ({"top": 2}, None),
        ({}, np.zeros((N, 3, 3), "u1")),
        ({}, np.zeros((N, 3, 2), "<u2")),
        ({}, np.zeros((N, 9), "u1")),
    ],
)
def test_likeliest_classes_of_another_shape(tools, tmp_path, facts, array):
    path = tools.write(tmp_path / "pack.h5", targets=[likeliest()]).path
    with h5py.File(path, "r+") as file:
        tools.describe(file, lambda listed: [listed[0] | facts])
        if array is not None:
            tools.put(file, "targets/0", array)
    with pytest.raises(PackFormatError, match="/targets/0"):
        open_pack(path, isolated=False)
