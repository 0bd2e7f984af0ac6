"""Checking values by the annotations of dataclasses: settings, and what was read from JSON."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

__all__ = ["check_types", "from_json", "shortened", "whole_number"]

T = TypeVar("T")

_KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}


def check_types(config: Any) -> None:
    """Check the fields of a dataclass whose types are bool, int, float, str, a `Literal`, or unions of them.

    Called first in ``__post_init__``. Numbers of numpy's types become Python's own, so that JSON can hold
    them; an integer is taken for a float. Fields of other types are left alone.

    Parameters
    ----------
    config : dataclass instance
        May be frozen.

    Raises
    ------
    ConfigError
        A value is of another type than its field, or not one of the literals.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        allowed = _alternatives(hints[field.name])
        if not all(kind in _KINDS or kind is type(None) or get_origin(kind) is Literal for kind in allowed):
            continue
        fitting = [_as(kind, value) for kind in allowed if _fits(kind, value)]
        if not fitting:
            known = " or ".join(filter(None, map(_description, allowed)))
            raise ConfigError(
                f"`{type(config).__name__}.{field.name}` is {shortened(value)}; it must be {known}"
            )
        object.__setattr__(config, field.name, fitting[0])


def whole_number(name: str, value: Any) -> int:
    """Return the integer, of Python's or numpy's types, that an argument is.

    Raises
    ------
    ConfigError
        It is something else; the message names the argument.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"`{name}` is {shortened(value)}; it must be an integer") from None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def _as(kind: Any, value: Any) -> Any:
    if kind is int or (kind is float and not isinstance(value, int)):
        return kind(value)
    return value


def _description(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _KINDS.get(kind, "None")


def from_json(kind: type[T], value: Any) -> T:
    """Return a dataclass made of a JSON object that has its fields, and no others.

    Fields may be bool, int, float, str, None, `Any`, a `Literal`, another dataclass, ``list[X]``,
    ``tuple[X, ...]`` and ``dict[str, X]`` of these, and unions. Those with a default may be missing. Numbers
    must be finite.

    Raises
    ------
    ValueError
        The value is not of this shape; the message names the entry.
    """
    made: T = _parsed(kind, value, "it")
    return made


def _parsed(kind: Any, value: Any, name: str) -> Any:
    origin, parameters = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, name)
    if origin in (Union, types.UnionType):
        return _first(parameters, value, name)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_parsed(parameters[0], one, f"{name}[{i}]") for i, one in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _parsed(parameters[1], one, _entry(name, key)) for key, one in value.items()}
    plain = origin is Literal or kind in _KINDS or kind is type(None)
    if plain and _fits(kind, value) and not (isinstance(value, float) and not math.isfinite(value)):
        return value
    wanted = _description(kind) if plain else _named(origin)
    raise ValueError(one_line(f"{name} is {shortened(value)}, not {wanted}"))


def _first(alternatives: tuple[Any, ...], value: Any, name: str) -> Any:
    for kind in alternatives[:-1]:
        try:
            return _parsed(kind, value, name)
        except ValueError:
            continue
    return _parsed(alternatives[-1], value, name)


def _object(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(one_line(f"{name} is {shortened(value)}, not an object"))
    hints, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}
    needed = {
        field.name
        for field in fields.values()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    for wrong, what in ((needed - value.keys(), "missing"), (value.keys() - fields.keys(), "unknown")):
        if wrong:
            raise ValueError(one_line(f"{_entry(name, min(wrong))} is {what}"))
    return kind(**{key: _parsed(hints[key], one, _entry(name, key)) for key, one in value.items()})


def _entry(name: str, key: str) -> str:
    return key if name == "it" else f"{name}.{key}"


def _named(origin: Any) -> str:
    return "an object" if origin is dict else "a list"


def shortened(value: Any) -> str:
    """Return a value as messages have it: it may come from a file, and be of any length and several lines."""
    text = one_line(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
