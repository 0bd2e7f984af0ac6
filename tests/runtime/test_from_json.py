import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from edgeprune_runtime.checks import from_json


@dataclass(frozen=True)
class Inner:
    count: int
    share: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"]
    inner: Inner
    numbers: tuple[int, ...]
    table: dict[str, float | None]
    rest: Any
    many: list[Inner] = field(default_factory=list)


GOOD = {
    "name": "n",
    "kind": "a",
    "inner": {"count": 3},
    "numbers": [1, 2],
    "table": {"x": None, "y": 1},
    "rest": [0],
}


@pytest.mark.parametrize("name", ["a" * 5000, "\x1b[2J", "\n", "\0"])
@pytest.mark.parametrize("where", [lambda name: {name: 1}, lambda name: {"table": {name: "1"}}])
def test_names_in_messages_are_short_and_harmless(name, where):
    with pytest.raises(ValueError, match=r"unknown|not|\.\.\.") as caught:
        from_json(Outer, {**GOOD, **where(name)})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 400


def test_a_sound_value():
    made = from_json(Outer, {**GOOD, "many": [{"count": 1, "share": 0.5}]})
    assert made == Outer("n", "a", Inner(3), (1, 2), {"x": None, "y": 1}, [0], [Inner(1, 0.5)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name is 3, not a string"),
        ({"name": None}, "name is None, not a string"),
        ({"kind": "c"}, "kind is 'c', not one of a, b"),
        ({"kind": ["a"]}, r"kind is \['a'\], not one of"),
        ({"inner": []}, r"inner is \[\], not an object"),
        ({"inner": {}}, "inner.count is missing"),
        ({"inner": {"count": True}}, "inner.count is True, not an integer"),
        ({"inner": {"count": 1.0}}, "inner.count is 1.0, not an integer"),
        ({"inner": {"count": "1"}}, "inner.count is '1', not an integer"),
        ({"inner": {"count": 1, "share": math.nan}}, "inner.share is nan"),
        ({"inner": {"count": 1, "share": math.inf}}, "inner.share is inf"),
        ({"inner": {"count": 1, "other": 0}}, "inner.other is unknown"),
        ({"numbers": {"0": 1}}, "numbers is .*, not a list"),
        ({"numbers": [1, "2"]}, r"numbers\[1\] is '2', not an integer"),
        ({"table": [1]}, r"table is \[1\], not an object"),
        ({"table": {"x": "1"}}, r"table.x is '1'"),
        ({"many": [{"count": 1}, 7]}, r"many\[1\] is 7, not an object"),
        ({"name": ["x" * 1000]}, r"name is \['x{1,60}\.\.\., not a string"),
    ],
)
def test_what_is_of_another_shape_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        from_json(Outer, {**GOOD, **change})


@pytest.mark.parametrize("value", [None, 3, "x", [], [{}]])
def test_what_is_no_object(value):
    with pytest.raises(ValueError, match=r"it is .*, not an object"):
        from_json(Outer, value)
