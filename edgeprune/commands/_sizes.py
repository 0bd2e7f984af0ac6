"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from edgeprune_formats import ConfigError

__all__ = ["parse_size"]

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Return the bytes that ``5MB``, ``500 kB``, ``1.5MiB`` or ``2000000`` stand for; MB is 10^6.

    Raises
    ------
    ConfigError
        It is none of them, or nothing.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMG]?i?B?)\s*", text)
    size = int(float(found[1]) * UNITS.get(found[2].upper(), 0)) if found else 0
    if size <= 0:
        raise ConfigError(f"a size is a number with kB, MB, GB, KiB, MiB or GiB, such as 5MB, not {text!r}")
    return size
