"""Columns that are legal where they come from, and odd: what kind of target they become, or what is said."""

from decimal import Decimal

import numpy as np
import pytest

from edgeprune.errors import SourceError
from edgeprune.sources.columns.requests import TargetRequest
from edgeprune.sources.columns.values import make_target
from edgeprune_formats import ConfigError
from edgeprune_formats.targets import Column, Target, encode_target


def target_of(values, kind=None):
    column = np.empty(len(values), object)
    column[:] = values
    return make_target(TargetRequest("odd", ("odd",), kind), [column], "s", lambda row: f"image {row}")


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([Decimal("1.50"), Decimal(2), Decimal("-3")], "value", [1.5, 2, -3]),
        ([1, 2.5, 3], "value", [1, 2.5, 3]),
        ([3, 2**62 + 1, -1], "integer", [3, 2**62 + 1, -1]),
        ([[0.0, 1.5], [1, 2], [3, 4.25]], "value", [0, 1.5, 1, 2, 3, 4.25]),
        ([[0, 1], [1, 2], []], "multilabel", [1, 1, 0, 0, 1, 1, 0, 0, 0]),
        ([None, None, None], "text", ["", "", ""]),
    ],
)
def test_columns_of_objects_whose_kind_is_not_named(values, kind, stored):
    target = target_of(values)
    assert target.column.kind == kind
    assert target.values.reshape(-1).tolist() == stored


@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize(
    ("values", "kind"),
    [([1.5, 2.5, 3.5], "number"), ([True, False, True], "0 or 1"), ([Decimal(1)] * 3, "number")],
)
def test_numbers_some_of_which_are_missing_do_not_become_text(values, kind, missing):
    values = [None if row == missing else value for row, value in enumerate(values)]
    with pytest.raises(SourceError, match=f"'odd': image {missing}: is missing, no {kind}"):
        target_of(values)


@pytest.mark.parametrize("kind", [None, "value", "float", "integer"])
def test_integers_beyond_all_floats(kind):
    with pytest.raises(SourceError, match=r"target 'odd': image 1: is '1000+', no "):
        target_of([1, 10**400, None, 3] if kind == "float" else [1, 10**400, 3], kind)


@pytest.mark.parametrize("kind", [None, "text", "class"])
def test_digits_that_python_takes_for_no_number_stay_text(kind):
    texts = ["9" * 4000, "12", "3"]
    target = target_of(texts, kind)
    found = target.column.classes if kind == "class" else target.values.tolist()
    assert sorted(found) == sorted(texts)
    with pytest.raises(SourceError, match="image 0: is inf, and values are finite numbers"):
        target_of(["9" * 5000, *texts], "value")


@pytest.mark.parametrize("kind", ["class", "multilabel"])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a\ud800", r"'a\\ud800': a name is text in Unicode"),
        ("a\0b", r"'a\\x00b': a name is text of at most 4,096 bytes, without zero bytes"),
    ],
)
def test_names_that_a_pack_cannot_hold(kind, name, told):
    values = [name, "b", "b"] if kind == "class" else [[name], ["b"], []]
    with pytest.raises(SourceError, match=f"target 'odd': no class can be called {told}"):
        target_of(values, kind)
    with pytest.raises(ConfigError, match="the name of a class or unit is no text in Unicode"):
        encode_target(Target(Column("odd", "class", ("a\ud800", "b")), np.zeros(3, np.int64)), 3)
