"""What the user says of a target: its name, the columns that it is of, and its kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeprune_formats import ConfigError
from edgeprune_formats.limits import MAX_COLUMNS
from edgeprune_formats.targets import KINDS, LABEL, TRAINABLE, alike_names

__all__ = ["TargetRequest", "are_enough", "parse_targets"]


@dataclass(frozen=True)
class TargetRequest:
    """A target that a user names.

    Attributes
    ----------
    name : str
        Of the target in the pack.
    columns : tuple of str
        Of the source, at least one.
    kind : str or None
        One of `KINDS`; None is found out by the values.
    """

    name: str
    columns: tuple[str, ...]
    kind: str | None = None


def parse_targets(texts: Iterable[str]) -> tuple[TargetRequest, ...]:
    """Return the targets that texts such as ``"age"``, ``"tags:multilabel"``, ``"pose=x+y:value"`` name.

    Raises
    ------
    ConfigError
        One is not of this form, or two have one name, or they are more than a pack holds.
    """
    requests = tuple(_parsed(text) for text in texts)
    alike = alike_names([LABEL, *(request.name for request in requests)])
    if alike is not None:
        raise ConfigError(
            f"`target` names {alike[1]!r} twice, or it is the name of the labels; write NEW={alike[1]}"
        )
    if len(requests) > MAX_COLUMNS:
        raise ConfigError(
            f"{len(requests)} times `target`; a pack has {MAX_COLUMNS} at most beside the label"
        )
    return requests


def _parsed(text: str) -> TargetRequest:
    rest, colon, kind = text.rpartition(":")
    # A colon may also be of the column's name.
    named, kind = (rest, kind) if colon and kind in KINDS else (text, "")
    name, equals, columns = named.partition("=")
    found = tuple(columns.split("+")) if equals else (named,)
    if not name or not all(found):
        raise ConfigError(f"`target` {text!r}: write NAME, NAME:KIND or NAME=COLUMN+COLUMN:KIND")
    if colon and not kind and rest and text.rpartition(":")[2].isidentifier():
        raise ConfigError(f"`target` {text!r}: unknown kind; known are {', '.join(KINDS)}")
    return TargetRequest(name, found, kind or None)


def are_enough(kinds: Iterable[str]) -> bool:
    """Return whether images with targets of these kinds need no classes."""
    return any(kind in TRAINABLE for kind in kinds)
