"""What names a target, and what is made of the values of its columns."""

import unicodedata

import numpy as np
import pytest

from edgeprune.errors import SourceError
from edgeprune.sources import SourceOptions, with_options
from edgeprune.sources.columns.requests import TargetRequest, parse_targets
from edgeprune.sources.columns.values import make_target
from edgeprune.sources.naming.options import without_options
from edgeprune_formats import ConfigError


def made(values, kind=None, columns=("c",), classes=None):
    arrays = values if isinstance(values, tuple) else (values,)
    arrays = [np.array(one, object) if isinstance(one, list) else one for one in arrays]
    return make_target(TargetRequest("t", columns, kind), arrays, "a.csv", lambda row: f"line {row}", classes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age", TargetRequest("age", ("age",))),
        ("age:value", TargetRequest("age", ("age",), "value")),
        ("pose=x+y:value", TargetRequest("pose", ("x", "y"), "value")),
        ("kind=a:b:class", TargetRequest("kind", ("a:b",), "class")),
        ("a=b", TargetRequest("a", ("b",))),
    ],
)
def test_what_names_a_target(text, expected):
    assert parse_targets([text]) == (expected,)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["label"], "name of the labels"),
        (["a", "a:value"], "twice"),
        (["=a"], "write NAME"),
        (["a=b+"], "write NAME"),
        (["age:boxes"], "unknown kind"),
        (list("abcdefgh"), "7 at most beside"),
    ],
)
def test_what_names_no_target(texts, words):
    with pytest.raises(ConfigError, match=words):
        parse_targets(texts)


def test_targets_in_the_text_of_a_source():
    spec = with_options("csv:a b.csv", SourceOptions(label_column="kind", target=("x=a+b:value", "tags")))
    assert without_options(spec) == (
        "csv:a b.csv",
        SourceOptions(label_column="kind", target=("x=a+b:value", "tags")),
    )
    assert with_options(spec, SourceOptions()) == spec


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        (["1", "2", "-3"], "integer", [1, 2, -3]),
        (["1", "2.5", "1e3"], "value", [[1], [2.5], [1000]]),
        (["a", "2", ""], "text", ["a", "2", ""]),
        ([["a"], ["b", "a"], []], "multilabel", [[1, 0], [1, 1], [0, 0]]),
        (np.array([1, 2, 3]), "integer", [1, 2, 3]),
        (np.array([1.5, 2, 3]), "value", [[1.5], [2], [3]]),
        (np.eye(3, dtype=bool), "multilabel", np.eye(3).tolist()),
        (np.arange(6).reshape(3, 2), "value", [[0, 1], [2, 3], [4, 5]]),
        (np.array(["x", "y", "x"]), "text", ["x", "y", "x"]),
    ],
)
def test_the_kind_is_found_by_the_values(values, kind, stored):
    target = made(values)
    assert target.column.kind == kind
    assert target.values.tolist() == stored


def test_classes():
    assert made(["b", "a", "b"], "class").column.classes == ("a", "b")
    assert made(["b", "a", "b"], "class").values.tolist() == [1, 0, 1]
    target = made(np.array([0, 2, 1]), "class")
    assert target.column.classes == ("0", "1", "2")
    assert made(["2", "0", "1"], "class", classes=["x", "y", "z"]).values.tolist() == [2, 0, 1]


@pytest.mark.parametrize("mark", "|;,")
def test_labels_in_a_text(mark):
    target = made([f"b{mark} a", "", "a"], "multilabel")
    assert target.column.classes == ("a", "b")
    assert target.values.tolist() == [[True, True], [False, False], [True, False]]


def test_several_columns_are_one_target():
    one, two = np.array([0.0, 1, 2]), np.array([5, 6, 7])
    assert made((one, two), None, ("x", "y")).values.tolist() == [[0, 5], [1, 6], [2, 7]]
    bits = made((np.array([0, 1, 1]), ["1", "0", "1"]), "multilabel", ("red", "blue"))
    assert bits.column.classes == ("red", "blue")
    assert bits.values.tolist() == [[False, True], [True, False], [True, True]]
    soft = made((["0.25", "1", "0"], ["0.75", "0", "1"]), "probabilities", ("no", "yes"))
    assert soft.column.classes == ("no", "yes")
    assert soft.values.tolist() == [[0.25, 0.75], [1, 0], [0, 1]]


