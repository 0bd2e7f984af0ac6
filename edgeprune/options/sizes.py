"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from edgeprune_formats import ConfigError

from .fields import option

__all__ = ["MEMORY", "parse_size", "size_option"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgt]?)(i?)(?:b|bytes?)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Return the bytes that ``5MB``, ``1.5m``, ``500 kB`` or ``2000000`` stand for.

    M, MB and mb are 10^6, as on the label of a card; Mi and MiB are 2^20. Case does not matter.

    Raises
    ------
    ConfigError
        It is no size, or nothing.
    """
    found = _SIZE.fullmatch(text.strip())
    size = 0
    if found and (found[2] or not found[3]):
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])
    if size <= 0:
        raise ConfigError(
            f"{text!r} is no size in bytes; write one such as 5MB, 1.5M, 200KB, 1MiB or 2000000"
        )
    return size


def size_option(flag: str, help_text: str) -> Callable[[Any], Any]:
    """Return an option that takes a size, and gives bytes."""
    return option(flag, type=_size, metavar="SIZE", help=help_text)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


MEMORY = size_option(
    "--memory",
    "Memory limit of loaders and caches, e.g. 300MB.  [default: 1GiB, or less if memory is short]",
)
