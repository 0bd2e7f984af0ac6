"""Checking the types of a dataclass's fields, by their annotations."""

from __future__ import annotations

import dataclasses
import numbers
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgeprune_formats import ConfigError

__all__ = ["check_types"]

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
            raise ConfigError(f"`{type(config).__name__}.{field.name}` is {value!r}; it must be {known}")
        object.__setattr__(config, field.name, fitting[0])


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