def test_what_is_not_told_is_nan_in_metadata():
    assert np.isnan(made(["1", "", "2"], "float").values[1])
    assert made(["a", None, "b"], "text").values.tolist() == ["a", "", "b"]


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (["1.5", "nan", "2"], "value", "line 1: is nan, and values are finite"),
        (["1.5", "x", "2"], "value", "line 1: is 'x', no number"),
        (["1.5", "", "2"], "value", "line 1: is missing, no number"),
        (np.array([1, np.inf, 2]), "value", "line 1: is inf"),
        ([[1, 2], [1], [2, 3]], "value", "line 1: holds 1 numbers, and those before it 2"),
        (["1", "2.5", "1"], "integer", "line 1: is no integer"),
        (["1", "", "1"], "integer", "line 1: is missing"),
        ([1, None, 1], None, "line 1: is missing; name the kind float"),
        ([1, None, 1], "class", "line 1: has no class"),
        ([1, None, 1], "multilabel", "line 1: is missing, no 0 or 1"),
        (
            np.array([1, 2**63 + 1], np.uint64),
            "integer",
            "line 1: is no integer of 64 bits: 9223372036854775809",
        ),
        (np.array([1, 2**63 + 1], np.uint64), "class", "line 1: is 9223372036854775809; number the classes"),
        (np.array([0, 1.0, np.nan]), "class", "line 0: '0.0' is no class; classes are text, or integers"),
        (np.array([1.0, np.nan]), "class", "line 0: '1.0' is no class"),
        ([["a"], [1.5]], "multilabel", "line 1: '1.5' is no class"),
        ([b"a", b"b"], "text", "line 0: holds bytes, no text"),
        (np.array([b"a", b"\xff"]), None, "is not text in ASCII; save it as text"),
        (np.array([0, -1, 1]), "class", "line 1: is -1"),
        (["a", "", "b"], "class", "line 1: has no class"),
        (np.array([[0, 1], [0, 2], [1, 1]]), "multilabel", "line 1: has 2, not 0 or 1"),
        (np.array([[0.5, 0.5], [0.5, 0.6], [1, 0]]), "probabilities", "line 1: its probabilities .* 1.1"),
        (np.array([[0.5, 0.5], [1.5, -0.5]]), "probabilities", "line 1: .* but -0.5 to 1.5 with 1"),
        (np.zeros((3, 2)), "integer", "one of an image"),
        (["", "", ""], "multilabel", "no image has a label"),
    ],
)
def test_values_that_cannot_be_used(values, kind, words):
    with pytest.raises(SourceError, match=rf"a\.csv: target 't': .*{words}"):
        made(values, kind)


def test_integers_some_of_which_are_missing():
    """What Parquet and JSON hold; that one is missing changes none of the others."""
    values = [2**53 + 1, None, 0]
    assert made(values, "text").values.tolist() == ["9007199254740993", "", "0"]
    assert np.isnan(made(values, "float").values[1])


def test_a_label_outside_its_classes():
    with pytest.raises(SourceError, match=r"line 1: is class 2, outside 0\.\.1"):
        made(np.array([0, 2, 1]), "class", classes=["x", "y"])
    with pytest.raises(SourceError, match="line 1: is 'z', none of the 2 classes"):
        made(["x", "z", "y"], "class", classes=["x", "y"])
    with pytest.raises(SourceError, match="line 1: has label 'z'"):
        made(["x", "z|y", "y"], "multilabel", classes=["x", "y"])


def spelled(form, text):
    return unicodedata.normalize(form, text)


@pytest.mark.parametrize("kind", ["class", "multilabel"])
def test_classes_that_differ_in_normalization_alone(kind):
    with pytest.raises(SourceError, match="differ only in how Unicode composes"):
        made([spelled("NFC", "é"), spelled("NFD", "é"), "a"], kind)
